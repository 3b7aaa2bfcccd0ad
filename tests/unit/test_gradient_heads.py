"""The lock-step trainer against PyTorch's own loop, and what the gradient heads and the SVM do with their settings."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from stages.al.heads import HEADS
from stages.al.heads.lockstep import batches, train_linear, train_network
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
    """As one writes it: autograd, one of PyTorch's optimizers and schedulers, one batch after the other."""
    common = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    sgd = {"momentum": training.momentum, "nesterov": training.nesterov} if training.optimizer == "sgd" else {}
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "nadam": "NAdam"}
    optimizer = getattr(torch.optim, kinds[training.optimizer])(network.parameters(), **common, **sgd)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=training.epochs)
    features, labels, rng = torch.tensor(X), torch.tensor(y), np.random.default_rng(seed)
    for _ in range(training.epochs):
        order = torch.tensor(rng.permutation(len(y)))
        for batch in batches(len(y), training):
            optimizer.zero_grad()
            rows = order[batch]
            torch.nn.functional.cross_entropy(network(features[rows]), labels[rows]).backward()
            optimizer.step()
        if training.schedule == "cosine":
            scheduler.step()


def with_bias(layer: torch.nn.Linear) -> np.ndarray:
    """The layer's weights (in + 1, out)."""
    return np.vstack([layer.weight.detach().numpy().T, layer.bias.detach().numpy()])


@settings
def test_lockstep_is_each_run_alone(training: Training, rng: np.random.Generator) -> None:
    X, y = stacked(rng)
    validation = blobs(rng, n=60)
    for checked in (training, replace(training, patience=3)):
        fit = {"n_classes": 4, "training": checked, "validation": validation}
        together = train_linear(X, y, seeds=range(4), **fit)
        assert together.shape == (4, 7, 4)
        for run in range(4):
            alone = train_linear(X[run : run + 1], y[run : run + 1], seeds=[run], **fit)[0]
            np.testing.assert_allclose(together[run], alone, rtol=1e-5, atol=1e-5)


@settings
def test_is_the_plain_loop(training: Training, rng: np.random.Generator) -> None:
    X, y = stacked(rng)
    start = rng.normal(size=(4, 7, 4)).astype(np.float32)
    together = train_linear(X, y, n_classes=4, training=training, seeds=range(4), start=start)
    for run in range(4):
        layer = torch.nn.Linear(6, 4)
        layer.weight.data, layer.bias.data = torch.tensor(start[run, :-1].T.copy()), torch.tensor(start[run, -1])
        plain_loop(X[run], y[run], layer, training, seed=run)
        np.testing.assert_allclose(together[run], with_bias(layer), rtol=1e-4, atol=1e-4)


@settings
def test_network_is_the_plain_loop(training: Training, rng: np.random.Generator) -> None:
    X, y = stacked(rng, runs=2)
    networks = [torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4)) for _ in range(2)]
    start = [np.stack([with_bias(network[i]) for network in networks]) for i in (0, 2)]
    trained = train_network(X, y, start=start, training=training, seeds=[0, 1])
    for run, network in enumerate(networks):
        plain_loop(X[run], y[run], network, training, seed=run)
        for layer, i in zip(trained, (0, 2), strict=True):
            np.testing.assert_allclose(layer[run], with_bias(network[i]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "drop_last", "sizes"), [(33, True, [32]), (33, False, [32, 1]), (5, True, [5])])
def test_batches(n: int, drop_last: bool, sizes: list[int]) -> None:
    made = batches(n, replace(RECIPES["thesis"], drop_last=drop_last))
    assert [len(range(n)[batch]) for batch in made] == sizes


def test_early_stopping_restores_the_best_weights(rng: np.random.Generator) -> None:
    """Against training for every number of epochs."""
    X, y = blobs(rng, n=24)
    noisy = np.where(rng.random(24) < 0.4, rng.integers(0, 4, 24), y)
    validation = blobs(np.random.default_rng(0), n=200)
    training = replace(RECIPES["thesis"], learning_rate=0.1, epochs=60)

    def trained(**changes: int) -> np.ndarray:
        fit = {"n_classes": 4, "training": replace(training, **changes), "seeds": [0], "validation": validation}
        return train_linear(X[None], noisy[None], **fit)[0]

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
    with pytest.raises(ValueError, match="diverged"):
        HEADS.build("mlp:optimizer=sgd:learning_rate=1e20").fit(X, y)


def test_closed_form_start_is_the_ridge_head(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    warm = HEADS.build("linear:start=closed_form:learning_rate=1e-12", n_classes=5).fit(X, y)
    ridge = HEADS.build("ridge", n_classes=5).fit(X, y)
    np.testing.assert_allclose(warm.predict_proba(X), ridge.predict_proba(X), rtol=1e-4, atol=1e-6)


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
