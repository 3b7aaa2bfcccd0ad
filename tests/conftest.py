"""Shared fixtures. Shape annotations of the library are checked in every test (jaxtyping with beartype)."""

from jaxtyping import install_import_hook

install_import_hook(["cache", "stages"], "beartype.beartype")

import logging  # noqa: E402
import urllib.request  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from cache.derived import DerivedStore  # noqa: E402
from cache.location import Location, location  # noqa: E402
from stages.al.heads import HEADS  # noqa: E402
from stages.al.pool import Evaluation, Pool  # noqa: E402
from stages.al.view import PoolView  # noqa: E402

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """As in the grid: one thread for linear algebra."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A local S3 server with one empty bucket, named bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")):
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of an empty prefix; this test finds its server and leaves its working files in `tmp_path`."""
    settings = {"ENDPOINT_URL": s3_endpoint, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ALCOVE_LOCAL", str(tmp_path / "machine"))
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty data root of either kind."""
    return location(request.getfixturevalue("s3")) if request.param == "s3" else tmp_path / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def blobs(rng: np.random.Generator, n: int = 120, dim: int = 6, n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes: features (n, dim) float32 and labels."""
    labels = np.arange(n) % n_classes
    centres = 3 * rng.normal(size=(n_classes, dim))
    return (centres[labels] + rng.normal(size=(n, dim))).astype(np.float32), labels


@pytest.fixture
def make_pool(tmp_path: Path) -> Callable[..., Pool]:
    """A pool of given features; its second view is the first with noise."""

    def make(features: np.ndarray, labels: np.ndarray, n_classes: int, name: str = "pool") -> Pool:
        noise = 0.1 * np.random.default_rng(1).normal(size=features.shape).astype(features.dtype)
        views = np.stack([features, features + noise])
        return Pool(views=views, labels=labels, n_classes=n_classes, derived=DerivedStore(tmp_path / "derived", name))

    return make


def make_view(pool: Pool, labeled: np.ndarray, **changes: object) -> PoolView:
    """A round of `pool` after `labeled`, head fitted, everything allowed."""
    head = HEADS.build("ridge", n_classes=pool.n_classes)
    settings = {
        "pool": pool,
        "candidates": np.setdiff1d(np.arange(len(pool)), labeled),
        "labeled": labeled,
        "labels": pool.labels[labeled],
        "fitted_head": head.fit(pool.features[labeled], pool.labels[labeled]) if len(labeled) else None,
        "held_out": Evaluation(pool.views[-1], pool.labels),
        "state": {"step": 0.1, "val_accuracy": 0.5, "val_cross_entropy": 1.0},
    }
    return PoolView(**(settings | changes))


@pytest.fixture
def tiny_pool(make_pool: Callable[..., Pool], rng: np.random.Generator) -> Pool:
    features, labels = blobs(rng)
    return make_pool(features, labels, 4)


HARD_POOLS = (
    "duplicates",
    "constant",
    "one_class",
    "seven_images",
    "wide",
    "float64",
    "one_class_labeled",
    "far_scale",
    "saturated",
)


@pytest.fixture(params=HARD_POOLS)
def hard_view(request: pytest.FixtureRequest, make_pool: Callable[..., Pool], rng: np.random.Generator) -> PoolView:
    """Rounds that break careless strategies."""
    features, labels = blobs(rng, n=40)
    n_classes, labeled = 4, np.arange(5)
    match request.param:
        case "duplicates":
            features = np.tile(features[:5], (8, 1))
        case "constant":
            features = np.ones_like(features)
        case "one_class":
            labels, n_classes = np.zeros(40, dtype=labels.dtype), 1
        case "seven_images":
            features, labels, labeled = features[:7], labels[:7], np.array([6, 0])
        case "wide":
            features = rng.normal(size=(40, 60)).astype(np.float32)
        case "float64":
            features = features.astype(np.float64)
        case "one_class_labeled":
            labeled = np.flatnonzero(labels == 2)[:4]
        case "far_scale":
            features = features * 1e4
    view = make_view(make_pool(features, labels, n_classes, request.param), labeled)
    if request.param == "saturated":  # the thesis's head: probabilities of exactly 0 and 1
        head = HEADS.build("solve", n_classes=n_classes)
        return replace(view, fitted_head=head.fit(features[labeled], labels[labeled]))
    return view
