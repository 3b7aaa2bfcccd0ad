"""Ten trainings in lock-step beside ten plain PyTorch loops, on the same batches.

Timed with `pytest tests/benchmarks --benchmark-enable`; otherwise run once as plain tests.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from stages.al.heads.lockstep import train_network
from stages.al.heads.recipes import RECIPES
from tests.conftest import blobs
from tests.unit.test_gradient_heads import plain_loop, with_bias

RUNS, CLASSES = 10, 10
TRAINING = replace(RECIPES["thesis"], epochs=10, patience=0)


@pytest.fixture(params=[(110, 50), (510, 50), (510, 512)], ids=lambda shape: f"n={shape[0]},dim={shape[1]}")
def task(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n, dim = request.param
    made = [blobs(rng, n=n, dim=dim, n_classes=CLASSES) for _ in range(RUNS)]
    return np.stack([X for X, _ in made]), np.stack([y for _, y in made])


@pytest.fixture(autouse=True)
def as_users_run_it() -> Iterator[None]:
    """On one thread, as in the grid, and with annotations unchecked: the checks take longer than a step."""
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def one_after_the_other(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The weights of ten plain loops that begin at zero."""
    trained = []
    for seed, (X, y) in enumerate(zip(features, labels, strict=True)):
        layer = torch.nn.Linear(X.shape[1], CLASSES)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        plain_loop(X, y, layer, TRAINING, seed)
        trained.append(with_bias(layer))
    return np.stack(trained)


def data_loaders(features: np.ndarray, labels: np.ndarray) -> None:
    """As tutorials write it: a DataLoader shuffles and collates the images of each batch."""
    for X, y in zip(features, labels, strict=True):
        layer = torch.nn.Linear(X.shape[1], CLASSES)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=TRAINING.learning_rate)
        images = TensorDataset(torch.tensor(X), torch.tensor(y))
        for _ in range(TRAINING.epochs):
            for features_, labels_ in DataLoader(images, TRAINING.batch_size, shuffle=True, drop_last=True):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(features_), labels_).backward()
                optimizer.step()


def lockstep(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    start = [np.zeros((RUNS, features.shape[2] + 1, CLASSES), dtype=np.float32)]
    return train_network(features, labels, start=start, training=TRAINING, seeds=range(RUNS))[0]


def test_plain_loops(benchmark: Callable[..., np.ndarray], task: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.isfinite(benchmark(one_after_the_other, *task)).all()


def test_data_loaders(benchmark: Callable[..., None], task: tuple[np.ndarray, np.ndarray]) -> None:
    benchmark(data_loaders, *task)


def test_lockstep(benchmark: Callable[..., np.ndarray], task: tuple[np.ndarray, np.ndarray]) -> None:
    trained = benchmark(lockstep, *task)
    np.testing.assert_allclose(trained, one_after_the_other(*task), rtol=1e-3, atol=1e-4)
