"""The look-ahead beside refitting the head for every candidate, on the same work.

Timed with `pytest tests/benchmarks --benchmark-enable`; otherwise run once as plain tests.
"""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import log_loss

from stages.al.heads import HEADS
from stages.al.lookahead import lookahead
from tests.conftest import blobs

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


def test_lookahead(benchmark: Callable[..., tuple[np.ndarray, np.ndarray]], task: tuple[Data, Data, Data]) -> None:
    labeled, candidates, validation = task
    head = HEADS.build("ridge", n_classes=10).fit(*labeled)
    _, change = benchmark(lookahead, head, *candidates, *validation)
    before = log_loss(validation[1], head.predict_proba(validation[0].astype(np.float64)), labels=range(10))
    np.testing.assert_allclose(before + change, refit_each(*task), rtol=1e-5)
