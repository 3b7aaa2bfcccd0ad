"""DropQuery against its rule in plain loops."""

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from stages.al.heads import HEADS
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.dropquery import inconsistent, mismatches
from tests.conftest import blobs, make_view


@pytest.mark.parametrize("rate", [0.75, 0.3])
def test_mismatches_are_counted_as_in_plain_loops(rate: float, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=600, dim=8)
    head = HEADS.build("ridge:intercept=true", n_classes=4).fit(X[:20], y[:20])
    weights, constants = head.affine()
    found = mismatches(head, X, 3, rate, np.random.default_rng(5))
    stream, expected = np.random.default_rng(5), np.zeros(600, dtype=int)
    bar = round(256 * rate)
    for start in (0, 512):
        block = X[start : start + 512]
        kept = np.frombuffer(stream.bytes(3 * block.size), dtype=np.uint8).reshape(3, *block.shape) >= bar
        assert kept.mean() == pytest.approx(1 - rate, abs=0.02)
        for i, x in enumerate(block):
            whole = (x @ weights + constants).argmax()
            for mask in kept[:, i]:
                expected[start + i] += ((x * mask / (1 - bar / 256)) @ weights + constants).argmax() != whole
    assert 0 < expected.mean() < 3
    assert (found != expected).sum() <= 2  # ties of rounding


def test_copies_of_an_image_have_masks_of_their_own(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=40)
    head = HEADS.build("ridge", n_classes=4).fit(X, y)
    counts = mismatches(head, np.repeat(X[:1], 300, axis=0), 3, 0.75, rng)
    assert set(counts.tolist()) == {0, 1, 2, 3}


def test_more_than_half_of_the_passes_must_disagree() -> None:
    counts = np.array([0, 1, 2, 3, 1, 2])
    assert inconsistent(counts, 3, 3).tolist() == [2, 3, 5]
    assert inconsistent(counts, 3, 1).tolist() == [2, 3, 5]
    assert inconsistent(counts, 3, 4).tolist() == [1, 2, 3, 4, 5]
    assert inconsistent(counts, 3, 99).tolist() == [0, 1, 2, 3, 4, 5]
    assert inconsistent(np.array([2, 3, 4]), 4, 1).tolist() == [1, 2]


def test_one_image_is_nearest_to_the_mean_of_the_inconsistent(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(10))
    counts = mismatches(view.head, view.features, 3, 0.75, np.random.default_rng(2))
    assert (counts >= 2).sum() >= 25
    positions = np.flatnonzero(counts >= 2)
    unit = normalize(view.features[positions].astype(np.float64))
    nearest = positions[((unit - unit.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    queried = STRATEGIES.build("dropquery").query(view, 1, np.random.default_rng(2))
    assert queried.tolist() == [view.candidates[nearest]]


def test_a_batch_spreads_over_the_inconsistent(tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.al.strategies.dropquery.ENOUGH", 1)
    view = make_view(tiny_pool, np.arange(10))
    counts = mismatches(view.head, view.features, 3, 0.75, np.random.default_rng(2))
    queried = STRATEGIES.build("dropquery").query(view, 8, np.random.default_rng(2))
    assert (counts[np.searchsorted(view.candidates, queried)] >= 2).all()
    assert len(set(tiny_pool.labels[queried].tolist())) > 1


@pytest.mark.parametrize("spec", ["dropquery:passes=0", "dropquery:rate=1"])
def test_impossible_passes_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="passes=.*rate="):
        STRATEGIES.build(spec)
