"""The closed forms and the look-ahead against independent solvers and brute force."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.utils.class_weight import compute_sample_weight

from stages.al.heads import HEADS
from stages.al.heads.closed_form import PENALTIES, log_targets
from stages.al.heads.spectrum import Spectrum
from tests.conftest import blobs

SHAPES = [(120, 10), (8, 30), (30, 30), (29, 30), (31, 30)]


def thesis_listing(x: np.ndarray, y: np.ndarray, epsilon: float = 10**-32, n_classes: int = 10) -> np.ndarray:
    """The thesis's own lines (002, section 4.4)."""
    y_processed = np.log(np.eye(n_classes)[y] + epsilon)
    inv = np.linalg.inv(x.T @ x)
    return inv @ x.T @ y_processed


@pytest.mark.parametrize("method", ["inv", "solve", "pinv"])
def test_is_the_thesis_listing(method: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=300, dim=20, n_classes=10)
    X = X.astype(np.float64)
    weights = HEADS.build(method, n_classes=10).fit(X, y).weights_
    np.testing.assert_allclose(weights, thesis_listing(X, y), rtol=1e-9, atol=1e-9)
    if method == "inv":
        assert np.array_equal(weights, thesis_listing(X, y))


@pytest.mark.parametrize(("n", "dim"), SHAPES)
@pytest.mark.parametrize("method", ["inv", "solve", "pinv"])
def test_is_minimum_norm_least_squares(method: str, n: int, dim: int, rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(n, dim)), rng.integers(0, 5, n)
    weights = HEADS.build(method, n_classes=5).fit(X, y).weights_
    expected, *_ = scipy.linalg.lstsq(X, log_targets(y, 5, 1e-32), lapack_driver="gelsy")
    np.testing.assert_allclose(X @ weights, X @ expected, rtol=1e-6, atol=1e-6 * np.abs(X @ expected).max())
    if (n, dim) in ((120, 10), (8, 30)):
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [3, 7])
def test_singular_systems_fall_back_to_the_penrose_inverse(rank: int, rng: np.random.Generator) -> None:
    X = rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 10))
    y = rng.integers(0, 4, 50)
    expected = np.linalg.pinv(X) @ log_targets(y, 4, 1e-32)
    for method in ("inv", "solve", "pinv"):
        np.testing.assert_allclose(HEADS.build(method, n_classes=4).fit(X, y).weights_, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_ridge_is_scikit_learns(n: int, dim: int, rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(n, dim)), rng.integers(0, 5, n)
    head = HEADS.build("ridge:penalty=3", n_classes=5).fit(X, y)
    expected = SklearnRidge(alpha=3, fit_intercept=False, solver="svd").fit(X, log_targets(y, 5, 1e-32)).coef_.T
    np.testing.assert_allclose(head.weights_, expected, rtol=1e-8, atol=1e-8)


def test_temperature_changes_confidence_and_no_prediction(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    sharp, soft = (HEADS.build(f"ridge:temperature={t}").fit(X, y) for t in (1, 30))
    assert np.array_equal(sharp.predict(X), soft.predict(X))
    assert soft.predict_proba(X).max(axis=1).mean() < sharp.predict_proba(X).max(axis=1).mean()


@pytest.mark.parametrize("spec", ["ridge:penalty=0", "ridge:temperature=0", "solve:epsilon=-1"])
def test_impossible_parameters_are_refused(spec: str, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="must be"):
        HEADS.build(spec).fit(*blobs(rng))


def test_influence_moves_the_logits_as_refitting_does(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(9, 15)), rng.integers(0, 3, 9)
    head = HEADS.build("pinv", n_classes=3).fit(X, y)
    x, target = rng.normal(size=15), log_targets(np.array([1]), 3, 1e-32)[0]
    moved = X @ head.weights_ + head.influence(X, x[None]) * (target - x @ head.weights_)
    refitted = HEADS.build("pinv", n_classes=3).fit(np.vstack([X, x]), np.append(y, 1))
    np.testing.assert_allclose(moved, X @ refitted.weights_, rtol=1e-8, atol=1e-8)


# --- growing image by image


@pytest.mark.parametrize(
    ("spec", "dim"),
    [
        *((spec, 50) for spec in ("inv", "solve", "pinv", "ridge", "ridge:penalty=0.01:intercept=true")),
        *(("pinv", 520), ("ridge:penalty=0.01:intercept=true", 520)),
    ],
)
def test_500_rounds_do_not_drift(spec: str, dim: int, rng: np.random.Generator) -> None:
    """Features as a projection makes them: variances over four decades, single precision."""
    X = (rng.normal(size=(510, dim)) * np.logspace(0, -2, dim)).astype(np.float32)
    y = rng.integers(0, 10, 510)
    head = HEADS.build(spec, n_classes=10).fit(X[:10], y[:10])
    for n in range(10, 510):
        head.partial_fit(X[n : n + 1], y[n : n + 1])
        if n % 83 == 0 or n in (dim - 1, dim, 509):
            assert_same_weights(head, HEADS.build(spec, n_classes=10).fit(X[: n + 1], y[: n + 1]))


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize(
    "spec",
    [
        "inv",
        "solve",
        "pinv",
        "ridge",
        "ridge:intercept=true",
        "pinv:intercept=true",
        "ridge:penalty=gcv",
        "truncated_pinv",
        "ridge:class_weight=balanced",
        "ridge:dims_per_label=0.4",
        "ridge:temperature=fitted",
    ],
)
def test_adding_images_is_fitting_all(spec: str, batch: int, rng: np.random.Generator) -> None:
    """With copies of labeled images, images outside the span of the others, and classes that come later."""
    X = rng.normal(size=(90, 20))
    X[7], X[30], X[60:65] = X[2], X[4], X[10:15]
    X[:, 15:] *= np.arange(90)[:, None] > 40
    y = np.sort(rng.integers(0, 4, 90))
    head = HEADS.build(spec, n_classes=5).fit(X[:5], y[:5])
    for start in range(5, 90, batch):
        before = head.weights_.copy(), head.intercept_.copy()
        head.partial_fit(X[start : start + batch], y[start : start + batch])
        so_far = slice(0, start + batch)
        assert_same_weights(head, HEADS.build(spec, n_classes=5).fit(X[so_far], y[so_far]))
        if head.moved_:
            moved = head.moved_
            step = head.weights_ - before[0], head.intercept_ - before[1]
            scale = 1e-7 * max(np.abs(head.weights_).max(), np.abs(before[0]).max()) + 1e-12
            np.testing.assert_allclose(moved.gains.T @ moved.surprise, step[0], rtol=0, atol=scale)
            np.testing.assert_allclose(moved.constants @ moved.surprise, step[1], rtol=0, atol=20 * scale)


def assert_same_weights(head: BaseEstimator, fresh: BaseEstimator) -> None:
    for name in ("weights_", "intercept_"):
        expected = getattr(fresh, name)
        rounding = 1e-6 * np.abs(expected).max() + 1e-12
        np.testing.assert_allclose(getattr(head, name), expected, rtol=1e-6, atol=rounding)
    assert head.temperature_ == pytest.approx(fresh.temperature_, rel=1e-4)


def test_unpenalised_systems_of_nothing_but_copies(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 6))
    for spec in ("inv", "pinv", "ridge", "pinv:intercept=true"):
        head = HEADS.build(spec, n_classes=3).fit(x, [0])
        for _ in range(20):
            head.partial_fit(x, [0])
        assert_same_weights(head, HEADS.build(spec, n_classes=3).fit(np.repeat(x, 21, axis=0), [0] * 21))
        zeros = HEADS.build(spec, n_classes=3).fit(np.zeros((2, 6)), [0, 1]).partial_fit(x, [2])
        assert np.isfinite(zeros.predict_proba(x)).all()


# --- options


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_intercept_and_weights_are_scikit_learns(n: int, dim: int, rng: np.random.Generator) -> None:
    X, y, weight = rng.normal(size=(n, dim)) + 3, rng.integers(0, 5, n), rng.uniform(0.1, 4, n)
    head = HEADS.build("ridge:penalty=3:intercept=true", n_classes=5).fit(X, y, sample_weight=weight)
    expected = SklearnRidge(alpha=3, solver="svd").fit(X, log_targets(y, 5, 1e-32), sample_weight=weight)
    np.testing.assert_allclose(head.weights_, expected.coef_.T, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(head.intercept_, expected.intercept_, rtol=1e-7)


@pytest.mark.parametrize(("n", "dim"), [(120, 10), (8, 30), (31, 30)])
def test_unpenalised_intercept_is_scikit_learns(n: int, dim: int, rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(n, dim)) + 3, rng.integers(0, 5, n)
    head = HEADS.build("pinv:intercept=true", n_classes=5).fit(X, y)
    expected = LinearRegression().fit(X, log_targets(y, 5, 1e-32))
    np.testing.assert_allclose(head.weights_, expected.coef_.T, rtol=1e-6, atol=1e-6 * np.abs(expected.coef_).max())
    np.testing.assert_allclose(head.intercept_, expected.intercept_, rtol=1e-6)


def test_a_weight_is_a_number_of_copies_and_balance_is_a_weight(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=60)
    y = np.where(np.arange(60) < 45, 0, y)
    copies = rng.integers(0, 4, 60)
    for spec in ("solve", "ridge", "ridge:intercept=true", "truncated_pinv:intercept=true"):
        weighted = HEADS.build(spec, n_classes=4).fit(X, y, sample_weight=copies)
        if not spec.startswith("truncated"):  # it keeps as many directions as there are images
            assert_same_weights(
                weighted, HEADS.build(spec, n_classes=4).fit(np.repeat(X, copies, axis=0), np.repeat(y, copies))
            )
        balanced = HEADS.build(f"{spec}:class_weight=balanced", n_classes=4).fit(X, y)
        weight = compute_sample_weight("balanced", y)
        assert_same_weights(balanced, HEADS.build(spec, n_classes=4).fit(X, y, sample_weight=weight))


@pytest.mark.parametrize(("n", "dim"), [(80, 12), (15, 40)])
@pytest.mark.parametrize("intercept", [False, True])
def test_generalised_cross_validation_is_its_formula(
    n: int, dim: int, intercept: bool, rng: np.random.Generator
) -> None:
    """Against the hat matrix written out (Golub, Heath and Wahba 1979, equation 1.4)."""
    X, y = rng.normal(size=(n, dim)), rng.integers(0, 3, n)
    head = HEADS.build(f"ridge:penalty=gcv:intercept={intercept}", n_classes=3).fit(X, y)
    T = log_targets(y, 3, 1e-32)
    errors = []
    for penalty in PENALTIES:
        fit = SklearnRidge(alpha=penalty, fit_intercept=intercept, solver="cholesky").fit(X, np.eye(n))
        rest = np.eye(n) - fit.predict(X)
        errors.append(n * ((rest @ T) ** 2).sum() / np.trace(rest) ** 2)
    assert head.penalty_ == PENALTIES[np.argmin(errors)]
    assert_same_weights(
        head, HEADS.build(f"ridge:penalty={head.penalty_}:intercept={intercept}", n_classes=3).fit(X, y)
    )


@pytest.mark.parametrize("spec", ["ridge", "ridge:intercept=true", "solve", "pinv", "pinv:intercept=true"])
@pytest.mark.parametrize("n", [60, 9, 13, 12], ids=["n>d", "n<d", "n=d+1", "n=d"])
def test_the_fitted_temperature_is_that_of_images_left_out(spec: str, n: int, rng: np.random.Generator) -> None:
    """Against refitting without each image whose class has others, and a search over a grid."""
    X, y = blobs(rng, n=n, dim=12)
    X = (X.astype(np.float64) + rng.normal(size=X.shape)) * np.logspace(0, -4, 12)
    y[0] = 3
    y[1:] %= 3
    head = HEADS.build(f"{spec}{':' * (':' not in spec)}:temperature=fitted".replace("::", ":"), n_classes=4).fit(X, y)
    left_out = Spectrum(X, log_targets(y, 4, 1e-32), np.ones(n), head.intercept).left_out(head.penalty_)
    logits = np.empty((n, 4))
    for i in range(n):
        others = HEADS.build(spec, n_classes=4).fit(np.delete(X, i, 0), np.delete(y, i))
        logits[i] = X[i] @ others.weights_ + others.intercept_
    np.testing.assert_allclose(left_out, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())

    def loss(temperature: float) -> float:
        scaled = logits[1:] / temperature
        return float((scipy.special.logsumexp(scaled, axis=1) - scaled[np.arange(n - 1), y[1:]]).mean())

    best = min(np.logspace(-2, 4, 4001), key=loss)
    assert loss(head.temperature_) <= loss(best) * (1 + 1e-4) + 1e-12


@pytest.mark.parametrize(("spec", "usual"), [("ridge", 10), ("pinv", 1), ("ridge:intercept=true", 10)])
def test_the_temperature_is_the_usual_one_until_a_class_has_two_images(
    spec: str, usual: float, rng: np.random.Generator
) -> None:
    X = rng.normal(size=(5, 6))
    head = HEADS.build(f"{spec}:temperature=fitted", n_classes=4).fit(X[:1], [2])
    assert head.temperature_ == usual
    assert head.partial_fit(X[1:4], [0, 1, 3]).temperature_ == usual
    assert head.partial_fit(X[4:], [3]).temperature_ != usual


def test_lookahead_of_balanced_classes_has_the_class_s_weight(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=80, dim=6)
    y = np.where(np.arange(80) < 50, 0, y)
    head = HEADS.build("ridge:class_weight=balanced", n_classes=4).fit(X, y)
    weight = compute_sample_weight("balanced", y)
    of_class = np.array([weight[y == c][0] for c in range(4)])
    x, label = rng.normal(size=(1, 6)), 2
    refitted = HEADS.build("ridge", n_classes=4)
    refitted.fit(np.vstack([X, x]), np.append(y, label), sample_weight=np.append(weight, of_class[label]))
    X = X.astype(np.float64)
    surprise = log_targets(np.array([label]), 4, 1e-32) - head.raw_logits(x)
    moved = head.raw_logits(X) + head.influence(X, x, np.array([label])) * surprise
    np.testing.assert_allclose(moved, refitted.raw_logits(X), rtol=1e-8, atol=1e-8)


def test_rows_that_stand_for_one_image_count_once(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(12, 20)), rng.integers(0, 3, 12)
    for spec in ("solve:dims_per_label=0.5", "truncated_pinv"):
        head = HEADS.build(spec, n_classes=3)
        head.rows_per_label = 2
        head.fit(np.vstack([X, X + 0.1 * rng.normal(size=X.shape)]), np.tile(y, 2))
        assert np.linalg.matrix_rank(head.weights_) <= 6
        assert head._least_squares().coefficients.shape[0] == 6


def test_truncated_pinv_is_the_truncated_decomposition(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(30, 20)), rng.integers(0, 3, 30)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    expected = (Vt[:15].T / s[:15]) @ U[:, :15].T @ log_targets(y, 3, 1e-32)
    np.testing.assert_allclose(HEADS.build("truncated_pinv", n_classes=3).fit(X, y).weights_, expected, atol=1e-9)


def test_dimensions_grow_with_the_labels(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(30, 20)), rng.integers(0, 3, 30)
    for n, dims in ((2, 1), (10, 5), (30, 15)):
        weights = HEADS.build("solve:dims_per_label=0.5", n_classes=3).fit(X[:n], y[:n]).weights_
        expected = HEADS.build("solve", n_classes=3).fit(X[:n, :dims], y[:n]).weights_
        np.testing.assert_array_equal(weights, np.vstack([expected, np.zeros((20 - dims, 3))]))


@pytest.mark.parametrize("spec", ["pinv", "ridge"])
def test_the_remedies_remove_the_drop_where_there_are_as_many_images_as_dimensions(spec: str) -> None:
    """Thesis, figure 5.2, on two overlapping classes."""
    rng = np.random.default_rng(5)
    X, y = blobs(rng, n=2060, dim=60, n_classes=2)
    X = X / 4 + rng.normal(size=X.shape)

    def accuracy(head: str, n: int) -> float:
        return float(HEADS.build(head, n_classes=2).fit(X[:n], y[:n]).score(X[60:], y[60:]))

    at_dim = accuracy("pinv", 60)
    assert at_dim < accuracy("pinv", 30) - 0.02
    for remedy in ("ridge", "ridge:penalty=gcv", "truncated_pinv", "solve:dims_per_label=0.5"):
        assert accuracy(remedy, 60) > at_dim + 0.02


@pytest.mark.parametrize(
    "spec",
    [
        "ridge:temperature=warm",
        "ridge:penalty=loo",
        "solve:class_weight=even",
        "solve:dims_per_label=0",
        "truncated_pinv:share=2",
    ],
)
def test_impossible_options_are_refused(spec: str, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="must be|is not"):
        HEADS.build(spec).fit(*blobs(rng))
