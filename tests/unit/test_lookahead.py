"""The look-ahead beside refitting the head, for every candidate and every label."""

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_sample_weight

from stages.al.heads import HEADS
from stages.al.lookahead import Changes, label_effects, later_lookahead, lookahead
from stages.al.readings import BLOCK
from tests.conftest import blobs

SPECS = [
    *("inv", "solve", "pinv", "ridge", "ridge:penalty=0.1:temperature=1", "ridge:intercept=true"),
    *("pinv:intercept=true", "ridge:class_weight=balanced", "ridge:penalty=1:class_weight=balanced:intercept=true"),
]


def logits_of(head: Any, X: np.ndarray) -> np.ndarray:
    """Computed apart from the library."""
    return (X @ head.weights_ + head.intercept_) / head.temperature_


def measured(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What `Changes` names, by its definitions."""
    rows = np.arange(len(y))
    p = np.exp(log_softmax(logits, axis=1))
    losses = [-log_softmax(factor * logits, axis=1)[rows, y].mean() for factor in (1, 2, 0.5)]
    brier = ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean()
    return np.array([(logits.argmax(axis=1) == y).mean(), *losses, brier])


def refitted(spec: str, head: Any, X: np.ndarray, y: np.ndarray, x: np.ndarray, label: int) -> Any:
    """The head fitted again with one more image, at the class weights of before."""
    n_classes = len(head.classes_)
    new = HEADS.build(spec.replace(":class_weight=balanced", ""), n_classes=n_classes)
    weight = np.ones(len(y) + 1)
    if "balanced" in spec:
        of_class = np.ones(n_classes)
        of_class[y] = compute_sample_weight("balanced", y)
        weight = of_class[np.append(y, label)]
    return new.fit(np.vstack([X, x]), np.append(y, label), sample_weight=weight)


def round_of(spec: str, n_labeled: int, rng: np.random.Generator, dim: int = 12, n_classes: int = 3) -> tuple:
    """Head, its labeled images, candidates with duplicates among them, and evaluation images of more than a block."""
    X, y = blobs(rng, n=200 + BLOCK, dim=dim, n_classes=n_classes)
    X = X.astype(np.float64)
    if "balanced" in spec:
        y[:n_labeled] = np.where(np.arange(n_labeled) % 4 > 1, 0, y[:n_labeled])
    head = HEADS.build(spec, n_classes=n_classes).fit(X[:n_labeled], y[:n_labeled])
    candidates = np.vstack([X[60:75], X[:3], 2 * X[1:2]])
    return head, X[:n_labeled], y[:n_labeled], candidates, X[100:], y[100:]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n_labeled", [60, 7, 12, 11], ids=["n>d", "n<d", "n=d", "n=d-1"])
def test_is_refitting(spec: str, n_labeled: int, rng: np.random.Generator) -> None:
    """All five changes, and those under soft labels, for every candidate and label."""
    head, X, y, candidates, images, labels = round_of(spec, n_labeled, rng)
    soft = rng.dirichlet(np.ones(3), len(images)).astype(np.float32)
    before = measured(logits_of(head, images), labels)
    effects = label_effects(head, candidates, images, soft, head.temperature_)
    loss = -(soft * log_softmax(logits_of(head, images), axis=1)).sum(axis=1).mean()
    for label in range(3):
        changes = np.array(lookahead(head, candidates, np.full(len(candidates), label), images, labels))
        for i, candidate in enumerate(candidates):
            logits = logits_of(refitted(spec, head, X, y, candidate, label), images)
            expected = measured(logits, labels) - before
            assert changes[0, i] == pytest.approx(expected[0], abs=1e-9)
            np.testing.assert_allclose(changes[1:, i], expected[1:], rtol=1e-5, atol=2e-5)
            after = -(soft * log_softmax(logits, axis=1)).sum(axis=1).mean()
            assert effects[i, label] == pytest.approx(after - loss, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("spec", ["inv", "solve", "pinv", "ridge", "ridge:class_weight=balanced"])
@pytest.mark.parametrize("dim", [5, 20, 33])
def test_is_refitting_while_classes_are_unseen(spec: str, dim: int, rng: np.random.Generator) -> None:
    """Classes without a label tie; the tie must fall the same way in the look-ahead, in a refit, and row by row."""
    X, y = blobs(rng, n=160, dim=dim, n_classes=10)
    X, y = X.astype(np.float64), rng.permutation(y)
    labeled = np.flatnonzero(y < 4)[:9]
    head = HEADS.build(spec, n_classes=10).fit(X[labeled], y[labeled])
    assert head.predict(X).tolist() == [int(head.predict(x[None])[0]) for x in X]
    assert np.array_equal(head.predict(X), head.predict(np.asfortranarray(X)))
    candidates, images, labels = X[60:66], X[90:], y[90:]
    soft = np.eye(10, dtype=np.float32)[labels]
    effects = label_effects(head, candidates, images, soft, head.temperature_)
    before = measured(logits_of(head, images), labels)
    for label in (0, 3, 4, 9):
        changes = np.array(lookahead(head, candidates, np.full(6, label), images, labels))
        for i, candidate in enumerate(candidates):
            new = refitted(spec, head, X[labeled], y[labeled], candidate, label)
            expected = measured(logits_of(new, images), labels) - before
            assert changes[0, i] == pytest.approx(new.score(images, labels) - head.score(images, labels), abs=1e-9)
            np.testing.assert_allclose(changes[1:, i], expected[1:], rtol=1e-5, atol=2e-5)
            assert effects[i, label] == pytest.approx(expected[1], rel=1e-5, abs=2e-5)


def test_small_changes_keep_their_digits(rng: np.random.Generator) -> None:
    """With many labels a further one changes next to nothing."""
    X, y = blobs(rng, n=4000, dim=12, n_classes=4)
    X = X.astype(np.float64)
    X += 2 * rng.normal(size=X.shape)
    head = HEADS.build("ridge", n_classes=4).fit(X[:3000], y[:3000])
    candidates, labels, images, of_images = X[3000:3020], y[3000:3020], X[3500:], y[3500:]
    changes = lookahead(head, candidates, labels, images, of_images)
    logits = logits_of(head, images)
    surprise = np.log(np.eye(4)[labels] + 1e-32) - head.raw_logits(candidates)
    moves = head.influence(images, candidates)
    before = measured(logits, of_images)
    for i in range(20):
        moved = logits + np.outer(moves[:, i], surprise[i]) / head.temperature_
        expected = measured(moved, of_images) - before
        assert np.abs(expected[1:]).max() < 0.01
        np.testing.assert_allclose([change[i] for change in changes][1:], expected[1:], rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_effects_of_saturated_heads(scale: float, rng: np.random.Generator) -> None:
    """Logits hundreds apart, which a label may turn over: what single precision's exponential cannot hold."""
    head, X, y, candidates, images, labels = round_of("ridge:penalty=0.1:temperature=0.1", 8, rng)
    candidates = scale * candidates
    soft = np.eye(3, dtype=np.float32)[labels]
    loss = measured(logits_of(head, images), labels)[1]
    effects = label_effects(head, candidates, images, soft, head.temperature_)
    for label in range(3):
        for i, candidate in enumerate(candidates):
            new = refitted("ridge:penalty=0.1:temperature=0.1", head, X, y, candidate, label)
            after = measured(logits_of(new, images), labels)[1]
            assert effects[i, label] == pytest.approx(after - loss, rel=1e-5, abs=1e-4)


def test_one_class_changes_nothing(rng: np.random.Generator) -> None:
    X = rng.normal(size=(30, 4)).astype(np.float32)
    head = HEADS.build("ridge", n_classes=1).fit(X[:5], np.zeros(5, int))
    assert np.abs(lookahead(head, X[5:9], np.zeros(4, int), X[9:], np.zeros(21, int))).max() < 1e-6
    assert np.abs(label_effects(head, X[5:9], X[9:], np.ones((21, 1), np.float32), 1.0)).max() < 1e-6


@pytest.mark.parametrize("spec", ["ridge", "solve", "ridge:class_weight=balanced:temperature=fitted"])
def test_later_is_refitting_with_the_images_queried_until_then(spec: str, rng: np.random.Generator) -> None:
    """Candidates among those that the policy queries are skipped by it; it goes on to its next."""
    X, y = blobs(rng, n=260, dim=8)
    X, y = X.astype(np.float64), rng.permutation(y)
    head = HEADS.build(spec, n_classes=4).fit(X[:20], y[:20])
    order = np.array([30, 41, 25, 52])
    candidates = np.array([22, 30, 25, 52, 60])
    changes = np.array(later_lookahead(head, X, y, candidates, order, X[100:], y[100:]))
    for i, candidate in enumerate(candidates):
        more = [image for image in order if image != candidate][:3]
        rows = np.append(np.arange(20), more)
        later = HEADS.build(spec, n_classes=4).fit(X[rows], y[rows])
        if "balanced" in spec:
            expected = np.array(lookahead(later, X[[candidate]], y[[candidate]], X[100:], y[100:]))[:, 0]
        else:
            new = refitted(spec, later, X[rows], y[rows], X[candidate], int(y[candidate]))
            expected = measured(logits_of(new, X[100:]), y[100:]) - measured(logits_of(later, X[100:]), y[100:])
        np.testing.assert_allclose(changes[:, i], expected, rtol=1e-5, atol=2e-5)


def test_nothing_comes_later_than_the_last_image(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=60)
    head = HEADS.build("ridge", n_classes=4).fit(X[:20], y[:20])
    later = later_lookahead(head, X, y, np.array([30]), np.array([30]), X[40:], y[40:])
    assert isinstance(later, Changes)
    np.testing.assert_array_equal(later, lookahead(head, X[[30]], y[[30]], X[40:], y[40:]))
