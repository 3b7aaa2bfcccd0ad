"""Look-ahead and optimal design, each against refits or the direct formula in plain loops."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.base import clone

from cache.errors import InputError
from stages.al.heads import HEADS
from stages.al.heads.closed_form import softmax
from stages.al.pool import Pool, PoolView
from stages.al.readings import LEAST, fast_exp, fast_log
from stages.al.strategies import STRATEGIES
from stages.al.strategies.expected_loss_reduction import expected_loss_reduction
from tests.conftest import make_view

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


@pytest.mark.parametrize("name", ["expected_loss_reduction"])
def test_another_head_is_refused_in_a_sentence(tiny_pool: Pool, name: str) -> None:
    view = round_of(tiny_pool, "linear:epochs=1")
    with pytest.raises(InputError, match="'linear' has no closed form.*inv, pinv, ridge, solve, truncated_pinv"):
        STRATEGIES.build(name).query(view, 1, np.random.default_rng(0))
