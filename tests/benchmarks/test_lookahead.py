"""The look-ahead beside refitting the head for every candidate, and the dense table of a round beside plain NumPy.

Timed with `pytest tests/benchmarks --benchmark-enable`; otherwise run once as plain tests.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss

from stages.al.heads import HEADS
from stages.al.heads.closed_form import ClosedFormSoftmax, log_targets
from stages.al.lookahead import Changes, lookahead
from stages.al.loop import candidate_rows
from stages.al.pool import Evaluation, Pool
from stages.al.protocol import CandidateLog
from stages.al.view import PoolView
from tests.conftest import blobs, make_view

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=["digits", "cifar"])
def task(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Data, Data, Data]:
    """Labeled, candidates, validation: 50 dimensions and 10 classes, as many images as the data set's runs have."""
    n_labeled, n_candidates, n_validation = {"digits": (110, 200, 287), "cifar": (260, 200, 1000)}[request.param]
    X, y = blobs(rng, n=n_labeled + n_candidates + n_validation, dim=50, n_classes=10)
    order = rng.permutation(len(y))
    ends = np.cumsum([n_labeled, n_candidates])
    labeled, candidates, validation = zip(np.split(X[order], ends), np.split(y[order], ends), strict=True)
    return labeled, candidates, validation


def refit_each(labeled: Data, candidates: Data, validation: Data) -> np.ndarray:
    """Cross-entropy on the validation set after labeling each candidate, one fit each."""
    losses = []
    for x, label in zip(*candidates, strict=True):
        head = HEADS.build("ridge", n_classes=10).fit(np.vstack([labeled[0], x]), np.append(labeled[1], label))
        losses.append(log_loss(validation[1], head.predict_proba(validation[0].astype(np.float64)), labels=range(10)))
    return np.array(losses)


def test_refitting(benchmark: Callable[..., np.ndarray], task: tuple[Data, Data, Data]) -> None:
    assert np.isfinite(benchmark(refit_each, *task)).all()


def test_lookahead(benchmark: Callable[..., Changes], task: tuple[Data, Data, Data]) -> None:
    labeled, candidates, validation = task
    head = HEADS.build("ridge", n_classes=10).fit(*labeled)
    change = benchmark(lookahead, head, *candidates, *validation)
    before = log_loss(validation[1], head.predict_proba(validation[0].astype(np.float64)), labels=range(10))
    np.testing.assert_allclose(before + change.cross_entropy, refit_each(*task), rtol=1e-5)


def plain(head: ClosedFormSoftmax, X: np.ndarray, y: np.ndarray, images: np.ndarray, of_images: np.ndarray) -> dict:
    """The two changes of version 0.1, in double precision, some candidates at a time."""
    logits, step = head.raw_logits(images), head.influence(images, X, y)
    surprise = log_targets(y, 10, head.epsilon) - head.raw_logits(X)
    right, loss = np.empty(len(X)), np.empty(len(X))
    chunk = 2**20 // (8 * logits.size)
    for start in range(0, len(X), chunk):
        part = slice(start, start + chunk)
        moved = logits + step.T[part, :, None] * surprise[part, None, :]
        right[part] = (moved.argmax(axis=2) == of_images).mean(axis=1)
        moved = (moved - moved.max(axis=2, keepdims=True)) / head.temperature_
        true = moved[:, np.arange(len(of_images)), of_images]
        loss[part] = (np.log(np.exp(moved).sum(axis=2)) - true).mean(axis=1)
    return {"accuracy_change": right, "cross_entropy_change": loss}


@pytest.fixture
def round_(make_pool: Callable[..., Pool], rng: np.random.Generator) -> PoolView:
    """210 labels, 2,000 candidates of 10,000 images x 50, two views, 10 classes, 1,000 validation images."""
    X, y = blobs(rng, n=11_000, dim=50, n_classes=10)
    X += 6 * rng.normal(size=X.shape).astype(np.float32)
    pool = make_pool(X[:10_000], y[:10_000], 10)
    return make_view(pool, np.arange(210), candidates=np.arange(500, 2500), held_out=Evaluation(X[10_000:], y[10_000:]))


def test_plain_table(benchmark: Callable[..., dict], round_: PoolView) -> None:
    images = round_.held_out.features[:500].astype(np.float64), round_.held_out.labels[:500]
    X = round_.features.astype(np.float64)
    rows = benchmark(plain, round_.head, X, round_.pool.labels[round_.candidates], *images)
    assert np.isfinite(rows["cross_entropy_change"]).all()


def test_dense_table(benchmark: Callable[..., int], round_: PoolView, tmp_path: Path) -> None:
    """All columns, Parquet included, on 500 validation images; rows a second are 2,000 over the time."""
    waiting = np.arange(10_000) >= 210
    rng = np.random.default_rng(0)
    _ = round_.oracle_proba, round_.distance_to_labeled, round_.typicality  # once a pool, and once a round anyway

    def write() -> int:
        fresh = replace(round_, memo={})
        rows = candidate_rows(fresh, waiting, fresh.candidates[:1], CandidateLog(), rng)
        pq.write_table(pa.table(rows), tmp_path / "rows.parquet", compression="zstd", use_dictionary=False)
        return len(rows["candidate"])

    assert benchmark(write) == 2000
