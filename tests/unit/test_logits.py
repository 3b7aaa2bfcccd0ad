"""Logits kept from round to round, and what is decided by them, against plain recomputation."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax

from stages.al import view as view_module
from stages.al.heads import HEADS
from stages.al.logits import TrackedLogits
from stages.al.loop import Cell, Evaluation, run_active_learning
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.readings import Reading, move_and_read, read
from stages.al.strategies import STRATEGIES
from stages.al.uncertainty import closeness
from tests.conftest import blobs, make_view


def assert_same_reading(found: Reading, expected: Reading, rounding: float) -> None:
    np.testing.assert_allclose(found.largest, expected.largest, rtol=1e-6, atol=rounding)
    np.testing.assert_allclose(found.gap, expected.gap, rtol=0, atol=2 * rounding)
    np.testing.assert_allclose(found.rest, expected.rest, rtol=4 * rounding + 1e-5, atol=1e-33)
    np.testing.assert_allclose(found.weighted, expected.weighted, rtol=4 * rounding + 1e-5, atol=1e-30)
    clear = expected.gap > 4 * rounding
    np.testing.assert_array_equal(found.place[clear], expected.place[clear])


@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize(
    "spec", ["ridge", "pinv", "solve:intercept=true", "ridge:class_weight=balanced", "ridge:temperature=fitted", "svm"]
)
def test_tracked_logits_are_the_heads(spec: str, batch: int, rng: np.random.Generator) -> None:
    """Through the wild moves of an unpenalised head where there are as many images as dimensions."""
    X, y = blobs(rng, n=700, dim=25, n_classes=6)
    y = np.where(np.arange(700) < 40, y % 3, y)
    tracked, seldom = TrackedLogits(X), TrackedLogits(X)
    head = HEADS.build(spec, n_classes=6)
    for n in range(4, 150, batch):
        if n == 4 or spec == "svm":
            head.fit(X[:n], y[:n])
        else:
            head.add(X[n - batch : n], y[n - batch : n])
        expected = head.logits(X.astype(np.float64))
        rounding = 2e-5 * np.abs(X).max() * np.abs(head.affine()[0]).sum(axis=0).max()
        reading, logits = tracked.read(head)
        np.testing.assert_allclose(logits.T, expected, rtol=0, atol=rounding)
        assert_same_reading(reading, read(logits.T.astype(np.float64)), 1e-6 * np.abs(logits).max())
        unseen = logits[np.setdiff1d(range(6), y[:n])]
        assert (unseen == unseen[:1]).all()
        if n % 3:  # not every round is asked for
            np.testing.assert_allclose(seldom.read(head)[1].T, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 130])
@pytest.mark.parametrize("n", [1, 511, 512, 1300])
def test_the_compiled_reading_is_the_plain_one(n: int, n_classes: int, rng: np.random.Generator) -> None:
    for scale in (0.1, 3, 70):
        logits = (scale * rng.normal(size=(n_classes, n))).astype(np.float32)
        logits[-1] = logits[0]  # ties, also for the largest
        influence, surprise = rng.normal(size=(2, n)).astype(np.float32), rng.normal(size=(2, n_classes))
        moved = logits + surprise.T.astype(np.float32) @ influence
        found = move_and_read(logits, influence, surprise.astype(np.float32))
        np.testing.assert_allclose(logits, moved, rtol=1e-5, atol=1e-5)
        expected = read(logits.T.astype(np.float64))
        assert_same_reading(found, expected, 4e-6 * scale)
        np.testing.assert_array_equal(found.place, logits.argmax(axis=0))


def test_candidates_are_measured_alike_with_and_without_tracking(
    tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = make_view(tiny_pool, np.arange(10), tracked=TrackedLogits(tiny_pool.features)).measured(closeness)
    monkeypatch.setattr(view_module, "MOST_TRACKED", 3)
    monkeypatch.setattr(view_module, "BLOCK", 7)
    blocks = make_view(tiny_pool, np.arange(10), tracked=TrackedLogits(tiny_pool.features)).measured(closeness)
    np.testing.assert_allclose(blocks, tracked, rtol=1e-4)


def plain_run(name: str, penalty: float, pool: Pool, start: np.ndarray, budget: int) -> list[int]:
    """Active learning as one writes it: refit, softmax over the pool, the most uncertain image.

    In long doubles, because the unpenalised head is so sure of these images that double precision cannot tell them
    apart.
    """
    X, y, labeled = pool.features.astype(np.float64), pool.labels, list(start)
    while len(labeled) < budget:
        x, T = X[labeled], np.log(np.eye(pool.n_classes)[y[labeled]] + 1e-32)
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ T) if penalty else np.linalg.pinv(x) @ T
        proba = softmax((X @ weights).astype(np.longdouble) / (10 if penalty else 1), axis=1)
        ordered = np.sort(proba, axis=1)
        others = ordered[:, :-1].sum(axis=1)
        score = {
            "margin": others + ordered[:, -2],
            "least_confidence": others,
            "entropy": -(proba * np.log(proba)).sum(axis=1),
        }[name]
        score[labeled] = -np.inf
        labeled.append(int(score.argmax()))
    return labeled


@pytest.mark.parametrize("name", ["margin", "least_confidence", "entropy"])
@pytest.mark.parametrize(("spec", "penalty"), [("ridge", 10.0), ("pinv", 0.0)])
def test_a_run_queries_what_the_plain_loop_queries(
    name: str, spec: str, penalty: float, make_pool: Callable[..., Pool], rng: np.random.Generator
) -> None:
    X, y = blobs(rng, n=3000, dim=20, n_classes=5)
    pool = make_pool((X + rng.normal(size=X.shape)).astype(np.float32), y, 5, "plain")
    data = Evaluation(pool.features[:50], pool.labels[:50])
    log = run(pool, data, spec, Protocol(initial_size=30, budget=130), [(name, 0)])[0]
    queried = np.concatenate([row["queried"] for row in log.rounds])
    assert queried.tolist() == plain_run(name, penalty, pool, queried[:30], 130)


def run(pool: Pool, data: Evaluation, spec: str, protocol: Protocol, cells: list[tuple[str, int]]) -> list:
    made = [Cell(strategy=STRATEGIES.build(name), seed=seed) for name, seed in cells]
    return run_active_learning(pool, data, data, HEADS.build(spec, n_classes=pool.n_classes), protocol, made)


@pytest.mark.parametrize("spec", ["ridge", "solve", "linear:epochs=5", "mlp:epochs=3"])
def test_a_run_does_not_depend_on_the_runs_beside_it(spec: str, tiny_pool: Pool) -> None:
    data = Evaluation(tiny_pool.features[:30], tiny_pool.labels[:30])
    cells = [("margin", 0), ("random", 0), ("entropy", 1), ("coreset", 2)]
    protocol = Protocol(initial_size=5, batch_size=3, budget=30, candidates=70)
    together = run(tiny_pool, data, spec, protocol, cells)
    for cell, log in zip(cells, together, strict=True):
        (alone,) = run(tiny_pool, data, spec, protocol, [cell])
        for one, other in zip(alone.rounds, log.rounds, strict=True):
            assert one["queried"].tolist() == other["queried"].tolist()
            assert {k: v for k, v in one.items() if k.startswith(("test", "val"))} == {
                k: v for k, v in other.items() if k.startswith(("test", "val"))
            }


def test_all_views_are_extra_rows(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=60)
    pool = make_pool(X, y, 4, "views")
    data = Evaluation(X[:30], y[:30])
    log = run(
        pool, data, "ridge", Protocol(initial_size=8, batch_size=3, budget=20, train_views="all"), [("margin", 0)]
    )[0]
    labeled = np.concatenate([row["queried"] for row in log.rounds])
    expected = HEADS.build("ridge", n_classes=4).fit(np.concatenate(pool.views[:, labeled]), np.tile(y[labeled], 2))
    assert log.rounds[-1]["test_accuracy"] == expected.score(*data_of(data))
    assert log.rounds[-1]["test_cross_entropy"] == pytest.approx(
        -np.log(expected.predict_proba(data.features)[np.arange(30), data.labels]).mean(), rel=1e-4
    )


def data_of(data: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    return data.features, data.labels
