"""The lock-step trainer against PyTorch's own loop, and what the gradient heads and the SVM do with their settings."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from stages.al.heads import HEADS, lockstep
from stages.al.heads.gradient import GradientHead
from stages.al.heads.lockstep import batches, train_network
from stages.al.heads.recipes import RECIPES, Training
from stages.al.loop import Cell, Evaluation, run_active_learning
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from tests.conftest import blobs

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    Training(optimizer="sgd", learning_rate=0.1, epochs=20, batch_size=16),
    replace(RECIPES["supclust"], epochs=20, batch_size=16),
    Training(optimizer="adam", learning_rate=1e-2, weight_decay=0.1, epochs=20, batch_size=16),
    replace(RECIPES["thesis"], epochs=20, learning_rate=1e-2),
    Training(optimizer="nadam", learning_rate=1e-2, weight_decay=0.1, epochs=20, batch_size=16, drop_last=True),
]
settings = pytest.mark.parametrize("training", SETTINGS, ids=["sgd", "supclust", "adam", "adamw", "nadam"])


def stacked(rng: np.random.Generator, runs: int = 4, n: int = 45) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of several runs."""
    made = [blobs(rng, n=n) for _ in range(runs)]
    return np.stack([X for X, _ in made]), np.stack([rng.permutation(y) for _, y in made])


def plain_loop(X: np.ndarray, y: np.ndarray, network: torch.nn.Module, training: Training, seed: int) -> None:
    """As one writes it: autograd, one of PyTorch's optimizers and schedulers, one batch after the other.

    Dropout is torch.nn.functional.dropout's rule on the masks of the run's own stream.
    """
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    sgd = {"momentum": training.momentum, "nesterov": training.nesterov} if training.optimizer == "sgd" else {}
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "nadam": "NAdam"}
    optimizer = getattr(torch.optim, kinds[training.optimizer])(network.parameters(), **common, **sgd)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=training.epochs)
    features, labels, rng = torch.tensor(X), torch.tensor(y), np.random.default_rng(seed)
    masks, rate = np.random.default_rng([seed, 2]), training.dropout
    for _ in range(training.epochs):
        order = torch.tensor(rng.permutation(len(y)))
        for batch in batches(len(y), training):
            optimizer.zero_grad()
            rows = order[batch]
            images = features[rows]
            if rate:
                images = images * torch.tensor(masks.random(images.shape, dtype=np.float32) >= rate) / (1 - rate)
            torch.nn.functional.cross_entropy(network(images), labels[rows]).backward()
            optimizer.step()
        if training.schedule == "cosine":
            scheduler.step()


def with_bias(layer: torch.nn.Linear) -> np.ndarray:
    """The layer's weights (in + 1, out)."""
    return np.vstack([layer.weight.detach().numpy().T, layer.bias.detach().numpy()])


def linear_start(X: np.ndarray, n_classes: int = 4) -> list[np.ndarray]:
    """Zeros, for every run."""
    return [np.zeros((len(X), X.shape[2] + 1, n_classes), dtype=np.float32)]


@pytest.mark.parametrize("name", ["linear", "mlp"])
@settings
def test_a_run_is_bitwise_the_same_beside_others(name: str, training: Training, rng: np.random.Generator) -> None:
    """Alone, beside one, beside nine; odd shapes, early stopping at different epochs, dropout."""
    made = [blobs(rng, n=45, dim=50, n_classes=10) for _ in range(10)]
    X, y = (np.stack(part) for part in zip(*made, strict=True))
    noisy = np.where(rng.random(y.shape) < 0.3, rng.integers(0, 10, y.shape), y)
    validation = blobs(rng, n=61, dim=50, n_classes=10)
    given = {field.name: getattr(training, field.name) for field in fields(training)}
    given |= {"batch_size": 13, "drop_last": False, "patience": 2, "dropout": 0.2, "n_classes": 11}
    if training.optimizer != "sgd":
        given |= {"momentum": None, "nesterov": None}

    def together(*seeds: int) -> list[GradientHead]:
        heads = [HEADS.build(name, seed=seed, **given) for seed in seeds]
        heads[0].fit_many(heads, [(X[seed], noisy[seed]) for seed in seeds], validation)
        return heads

    ten = together(*range(10))
    alone = [HEADS.build(name, seed=seed, **given).fit(X[seed], noisy[seed], validation) for seed in range(10)]
    pairs = [together(seed, (seed + 3) % 10)[0] for seed in range(10)]
    for one, pair, among in zip(alone, pairs, ten, strict=True):
        for i, layer in enumerate(one._layers):
            assert np.array_equal(layer, pair._layers[i])
            assert np.array_equal(layer, among._layers[i])
        assert np.array_equal(one.predict_proba(X[0]), among.predict_proba(X[0]))
        assert one._unseen.tolist() == among._unseen.tolist()


@settings
def test_threads_change_nothing(training: Training, rng: np.random.Generator) -> None:
    made = [blobs(rng, n=60, dim=512, n_classes=10) for _ in range(10)]
    X, y = (np.stack(part) for part in zip(*made, strict=True))
    training = replace(training, epochs=3, drop_last=False)
    together = train_network(X, y, start=linear_start(X, 10), training=training, seeds=range(10))[0]
    with threadpool_limits(2):
        for run in (0, 9):
            alone = X[run : run + 1], y[run : run + 1]
            start = linear_start(alone[0], 10)
            assert np.array_equal(
                together[run], train_network(*alone, start=start, training=training, seeds=[run])[0][0]
            )
        again = train_network(X, y, start=linear_start(X, 10), training=training, seeds=range(10))[0]
    assert np.array_equal(together, again)


def test_runs_stop_at_their_own_epochs(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: the group shrinks, and not at once."""
    sizes = []
    original = lockstep._Stopping.go_on
    monkeypatch.setattr(
        lockstep._Stopping, "go_on", lambda self, group: sizes.append(len(group.running)) or original(self, group)
    )
    X, y = stacked(rng, runs=10)
    heads = [HEADS.build("linear:patience=2:learning_rate=0.1", seed=seed) for seed in range(10)]
    heads[0].fit_many(heads, list(zip(X, rng.permuted(y, axis=1), strict=True)), blobs(rng, n=61))
    assert len(set(sizes)) > 3
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("linear:epochs=3", 45, 4), "equal parameters"),
        (("mlp", 45, 4), "one class"),
        (("linear", 44, 4), "one shape"),
        (("linear", 45, 3), "give n_classes"),
        (None, "2 heads and 1"),
    ],
)
def test_fit_many_refuses_what_differs(
    second: tuple[str, int, int] | None, message: str, rng: np.random.Generator
) -> None:
    spec, n, n_classes = second or ("linear", 45, 4)
    heads = [HEADS.build("linear"), HEADS.build(spec, seed=1)]
    data = [blobs(rng, n=45), blobs(rng, n=n, n_classes=n_classes)][: 2 if second else 1]
    with pytest.raises(ValueError, match=message):
        GradientHead.fit_many(heads, data)


def test_fit_many_refuses_a_head_twice(rng: np.random.Generator) -> None:
    head = HEADS.build("linear")
    with pytest.raises(ValueError, match="twice"):
        head.fit_many([head, head], [blobs(rng)] * 2)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@settings
def test_is_the_plain_loop(training: Training, dropout: float, rng: np.random.Generator) -> None:
    X, y = stacked(rng)
    start = rng.normal(size=(4, 7, 4)).astype(np.float32)
    training = replace(training, dropout=dropout)
    together = train_network(X, y, start=[start], training=training, seeds=range(4))[0]
    for run in range(4):
        layer = torch.nn.Linear(6, 4)
        layer.weight.data, layer.bias.data = torch.tensor(start[run, :-1].T.copy()), torch.tensor(start[run, -1])
        plain_loop(X[run], y[run], layer, training, seed=run)
        np.testing.assert_allclose(together[run], with_bias(layer), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@settings
def test_network_is_the_plain_loop(training: Training, dropout: float, rng: np.random.Generator) -> None:
    X, y = stacked(rng, runs=2)
    networks = [torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4)) for _ in range(2)]
    start = [np.stack([with_bias(network[i]) for network in networks]) for i in (0, 2)]
    training = replace(training, dropout=dropout)
    trained = train_network(X, y, start=start, training=training, seeds=[0, 1])
    for run, network in enumerate(networks):
        plain_loop(X[run], y[run], network, training, seed=run)
        for layer, i in zip(trained, (0, 2), strict=True):
            np.testing.assert_allclose(layer[run], with_bias(network[i]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "drop_last", "sizes"), [(33, True, [32]), (33, False, [32, 1]), (5, True, [5])])
def test_batches(n: int, drop_last: bool, sizes: list[int]) -> None:
    made = batches(n, replace(RECIPES["thesis"], drop_last=drop_last))
    assert [len(range(n)[batch]) for batch in made] == sizes


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_early_stopping_restores_the_best_weights(dropout: float, rng: np.random.Generator) -> None:
    """Against training for every number of epochs; the validation images are seen without dropout."""
    X, y = blobs(rng, n=24)
    noisy = np.where(rng.random(24) < 0.4, rng.integers(0, 4, 24), y)
    validation = blobs(np.random.default_rng(0), n=200)
    training = replace(RECIPES["thesis"], learning_rate=0.1, epochs=60, dropout=dropout)

    def trained(**changes: int) -> np.ndarray:
        fit = {"training": replace(training, **changes), "seeds": [0], "validation": validation}
        return train_network(X[None], noisy[None], start=linear_start(X[None]), **fit)[0][0]

    def loss(weights: np.ndarray) -> float:
        logits = validation[0] @ weights[:-1] + weights[-1]
        return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(200), validation[1]]).mean())

    losses = [loss(trained(epochs=epochs, patience=0)) for epochs in range(1, 61)]
    assert np.argmin(losses) < 50
    assert loss(trained(patience=60)) == pytest.approx(min(losses), rel=1e-5)
    first_wait = next(e for e in range(60) if min(losses[e + 1 : e + 3]) > min(losses[: e + 1]))
    assert loss(trained(patience=2)) == pytest.approx(min(losses[: first_wait + 1]), rel=1e-5)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_recipes_fill_what_is_not_given(name: str) -> None:
    assert HEADS.build(name).training == RECIPES["thesis"]
    changed = HEADS.build(f"{name}:recipe=supclust:epochs=7:nesterov=no").training
    assert changed == replace(RECIPES["supclust"], epochs=7, nesterov=False)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_every_recipe_learns(name: str, recipe: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=200, dim=8)
    head = HEADS.build(f"{name}:recipe={recipe}")
    if (name, recipe) == ("mlp", "ssl_meets_al"):
        head.learning_rate = 0.3  # 30 is a linear layer's rate
    assert head.fit(X[:100], y[:100]).score(X[100:], y[100:]) > 0.95


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear:recipe=tesis", "there is no recipe"),
        ("linear:optimizer=lion", "optimizer must be one of"),
        ("linear:start=warmish", "start must be one of"),
        ("mlp:start=closed_form", "start must be one of cold, warm"),
        ("linear:dropout=1", "dropout=1.0 must be in"),
        ("linear:dropout=-0.1", "dropout=-0.1"),
        ("linear:schedule=step", "schedule must be one of"),
        ("linear:epochs=0", "epochs=0 must be positive"),
        ("linear:momentum=0.9", "momentum"),
        ("linear:recipe=supclust:momentum=0", "nesterov needs"),
        ("linear:recipe=supclust:momentum=1", "momentum in"),
        ("linear:seed=-1", "seed=-1"),
        ("mlp:hidden=0", "hidden=0"),
        ("svm:C=0", "must be positive"),
    ],
)
def test_impossible_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HEADS.build(spec).check_parameters()


def test_divergence_is_said(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    for validation in (None, (X, y)):
        with pytest.raises(ValueError, match="diverged"):
            HEADS.build("mlp:optimizer=sgd:learning_rate=1e20").fit(X, y, validation)


def test_closed_form_start_is_the_ridge_head(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    warm = HEADS.build("linear:start=closed_form:learning_rate=1e-12", n_classes=5).fit(X, y)
    ridge = HEADS.build("ridge", n_classes=5).fit(X, y)
    np.testing.assert_allclose(warm.predict_proba(X), ridge.predict_proba(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_warm_start_goes_on_from_the_last_fit(name: str, rng: np.random.Generator) -> None:
    """Plain descent on all images at once has no memory but the weights: two fits are one of twice the epochs."""
    X, y = blobs(rng, n=40)
    spec = f"{name}:optimizer=sgd:learning_rate=0.1:batch_size=40:weight_decay=0:n_classes=5"
    warm, cold = HEADS.build(f"{spec}:start=warm:epochs=7"), HEADS.build(f"{spec}:epochs=7")
    assert np.array_equal(warm.fit(X, y).weights_, cold.fit(X, y).weights_)
    assert np.array_equal(clone(warm).fit(X, y).weights_, cold.weights_)
    twice = HEADS.build(f"{spec}:epochs=14").fit(X, y)
    np.testing.assert_allclose(warm.fit(X, y).weights_, twice.weights_, rtol=1e-4, atol=1e-5)
    assert not np.allclose(warm.weights_, cold.fit(X, y).weights_, rtol=1e-2)
    np.testing.assert_allclose(warm.predict_proba(X), twice.predict_proba(X), rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_warm_start_beside_others(name: str, rng: np.random.Generator) -> None:
    """Fitted and unfitted heads may train together."""
    first, second = blobs(rng, n=20), blobs(rng, n=30)
    heads = [HEADS.build(f"{name}:start=warm:n_classes=4", seed=seed) for seed in range(3)]
    heads[1].fit(*first)
    heads[0].fit_many(heads, [second] * 3)
    expected = HEADS.build(f"{name}:start=warm:n_classes=4:seed=1").fit(*first).fit(*second)
    assert np.array_equal(heads[1].weights_, expected.weights_)
    assert np.array_equal(heads[2].weights_, HEADS.build(f"{name}:n_classes=4:seed=2").fit(*second).weights_)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_warm_start_refuses_other_classes_and_features(name: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    head = HEADS.build(f"{name}:start=warm").fit(X, y)
    with pytest.raises(ValueError, match="classes of the last fit"):
        head.fit(X[y < 3], y[y < 3])
    with pytest.raises(ValueError, match="shapes"):
        head.fit(X[:, :4], y)


def test_a_class_once_labeled_keeps_its_own_logits_when_warm(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    head = HEADS.build("linear:start=warm:n_classes=6").fit(X, y)
    logits = head.fit(X[y < 3], y[y < 3]).logits(X)
    assert (logits[:, 4] == logits[:, 5]).all()
    assert not (logits[:, 3] == logits[:, 4]).any()


def test_dropout_keeps_the_mean() -> None:
    factors = lockstep.dropout_factors([np.random.default_rng(0), np.random.default_rng(1)], 400, 100, 0.25)
    assert set(np.unique(factors)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_allclose((factors == 0).mean(axis=(1, 2)), 0.25, atol=0.01)
    np.testing.assert_allclose(factors.mean(axis=(1, 2)), 1, atol=0.01)
    assert not np.array_equal(*factors)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_logits_are_what_the_softmax_is_taken_of(name: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    head = HEADS.build(name, n_classes=6).fit(X, y)
    for precision in (np.float32, np.float64):
        logits = head.logits(X.astype(precision))
        assert logits.dtype == precision
        proba = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(head.predict_proba(X), proba / proba.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(ValueError, match="features"):
        head.predict_proba(X[:, :3])


@pytest.mark.parametrize("name", ["linear", "mlp", "svm"])
@pytest.mark.parametrize("seen", [[2], [0, 3], [0, 1, 2, 3]])
def test_one_image_per_class_and_one_class(name: str, seen: list[int], rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    rows = np.array(seen)
    head = HEADS.build(name, n_classes=6).fit(X[rows], y[rows])
    assert head.predict(X[rows]).tolist() == seen
    unseen = np.setdiff1d(np.arange(6), seen)
    proba = head.predict_proba(X)
    assert (proba[:, unseen] == proba[:, unseen[:1]]).all()


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_draws_follow_the_seed_alone(name: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted = [HEADS.build(f"{name}:seed={seed}").fit(X, y).weights_ for seed in (0, 0, 1)]
    assert np.array_equal(fitted[0], fitted[1])
    assert not np.array_equal(fitted[0], fitted[2])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_svm_is_scikit_learns_one_against_the_rest(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(80, 5)), rng.integers(0, 4, 80)
    expected = OneVsRestClassifier(SVC(kernel="linear", C=5)).fit(X, y)
    np.testing.assert_allclose(HEADS.build("svm").fit(X, y).decision_function(X), expected.decision_function(X))


def test_svm_temperature_is_fitted_on_validation(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    noisy = np.where(rng.random(120) < 0.3, rng.integers(0, 4, 120), y)
    sharp, fitted = HEADS.build("svm"), HEADS.build("svm")
    sharp.fit(X, y)
    fitted.fit(X, y, validation=(X, noisy))
    assert fitted.temperature_ > sharp.temperature_ == 1

    def loss(head: BaseEstimator) -> float:
        return -float(np.log(head.predict_proba(X)[np.arange(120), noisy]).mean())

    assert loss(fitted) < loss(sharp)
    assert np.array_equal(fitted.predict(X), sharp.predict(X))


@pytest.mark.parametrize("name", ["linear", "mlp", "svm"])
def test_runs_in_the_loop(name: str, tiny_pool: Pool, make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    features, labels = blobs(rng)
    other = Evaluation(features, labels)
    protocol = Protocol(initial_size=4, batch_size=2, budget=10)
    head, cell = HEADS.build(name, n_classes=4), Cell(strategy=STRATEGIES.build("margin"), seed=0)
    logs = [run_active_learning(tiny_pool, other, other, head, protocol, [cell])[0] for _ in range(2)]
    queried = [np.concatenate([row["queried"] for row in log.rounds]) for log in logs]
    assert len(queried[0]) == 10
    assert np.array_equal(*queried)


def test_torch_is_imported_by_gradient_heads_alone() -> None:
    code = """
import sys, numpy as np
from stages.al.heads import HEADS, build_head
X, y = np.eye(4), np.arange(4)
for name in HEADS:
    head = build_head(name, 4)
    if not hasattr(head, "training"):
        head.fit(X, y).predict_proba(X)
assert "torch" not in sys.modules
build_head("linear", 4).fit(X, y)
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
