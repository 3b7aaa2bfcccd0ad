"""Stage two beside what one would write: 10 -> 510 labels one at a time, the whole pool scored.

    make bench-al
    make bench-al ARGS="--only grid,wide"

Features are made here: 10 overlapping classes, 50,000 pool images, 10,000 for testing. Each part prints a ratio of
times taken in turn on this machine. The thesis's procedure is its listing (seed 002, 4.4) refitted every round in
float64, accuracy and loss on the test images, and a softmax over the unlabeled ones; it may use all cores.

    grid      4 uncertainty strategies x 10 seeds on 2 cores through the grid runner, 50 dimensions
    bare      one run beside multiplying the pool by the weights in every round, one thread each
    wide      2,048 dimensions without PCA, and how the seconds of a fit grow
    adamw     10 seeds of the AdamW head beside the plain PyTorch loop
    million   1,000,000 images of 64 dimensions: time against 50,000, and memory
    start     from the command to the end of the first round
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from cache.derived import DerivedStore
from cache.runs import RunStore
from pipeline.grid import plan, run_grid
from pipeline.task import TASK, Task
from stages.al.heads import build_head
from stages.al.heads.lockstep import batches
from stages.al.heads.recipes import RECIPES
from stages.al.loop import Cell, Evaluation, run_active_learning
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES

Labeled = tuple[np.ndarray, np.ndarray]
N, TEST, CLASSES, START, BUDGET = 50_000, 10_000, 10, 10, 510
WHOLE = Protocol(initial_size=START, budget=BUDGET, candidates=10**9)
UNCERTAINTIES = (("ridge", "entropy"), ("ridge", "least_confidence"), ("ridge", "margin"), ("solve", "margin"))
ROOT = Path(__file__).resolve().parents[2]


def made(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with the spectrum of a projection, and labels; the best linear head is right on some 80%."""
    rng = np.random.default_rng(0)
    scale = np.linspace(2, 0.5, dim).astype(np.float32)
    centres = rng.normal(size=(CLASSES, dim)).astype(np.float32) * scale * (2.4 / np.sqrt(dim))
    y = rng.integers(0, CLASSES, n)
    X = rng.standard_normal((n, dim), dtype=np.float32)
    X *= scale
    X += centres[y]
    return X, y


def task_of(folder: Path, X: np.ndarray, y: np.ndarray, n_pool: int, n_validation: int = 1000) -> Task:
    """The rows as a prepared task: pool, validation, test."""
    derived = DerivedStore(folder / "derived", f"{n_pool}x{X.shape[1]}")
    edges = np.cumsum([n_pool, n_validation])
    parts = dict(zip(("pool", "validation", "test"), np.split(X[None], edges, axis=1), strict=True))
    derived.get_all(TASK, {}, lambda: {**parts, "labels": y})
    return Task(
        derived=derived,
        n_classes=CLASSES,
        about={"dataset": "made", "backbone": "made", "full_name": f"made-{n_pool}x{X.shape[1]}", "pca": 0},
        class_names=[str(label) for label in range(CLASSES)],
        ids=np.arange(n_pool).astype(str),
        sizes=(n_pool, n_validation, len(y) - n_pool - n_validation),
        n_unlabeled=0,
    )


def thesis_round(X: np.ndarray, y: np.ndarray, labeled: list[int], test: Labeled, strategy: str) -> int:
    """One round of the thesis's procedure in float64 (4.4, algorithm 2): fit, test, softmax, the most uncertain."""
    x, targets = X[labeled], np.log(np.eye(CLASSES)[y[labeled]] + 10**-32)
    try:
        weights = np.linalg.inv(x.T @ x) @ x.T @ targets
    except np.linalg.LinAlgError:
        weights = np.linalg.pinv(x.T @ x) @ x.T @ targets
    tested = softmax(test[0] @ weights, axis=1)
    (tested.argmax(axis=1) == test[1]).mean(), -np.log(tested[np.arange(len(tested)), test[1]] + 1e-32).mean()
    unlabeled = np.delete(np.arange(len(X)), labeled)
    score = scores_of(softmax(X[unlabeled] @ weights, axis=1), strategy)
    return int(unlabeled[np.argmax(score)])


def scores_of(proba: np.ndarray, strategy: str) -> np.ndarray:
    if strategy == "entropy":
        return -(proba * np.log(proba + 1e-32)).sum(axis=1)
    if strategy == "least_confidence":
        return -proba.max(axis=1)
    top = np.sort(proba, axis=1)
    return top[:, -2] - top[:, -1]


def least(X: np.ndarray, y: np.ndarray, strategy: str) -> float:
    """Seconds of a round without testing, and without taking the unlabeled images out of the pool."""
    order, started = np.random.default_rng(0).permutation(len(X)), time.perf_counter()
    for n in range(START, BUDGET + 1, 5):
        x, targets = X[order[:n]], np.log(np.eye(CLASSES)[y[order[:n]]] + 10**-32)
        weights = np.linalg.pinv(x.T @ x) @ x.T @ targets if n < X.shape[1] else np.linalg.inv(x.T @ x) @ x.T @ targets
        score = scores_of(softmax(X @ weights, axis=1), strategy)
        score[order[:n]] = -np.inf
        np.argmax(score)
    return (time.perf_counter() - started) / len(range(START, BUDGET + 1, 5))


def thesis_run(X: np.ndarray, y: np.ndarray, test: Labeled, strategy: str, rounds: range) -> float:
    """Seconds per round of the thesis's procedure, mean over some of the rounds of a run with random labels."""
    order = np.random.default_rng(0).permutation(len(X)).tolist()
    started = time.perf_counter()
    for n in rounds:
        thesis_round(X, y, order[:n], test, strategy)
    return (time.perf_counter() - started) / len(rounds)


def our_run(task: Task, strategy: str, protocol: Protocol, head: str = "ridge") -> tuple[float, list[dict]]:
    """Seconds and rounds of one run in this process, one thread, data mapped before the clock starts."""
    stored = task.derived.get_all(TASK, {}, dict)
    pool_y, validation_y, test_y = np.split(stored["labels"], np.cumsum(task.sizes)[:2])
    pool = Pool(views=stored["pool"], labels=pool_y, n_classes=CLASSES, derived=task.derived)
    validation, test = Evaluation(stored["validation"][0], validation_y), Evaluation(stored["test"][0], test_y)
    pool.features.max()
    cell = Cell(strategy=STRATEGIES.build(strategy), seed=0)
    with threadpool_limits(1):
        started = time.perf_counter()
        (log,) = run_active_learning(pool, validation, test, build_head(head, CLASSES), protocol, [cell])
        return time.perf_counter() - started, log.rounds


def grid(folder: Path) -> None:
    X, y = made(N + 1000 + TEST, 50)
    task = task_of(folder, X, y, N)
    pool, test = X[:N].astype(np.float64), (X[-TEST:].astype(np.float64), y[-TEST:])
    rounds = range(START, BUDGET + 1)

    def thesis() -> float:
        """Seconds of a run, mean over the strategies."""
        return len(rounds) * float(np.mean([thesis_run(pool, y[:N], test, name, rounds) for _, name in UNCERTAINTIES]))

    before = thesis()
    started = time.perf_counter()
    cells = [
        run for head, strategy in UNCERTAINTIES for run in plan(task, [head], [strategy], range(10), WHOLE, folder)
    ]
    _, runs = run_grid(task, cells, RunStore(folder / "runs"), 2)
    seconds = (time.perf_counter() - started) / runs
    theirs = (before + thesis()) / 2
    print(f"grid: {runs} runs, {seconds:.2f} s per run on 2 cores, the start of the workers included")
    print(f"      the thesis's procedure: {theirs:.2f} s per run: {theirs / seconds:.1f} times (wanted: 10)")
    bare_minimum = len(rounds) * float(np.mean([least(pool, y[:N], name) for _, name in UNCERTAINTIES]))
    print(f"      only its listing and the pool's scores: {bare_minimum:.2f} s: {bare_minimum / seconds:.1f} times")


def bare(folder: Path) -> None:
    X, y = made(N + 1000 + TEST, 50)
    task = task_of(folder, X, y, N)
    weights = np.random.default_rng(0).normal(size=(50, CLASSES)).astype(np.float32)
    pool, rounds = X[:N], BUDGET - START + 1
    for head, strategy in UNCERTAINTIES:
        ratios = []
        for _ in range(5):
            with threadpool_limits(1):
                started = time.perf_counter()
                for _ in range(rounds):
                    pool @ weights
                multiplied = time.perf_counter() - started
            seconds, _ = our_run(task, strategy, WHOLE, head)
            ratios.append(seconds / multiplied)
        print(f"bare: {head} {strategy}: {np.median(ratios):.2f} times the bare products (3 at most; {seconds:.2f} s)")


def wide(folder: Path) -> None:
    X, y = made(N + 1000 + TEST, 2048)
    task = task_of(folder, X, y, N)
    pool, test = X[:N].astype(np.float64), (X[-TEST:].astype(np.float64), y[-TEST:])
    thesis = thesis_run(pool, y[:N], test, "margin", range(START, BUDGET + 1, 100)) * (BUDGET - START + 1)
    del pool, test
    for head in ("solve", "ridge"):
        seconds, rounds = our_run(task, "margin", WHOLE, head)
        print(
            f"wide: {head}: {seconds:.1f} s a run, the thesis's procedure {thesis:.0f} s: {thesis / seconds:.1f} times"
        )
        labels = np.array([row["budget_spent"] for row in rounds[1:]])
        fit = 1e3 * np.array([row["seconds_fit"] for row in rounds[1:]])
        late = labels >= 100
        growth = np.polyfit(np.log(labels[late]), np.log(fit[late]), 1)[0]
        print(f"      a fit: {np.median(fit[:20]):.2f} to {np.median(fit[-20:]):.2f} ms, like n^{growth:.2f} (1.2)")


def plain_loop(X: np.ndarray, y: np.ndarray, validation: Labeled, seed: int) -> np.ndarray:
    """The AdamW head as one writes it in PyTorch, with the thesis recipe; weights (dim + 1, classes)."""
    training, rng = RECIPES["thesis"], np.random.default_rng(seed)
    layer = torch.nn.Linear(X.shape[1], CLASSES)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    features, labels = torch.tensor(X), torch.tensor(y)
    held_out = [torch.tensor(part) for part in validation]
    lowest, waited, best = np.inf, 0, layer.state_dict()
    for _ in range(training.epochs):
        order = torch.tensor(rng.permutation(len(y)))
        for batch in batches(len(y), training):
            optimizer.zero_grad()
            rows = order[batch]
            torch.nn.functional.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(layer(held_out[0]), held_out[1]))
        if loss < lowest:
            lowest, waited, best = loss, 0, {name: value.clone() for name, value in layer.state_dict().items()}
        else:
            waited += 1
            if waited == training.patience:
                break
    return np.vstack([best["weight"].numpy().T, best["bias"].numpy()])


def adamw(folder: Path) -> None:
    X, y = made(60_000, 50)
    validation, test = (X[40_000:41_000], y[40_000:41_000]), (X[50_000:], y[50_000:])
    torch.set_num_threads(1)
    for n in (110, 310, 510):
        data = [(X[seed * n : (seed + 1) * n], y[seed * n : (seed + 1) * n]) for seed in range(10)]
        ratios = []
        for _ in range(3):
            started = time.perf_counter()
            plain = [plain_loop(*images, validation, seed) for seed, images in enumerate(data)]
            plain_seconds = time.perf_counter() - started
            heads = [build_head(f"linear:seed={seed}", CLASSES) for seed in range(10)]
            with threadpool_limits(1):
                started = time.perf_counter()
                type(heads[0]).fit_many(heads, data, validation)
                ratios.append(plain_seconds / (time.perf_counter() - started))
        theirs = [float(((test[0] @ w[:-1] + w[-1]).argmax(axis=1) == test[1]).mean()) for w in plain]
        ours = [float(head.score(*test)) for head in heads]
        said = ", ".join(
            f"{name} {np.mean(a):.4f} ± {np.std(a, ddof=1) / 10**0.5:.4f}"
            for name, a in (("ours", ours), ("the loop's", theirs))
        )
        print(f"adamw: 10 seeds of {n} labels: {np.median(ratios):.0f} times the loop's (wanted: 20); accuracy {said}")


def million(folder: Path) -> None:
    """In processes of their own, so that the peak of memory is this work's."""
    for n in (N, 1_000_000):
        subprocess.run([sys.executable, "-m", "tests.benchmarks.al", "--only", f"pool={n}"], cwd=ROOT, check=True)


def one_pool(folder: Path, n: int) -> None:
    X, y = made(n + 1000 + TEST, 64)
    task = task_of(folder, X, y, n)
    del X
    protocol = replace(WHOLE, budget=START + 100)
    seconds = [our_run(task, "margin", protocol)[0] for _ in range(3)]
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    print(
        f"million: {n:,} images of 64 dimensions, 100 rounds of margin: {np.median(seconds):.2f} s, "
        f"{1e6 * np.median(seconds) / n:.2f} µs per image; peak {peak:.2f} GiB",
        flush=True,
    )


def start(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline"]
    root = ["--data-root", str(folder)]
    run = partial(subprocess.run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run([*command, "embed", "--weights", "random", *root])
    watch = [*command, "al", "--strategy", "margin", "--budget", "11", "--log-seeds", "0", *root]
    for seeds in ("1", "2", "3"):
        started = time.perf_counter()
        run([*watch, "--seeds", seeds])
        print(f"start: `alcove al` of {seeds} seeds to its end: {time.perf_counter() - started:.2f} s")


PARTS: dict[str, Callable[[Path], None]] = {
    "grid": grid,
    "bare": bare,
    "wide": wide,
    "adamw": adamw,
    "million": million,
    "start": start,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-al", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated: {', '.join(PARTS)}")
    for part in parser.parse_args().only.split(","):
        with tempfile.TemporaryDirectory() as name:
            if part.startswith("pool="):
                one_pool(Path(name), int(part.removeprefix("pool=")))
            else:
                PARTS[part](Path(name))


if __name__ == "__main__":
    main()
