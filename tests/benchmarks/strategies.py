"""Every query strategy beside scikit-activeml 1.0.1, at scale, and one label at a time.

    make bench-strategies
    make bench-strategies ARGS="--only activeml,instance --strategies badge,coreset"

Features are made here. One thread everywhere. What of a strategy needs no labels is computed within its time.

    activeml  one batch of 100 of 20,000 images x 384, 100 classes: seconds and peak memory of both, in turn
    memory    the same of 50,000 images: seconds, and memory above the features (2 GB at most)
    million   a batch of 100 of 1,000,000 images x 64, of those that are not square in the pool: seconds and memory
    instance  10 -> 510 labels one at a time, 50,000 images x 50, 3 views: times a run of margin, first and second seed
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache.derived import DerivedStore
from stages.al.heads import build_head
from stages.al.loop import Cell, Evaluation, run_active_learning
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from stages.al.view import PoolView

ROOT = Path(__file__).resolve().parents[2]
BATCH, LABELED, DELTA, GAMMA = 100, 500, 0.9, 1.0
OURS = {"probcover": f"probcover:delta={DELTA}"}
"""Settings that make the work the same; theirs are set to our defaults otherwise."""
SQUARE = ("probcover",)
"""Strategies that look at all pairs of images, which a million have too many of."""


def made(n: int, dim: int, classes: int, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Views (views, n, dim) of overlapping classes with the spectrum of a projection, and labels."""
    rng = np.random.default_rng(0)
    scale = np.linspace(2, 0.5, dim, dtype=np.float32)
    centres = rng.normal(size=(classes, dim)).astype(np.float32) * scale * np.float32(2.4 / np.sqrt(dim))
    y = rng.integers(0, classes, n)
    X = rng.standard_normal((views, n, dim), dtype=np.float32)
    X[1:] *= 0.3
    X[1:] += X[0]
    X *= scale
    X += centres[y]
    return X, y


def first_round(folder: Path, n: int, dim: int, classes: int, views: int = 1) -> PoolView:
    """A round with 500 random labels, ridge fitted."""
    X, y = made(n, dim, classes, views)
    pool = Pool(views=X, labels=y, n_classes=classes, derived=DerivedStore(folder, f"{n}x{dim}"))
    labeled = np.random.default_rng(1).choice(n, LABELED, replace=False)
    return PoolView(
        pool=pool,
        candidates=np.setdiff1d(np.arange(n), labeled),
        labeled=labeled,
        labels=y[labeled],
        fitted_head=build_head("ridge", classes).fit(X[0, labeled], y[labeled]),
        state={"step": 0.1, "val_accuracy": 0.5, "val_cross_entropy": 1.0},
    )


def theirs(name: str, view: PoolView) -> Callable[[], Any] | None:
    """The query of scikit-activeml's strategy of that name on the same round, None where it has none."""
    from skactiveml import pool as other
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.utils import MISSING_LABEL
    from sklearn.linear_model import LogisticRegression

    X, seed = view.pool_features.astype(np.float64), {"random_state": 0}
    y = np.full(len(X), MISSING_LABEL)
    y[view.labeled] = view.labels
    classes = np.arange(view.n_classes)

    def classifier(rows: np.ndarray) -> Any:
        made = SklearnClassifier(LogisticRegression(max_iter=50), classes=classes, random_state=0)
        return made.fit(X[view.labeled[rows]], view.labels[rows])

    def fitted() -> dict[str, Any]:
        return {"clf": classifier(np.arange(len(view.labeled))), "fit_clf": False}

    uncertainties = {"entropy": "entropy", "margin": "margin_sampling", "least_confidence": "least_confident"}
    herding = {"normalize_samples": True, "metric": "rbf", "metric_dict": {"gamma": GAMMA}}
    clustering = {"cluster_algo_dict": {"random_state": 0}}
    match name:
        case "random":
            query, extras = other.RandomSampling(**seed), {}
        case "entropy" | "margin" | "least_confidence":
            query, extras = other.UncertaintySampling(method=uncertainties[name], **seed), fitted()
        case "coreset":
            query, extras = other.CoreSet(**seed), {}
        case "badge":
            query, extras = other.Badge(**seed), fitted()
        case "typiclust":
            query, extras = other.TypiClust(k=20, **seed), {}
        case "probcover":
            query, extras = other.ProbCover(n_classes=view.n_classes, deltas=[DELTA], **seed), {}
            X = X / np.linalg.norm(X, axis=1, keepdims=True)
        case "maxherding":
            query, extras = other.MaxHerding(**herding, **seed), {}
        case "dropquery":
            query, extras = other.DropQuery(dropout_rate=0.75, n_dropout_samples=3, **clustering, **seed), fitted()
        case "falcun":
            query, extras = other.Falcun(**seed), fitted()
        case "clue":
            said = fitted()
            query, extras = other.Clue(**clustering, **seed), {"estimator": said["clf"], "fit_estimator": False}
        case "bald":
            rng = np.random.default_rng(0)
            drawn = [rng.choice(LABELED, LABELED) for _ in range(STRATEGIES.build("bald").members)]
            ensemble = [classifier(rows) for rows in drawn]
            query, extras = other.GreedyBALD(**seed), {"ensemble": ensemble, "fit_ensemble": False}
        case _:
            return None
    return lambda: query.query(X, y, batch_size=BATCH, **extras)


def ours(spec: str, view: PoolView) -> Callable[[], Any]:
    strategy = STRATEGIES.build(spec)
    return lambda: strategy.query(replace(view, allowed=strategy.requires), BATCH, np.random.default_rng(0))


def alone(arguments: list[str]) -> tuple[float, float]:
    """Seconds and GB above the features of one query in a process of its own; nan where it failed."""
    command = [sys.executable, "-m", "tests.benchmarks.strategies", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = re.search(r"^(\S+) s (\S+) GB$", done.stdout, flags=re.MULTILINE)
    if not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"         {arguments[1]} failed ({done.returncode}): {last}")
        return float("nan"), float("nan")
    return float(found[1]), float(found[2])


def held(what: str) -> float:
    """GB of this process: VmRSS, now, or VmHWM, the most since `clear_refs` was written."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6


def single(spec: str, whose: str, n: int, dim: int, classes: int) -> None:
    """One query in this process; what numba compiles is compiled before, on a small pool."""
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if whose == "ours":
            ours(spec, first_round(Path(name) / "small", 1000, dim, classes, 3))()
        query = (ours if whose == "ours" else theirs)(spec, first_round(Path(name), n, dim, classes, 3))
        Path("/proc/self/clear_refs").write_text("5")
        before, started = held("VmRSS"), time.perf_counter()
        query()
        print(f"{time.perf_counter() - started:.4f} s {held('VmHWM') - before:.3f} GB")


def activeml(names: list[str]) -> None:
    print(f"activeml: 20,000 x 384, 100 classes, {BATCH} of them, {LABELED} labeled, one thread, seconds and GB")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            if theirs(name, first_round(Path(folder), 1000, 384, 100)) is None:
                continue
        size = ["20000", "384", "100"]
        mine, memory = min(alone(["--single", OURS.get(name, name), "ours", *size]) for _ in range(2))
        seconds, their_memory = alone(["--single", name, "theirs", *size])
        print(
            f"  {name:18} ours {mine:8.3f} s {memory:6.3f} GB   theirs {seconds:8.2f} s {their_memory:6.2f} GB   "
            f"{seconds / mine:7.1f} times",
            flush=True,
        )


def memory(names: list[str]) -> None:
    print(f"memory: 50,000 x 384, 100 classes, {BATCH} of them, 3 views, one thread; GB above the features")
    for name in names:
        seconds, above = alone(["--single", name, "ours", "50000", "384", "100"])
        print(f"  {name:18} {seconds:8.2f} s {above:6.3f} GB", flush=True)


def million(names: list[str]) -> None:
    print("million: 1,000,000 x 64, 10 classes, a batch of 100, one thread; GB above the features")
    for name in (name for name in names if name not in SQUARE):
        seconds, above = alone(["--single", name, "ours", "1000000", "64", "10"])
        print(f"  {name:18} {seconds:8.2f} s {above:6.3f} GB", flush=True)


def instance(names: list[str]) -> None:
    print("instance: 10 -> 510 labels one at a time of 50,000 x 50, 10 classes, 3 views; times a run of margin")
    X, y = made(61_000, 50, 10, 3)
    validation, test = Evaluation(X[0, 50_000:51_000], y[50_000:51_000]), Evaluation(X[0, 51_000:], y[51_000:])
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):

        def run(name: str, seed: int, candidates: int, budget: int = 510) -> float:
            derived = DerivedStore(Path(folder), name)  # so that no strategy finds what another has computed
            pool = Pool(views=X[:, :50_000], labels=y[:50_000], n_classes=10, derived=derived)
            protocol = Protocol(initial_size=10, budget=budget, candidates=candidates)
            cell, started = Cell(strategy=STRATEGIES.build(name), seed=seed), time.perf_counter()
            run_active_learning(pool, validation, test, build_head("ridge", 10), protocol, [cell])
            return time.perf_counter() - started

        run("margin", 9, 10_000)
        for name in names:
            with tempfile.TemporaryDirectory() as other:
                small = Pool(
                    views=X[:, :2000], labels=y[:2000], n_classes=10, derived=DerivedStore(Path(other), "small")
                )
                compiled = Protocol(initial_size=10, budget=12)
                cell = Cell(strategy=STRATEGIES.build(name), seed=0)
                run_active_learning(small, validation, test, build_head("ridge", 10), compiled, [cell])
            before = run("margin", 0, 10_000)
            first, second = run(name, 0, 10_000), run(name, 1, 10_000)
            margin = (before + run("margin", 1, 10_000)) / 2
            line = f"  {name:22} first seed {first:6.2f} s {first / margin:5.1f} times, second {second:6.2f} s"
            whole, bar = run(name, 1, 50_000, 110), run("margin", 1, 50_000, 110)
            print(
                f"{line} {second / margin:5.1f} times; all 50,000 candidates: {whole / bar:5.1f} times (100 labels)",
                flush=True,
            )


PARTS: dict[str, Callable[[list[str]], None]] = {
    "activeml": activeml,
    "memory": memory,
    "million": million,
    "instance": instance,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-strategies", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--strategies", default="", help="comma-separated; all without")
    parser.add_argument("--single", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.single:
        spec, whose, *size = arguments.single
        single(spec, whose, *map(int, size))
        return
    chosen = [name for name in arguments.strategies.split(",") if name]
    names = chosen or [name for name in STRATEGIES if name != "surrogate"]
    for part in arguments.only.split(","):
        PARTS[part](names)


if __name__ == "__main__":
    main()
