"""Look-ahead and optimal design, each against refits or the direct formula in plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.base import clone

from cache.errors import InputError
from stages.al.heads import HEADS
from stages.al.heads.closed_form import softmax
from stages.al.pool import Pool
from stages.al.readings import LEAST, fast_exp, fast_log
from stages.al.strategies import STRATEGIES
from stages.al.strategies.expected_loss_reduction import expected_loss_reduction
from stages.al.strategies.model_change import model_change
from stages.al.strategies.variance_reduction import VarianceReduction
from stages.al.view import PoolView
from tests.conftest import blobs, make_view

HEADS_TESTED = ("ridge", "ridge:intercept=yes", "ridge:class_weight=balanced", "solve:temperature=20", "truncated_pinv")


def round_of(pool: Pool, spec: str, n_labeled: int = 12) -> PoolView:
    """A round with that head."""
    labeled = np.arange(n_labeled)
    head = HEADS.build(spec, n_classes=pool.n_classes).fit(pool.features[labeled], pool.labels[labeled])
    return make_view(pool, labeled, fitted_head=head)


def refitted(view: PoolView, candidate: int, label: int) -> np.ndarray:
    """Raw logits of all pool images by a head fitted to the labeled images and one more."""
    head, X = view.head, view.pool_features.astype(np.float64)
    rows, labels = np.append(view.labeled, candidate), np.append(view.labels, label)
    fixed = clone(head).set_params(class_weight=dict(enumerate(head.class_weight_)))
    if head.name == "truncated_pinv":  # the directions stay
        X = X @ head._directions.T
        fixed = HEADS.build("pinv", n_classes=view.n_classes)
    return fixed.fit(X[rows], labels).raw_logits(X)


def test_exponentials_and_logarithms_in_kernels() -> None:
    x = np.linspace(LEAST, 3, 10_001).astype(np.float32)
    np.testing.assert_allclose([fast_exp(value) for value in x], np.exp(x.astype(np.float64)), rtol=5e-6)
    y = np.exp(np.linspace(-87, 80, 10_001)).astype(np.float32)
    np.testing.assert_allclose([fast_log(value) for value in y], np.log(y.astype(np.float64)), rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("spec", HEADS_TESTED)
@pytest.mark.parametrize("temperature", [20.0, 1.0])
def test_expected_loss_reduction_is_that_of_refits(
    tiny_pool: Pool, spec: str, temperature: float, n_labeled: int = 12
) -> None:
    view = round_of(tiny_pool, spec, n_labeled)
    candidates, images = view.candidates[:9], np.arange(20, 60)
    now = view.head.raw_logits(tiny_pool.features.astype(np.float64)) / temperature
    before = entropy(softmax(now[images]), axis=1).mean()
    expected = []
    for candidate in candidates:
        loss = 0.0
        for label, proba in enumerate(softmax(now[[candidate]])[0]):
            after = refitted(view, candidate, label)[images] / temperature
            loss += proba * entropy(softmax(after), axis=1).mean()
        expected.append(before - loss)
    features = tiny_pool.features
    scores = expected_loss_reduction(view.head, features[candidates], features[images], temperature)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=3e-6)


def test_expected_loss_reduction_queries_the_best_at_the_calibrated_temperature(tiny_pool: Pool) -> None:
    view = round_of(tiny_pool, "ridge", 30)
    fitted = HEADS.build("ridge:temperature=fitted", n_classes=4).fit(tiny_pool.features[:30], tiny_pool.labels[:30])
    temperature = view.head.calibrated_temperature(tiny_pool.features[:30], tiny_pool.labels[:30])
    assert temperature == pytest.approx(fitted.temperature_)
    scores = expected_loss_reduction(view.head, view.features, view.features, temperature)
    queried = STRATEGIES.build("expected_loss_reduction").query(view, 4, np.random.default_rng(0))
    assert queried.tolist() == view.candidates[np.argsort(-scores)[:4]].tolist()


def test_calibration_needs_two_images_of_a_class(tiny_pool: Pool) -> None:
    head = round_of(tiny_pool, "ridge:temperature=7", 4).head
    assert head.calibrated_temperature(tiny_pool.features[:4], tiny_pool.labels[:4]) == 7


def test_the_drawn_subset_holds_the_batch(tiny_pool: Pool) -> None:
    view = round_of(tiny_pool, "ridge")
    strategy = STRATEGIES.build("expected_loss_reduction:candidates=5:images=5")
    assert len(set(strategy.query(view, 9, np.random.default_rng(0)))) == 9
    assert strategy.query(view, 1, np.random.default_rng(0)) in view.candidates


@pytest.mark.parametrize(
    ("spec", "n_labeled"), [*((spec, 12) for spec in (*HEADS_TESTED, "solve")), ("ridge", 3), ("pinv", 3)]
)
def test_model_change_is_that_of_refits(tiny_pool: Pool, spec: str, n_labeled: int) -> None:
    view = round_of(tiny_pool, spec, n_labeled)
    candidates, images = view.candidates[:9], np.arange(20, 60)
    now = view.head.raw_logits(tiny_pool.features.astype(np.float64))
    expected = []
    for candidate in candidates:
        change = refitted(view, candidate, int(now[candidate].argmax())) - now
        expected.append(np.linalg.norm(change[images], axis=1).mean())
    scores = model_change(view.head, tiny_pool.features[candidates], tiny_pool.features[images])
    np.testing.assert_allclose(scores, expected, rtol=2e-5)


def test_model_change_queries_the_highest(tiny_pool: Pool) -> None:
    view = round_of(tiny_pool, "ridge")
    scores = model_change(view.head, view.features, view.features)
    queried = STRATEGIES.build("model_change").query(view, 4, np.random.default_rng(0))
    assert queried.tolist() == view.candidates[np.argsort(-scores)[:4]].tolist()


def variance(pool: Pool, rows: list[int], criterion: str, penalty: float, constant: bool) -> float:
    """What the criterion lowers, with those images labeled, by explicit inversion."""
    X = pool.features.astype(np.float64)
    X = np.hstack([X, np.ones((len(X), 1))]) if constant else X
    information = penalty * np.diag([1.0] * pool.features.shape[1] + [0.0] * constant)
    for row in rows:
        information = information + np.outer(X[row], X[row])
    inverse = np.linalg.inv(information)
    if criterion == "a":
        return float(np.trace(inverse))
    return float(np.linalg.slogdet(inverse)[1]) if criterion == "d" else float(np.mean([e @ inverse @ e for e in X]))


@pytest.mark.parametrize("criterion", ["v", "a", "d"])
@pytest.mark.parametrize(
    ("spec", "penalty", "n_labeled"),
    [
        ("ridge", 10.0, 12),
        ("ridge:intercept=yes:penalty=2", 2.0, 3),
        ("solve", 0.0, 12),
        ("pinv", 1e-6, 3),  # the limit of small penalties: directions without a label come first
    ],
)
def test_variance_reduction_by_explicit_inverses(
    tiny_pool: Pool, criterion: str, spec: str, penalty: float, n_labeled: int
) -> None:
    view = round_of(tiny_pool, spec, n_labeled)
    rows, expected = view.labeled.tolist(), []
    for _ in range(5):
        waiting = [i for i in view.candidates.tolist() if i not in rows]
        after = [variance(tiny_pool, [*rows, i], criterion, penalty, "intercept" in spec) for i in waiting]
        rows.append(waiting[int(np.argmin(after))])
        expected.append(rows[-1])
    queried = VarianceReduction(criterion=criterion).query(view, 5, np.random.default_rng(0))
    assert queried.tolist() == expected


def test_variance_reduction_within_the_directions_of_a_truncated_head(tiny_pool: Pool) -> None:
    view = round_of(tiny_pool, "truncated_pinv:share=0.25")
    X = tiny_pool.features @ view.head._directions.T
    rows = X[view.labeled]
    after = [np.trace(X @ np.linalg.inv(rows.T @ rows + np.outer(x, x)) @ X.T) for x in X[view.candidates]]
    queried = VarianceReduction().query(view, 1, np.random.default_rng(0))
    assert queried[0] == view.candidates[np.argmin(after)]


def informations(view: PoolView, form: str) -> np.ndarray:
    """Fisher information of every pool image."""
    X, proba = view.pool_features.astype(np.float64), view.pool_proba
    if form == "binary":
        return np.array([p.max() * (1 - p.max()) * np.outer(x, x) for x, p in zip(X, proba, strict=True)])
    return np.array([np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x)) for x, p in zip(X, proba, strict=True)])


def bait_by_brute_force(view: PoolView, form: str, batch_size: int, penalty: float) -> list[int]:
    each = informations(view, form)
    pool, start = each.mean(axis=0), penalty * np.eye(each.shape[1]) + each[view.labeled].sum(axis=0)

    def trace(images: list[int]) -> float:
        return float(np.trace(np.linalg.inv(start + each[images].sum(axis=0)) @ pool))

    chosen: list[int] = []
    for _ in range(2 * batch_size):
        waiting = [i for i in view.candidates.tolist() if i not in chosen]
        chosen.append(min(waiting, key=lambda i: trace([*chosen, i])))
    while len(chosen) > batch_size:
        chosen.remove(min(chosen, key=lambda i: trace([j for j in chosen if j != i])))
    return chosen


@pytest.mark.parametrize("form", ["binary", "multiclass"])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("spec", ["ridge", "solve:temperature=20", "linear:epochs=2"])
def test_bait_is_the_greedy_trace(tiny_pool: Pool, form: str, batch_size: int, spec: str) -> None:
    view = round_of(tiny_pool, spec)
    strategy = STRATEGIES.build(f"bait:form={form}:penalty=0.5")
    queried = strategy.query(view, batch_size, np.random.default_rng(0))
    assert queried.tolist() == bait_by_brute_force(view, form, batch_size, 0.5)


def test_both_forms_of_bait_are_one_in_two_classes(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    features, labels = blobs(rng, n_classes=2)
    view = round_of(make_pool(features, labels, 2), "ridge")
    one, two = (STRATEGIES.build(f"bait:form={form}") for form in ("binary", "multiclass:penalty=2"))
    assert (
        one.query(view, 6, np.random.default_rng(0)).tolist() == two.query(view, 6, np.random.default_rng(0)).tolist()
    )


def test_the_multiclass_form_of_bait_survives_hard_pools(hard_view: PoolView) -> None:
    for batch_size in (1, 5 if len(hard_view.candidates) > 5 else 2, len(hard_view.candidates)):
        queried = STRATEGIES.build("bait:form=multiclass").query(hard_view, batch_size, np.random.default_rng(0))
        assert len(set(queried.tolist())) == batch_size


def test_the_multiclass_form_of_bait_refuses_what_does_not_fit(
    make_pool: Callable[..., Pool], rng: np.random.Generator
) -> None:
    view = round_of(make_pool(rng.normal(size=(40, 500)).astype(np.float32), np.arange(40) % 10, 10), "ridge")
    with pytest.raises(InputError, match="at most 4000 dimensions x classes.*500 x 10.*form=binary"):
        STRATEGIES.build("bait:form=multiclass").query(view, 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["expected_loss_reduction", "model_change", "variance_reduction"])
def test_another_head_is_refused_in_a_sentence(tiny_pool: Pool, name: str) -> None:
    view = round_of(tiny_pool, "linear:epochs=1")
    with pytest.raises(InputError, match="'linear' has no closed form.*inv, pinv, ridge, solve, truncated_pinv"):
        STRATEGIES.build(name).query(view, 1, np.random.default_rng(0))


@pytest.mark.parametrize("spec", ["variance_reduction", "bait:penalty=0.01"])
def test_a_long_batch_keeps_its_digits_at_a_small_penalty(spec: str, make_pool: Callable[..., Pool]) -> None:
    features, labels = blobs(np.random.default_rng(3), n=300, dim=40, n_classes=5)
    head = HEADS.build("ridge:penalty=0.001", n_classes=5).fit(features[:10], labels[:10])
    queried = []
    for dtype in (np.float32, np.float64):
        view = make_view(make_pool(features.astype(dtype), labels, 5, dtype.__name__), np.arange(10), fitted_head=head)
        queried.append(STRATEGIES.build(spec).query(view, 60, np.random.default_rng(0)).tolist())
    assert len(set(queried[0]) & set(queried[1])) >= 57
