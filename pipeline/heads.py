"""Heads compared on random labels, without active learning: the thesis's figures 5.2 to 5.4 (seed 002, 5.3 and 5.4).

A seed draws one order of the pool, and its labeled sets of every size are the beginnings of that order. All heads see
the features along the pool's principal axes. The first k of them are the PCA to k dimensions up to its scale, on which
the solve head does not depend; all of them are the features without PCA up to a rotation, on which no head in closed
form depends, and make the leading dimensions, that `dims_per_label` takes, those of the largest variance.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cache.errors import InputError
from cache.files import digest_json
from pipeline.task import Task, load_data
from stages.al.heads import build_head
from stages.al.heads.closed_form import log_targets
from stages.al.protocol import count_of

LISTING = "listing"
SOLVE, GROWING = "solve", "solve:dims_per_label=0.5"
PCA_SIZES = (20, 50, 150)
"""Those of figure 5.4, where the features have more dimensions."""
PCA_STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000)
AXES = "principal_axes"
"""The computation of pool and test features along the pool's principal axes."""
LEAST_LABELS, MOST_PER_DIM, STEPS = 10, 8, 16
ABOUT_PCA = (0.8, 0.9, 1.0, 1.1, 1.25)
ABOUT_DIM = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Shares of a number of dimensions at which it is also measured: accuracy drops where there are as many labels."""


class Listing:
    """The thesis's listing to the letter (4.4): what `inv` returns of a singular X'X is used as it is.

    The Penrose inverse takes its place only where numpy raises, which rounding mostly prevents. With fewer images than
    dimensions the weights are then rounding noise, and accuracy is "almost random" (5.3, "standard" in figure 5.2).
    """

    def __init__(self, n_classes: int):
        self.n_classes = n_classes

    def fit(self, X: Float[np.ndarray, "n dim"], y: Int[np.ndarray, "n"]) -> "Listing":
        x = X.astype(np.float64)
        gram = x.T @ x
        try:
            inverse = np.linalg.inv(gram)
        except np.linalg.LinAlgError:
            inverse = np.linalg.pinv(gram)
        self.weights_ = inverse @ x.T @ log_targets(y, self.n_classes, 1e-32)
        return self

    def predict(self, X: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, "n"]:
        return (X @ self.weights_).argmax(axis=1)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A head on the first `dims` principal axes."""

    head: str
    dims: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured.

    stem : beginning of its files' names, other for every other task; dim : of the features
    heads, seeds : as asked for, each once
    table : a row per fit with head, dims, labeled (images), seed (missing where all of the pool is labeled) and
        test_accuracy, a fraction
    """

    title: str
    stem: str
    dim: int
    n_pool: int
    heads: tuple[str, ...]
    seeds: tuple[int, ...]
    table: pd.DataFrame

    def curve(self, head: str, dims: int) -> pd.DataFrame:
        """Mean of the test accuracy and its standard error over seeds, by the number of labels."""
        wanted = (self.table["head"] == head) & (self.table["dims"] == dims) & self.table["seed"].notna()
        return self.table[wanted].groupby("labeled")["test_accuracy"].agg(["mean", "sem"])

    def of_whole_pool(self) -> pd.Series:
        """Test accuracy of solve fitted to all of the pool, by the number of PCA dimensions."""
        return self.table[self.table["seed"].isna()].set_index("dims")["test_accuracy"]


def check_heads(heads: Sequence[str], sizes: Sequence[str], workers: int) -> None:
    """Raises InputError for heads, sizes and workers that no data could make right, before anything is read."""
    if not heads:
        raise InputError("there is nothing to compare: HEAD= takes names of heads, not nothing")
    if workers < 0:
        raise InputError(f"workers={workers} must be 0 (one per core) or more")
    for head in heads:
        make_head(head, 2)
    for size in sizes:
        count_of("SIZES", size, 1)


def make_head(spec: str, n_classes: int) -> Any:
    """The head of a spec, or the thesis's listing. Raises InputError."""
    return Listing(n_classes) if spec == LISTING else build_head(spec, n_classes)


def compare_heads(
    task: Task, heads: Sequence[str], seeds: Sequence[int], sizes: Sequence[str], workers: int
) -> Comparison:
    """Fit and test the heads, and what the figures of PCA dimensions need, on a task that was prepared without PCA.

    sizes : numbers of labels or percentages of the pool; none for `automatic_sizes`
    workers : processes of one thread each, 0 for one per core
    Raises InputError (impossible sizes).
    """
    pool, _ = principal_axes(task)
    dim, n_pool = pool.shape[1], len(pool)
    chosen = parse_sizes(sizes, n_pool) if sizes else automatic_sizes(dim, n_pool)
    heads = tuple(dict.fromkeys(heads))
    curves = dict.fromkeys([*(Curve(head=head, dims=dim) for head in heads), *_figure_5_4(dim)])
    whole = [Curve(head=SOLVE, dims=dims) for dims in (*(step for step in PCA_STEPS if step < dim), dim)]
    jobs = [delayed(measure)(task, whole, None, [n_pool])]
    jobs += [delayed(measure)(task, [curve], seed, chosen) for seed in seeds for curve in curves]
    table = pd.DataFrame(_in_parallel(jobs, workers)).astype({"seed": "Int64"})
    return Comparison(
        title=" · ".join([task.about["dataset"], task.about["full_name"], *_said_pool(task)]),
        stem=_stem(task),
        dim=dim,
        n_pool=n_pool,
        heads=heads,
        seeds=tuple(seeds),
        table=table.sort_values(["head", "dims", "labeled", "seed"], ignore_index=True),
    )


def principal_axes(task: Task) -> tuple[Float[np.ndarray, "pool dim"], Float[np.ndarray, "test dim"]]:
    """Pool and test features of a task without PCA, rotated to the pool's principal axes, the largest variance first.

    Computed once, memory-mapped by every worker.
    """

    def compute() -> dict[str, np.ndarray]:
        pool, _, test = load_data(task.derived, task.n_classes, task.sizes)
        wide = pool.features.astype(np.float64)
        _, axes = np.linalg.eigh(wide.T @ wide)
        rotate = axes[:, ::-1]
        return {
            "pool_axes": (wide @ rotate).astype(np.float32),
            "test_axes": (test.features.astype(np.float64) @ rotate).astype(np.float32),
        }

    stored = task.derived.get_all(AXES, {}, compute)
    return stored["pool_axes"], stored["test_axes"]


def measure(task: Task, curves: Sequence[Curve], seed: int | None, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A row for every curve and size: the head fitted to that many images of the seed's order, and tested.

    seed : None for the pool's own order
    """
    with threadpool_limits(1):
        pool, test = principal_axes(task)
        evaluated = load_data(task.derived, task.n_classes, task.sizes)
        labels, test_labels = evaluated[0].labels, evaluated[2].labels
        order = np.arange(len(pool)) if seed is None else np.random.default_rng(seed).permutation(len(pool))
        rows = []
        for curve in curves:
            head = make_head(curve.head, task.n_classes)
            for size in sizes:
                labeled = order[:size]
                head.fit(pool[labeled, : curve.dims], labels[labeled])
                accuracy = float((head.predict(test[:, : curve.dims]) == test_labels).mean())
                row = {"head": curve.head, "dims": curve.dims, "labeled": size, "seed": seed}
                rows.append({**row, "test_accuracy": accuracy})
    return rows


def automatic_sizes(dim: int, n_pool: int) -> list[int]:
    """Geometric from 10 to eight times the dimension, at most the pool; closer about every number of dimensions."""
    largest = min(MOST_PER_DIM * dim, n_pool)
    geometric = np.geomspace(min(LEAST_LABELS, largest), largest, STEPS)
    about = [share * dims for dims in PCA_SIZES if dims < dim for share in ABOUT_PCA]
    about += [share * dim for share in ABOUT_DIM]
    sizes = np.unique(np.rint([*geometric, *about]).astype(int))
    return [int(size) for size in sizes if 1 <= size <= largest]


def parse_sizes(texts: Sequence[str], n_pool: int) -> list[int]:
    """Numbers of labels in order, each once. Raises InputError."""
    sizes = sorted({count_of("SIZES", text, n_pool) for text in texts})
    for size in sizes:
        if not 1 <= size <= n_pool:
            raise InputError(f"SIZES={size} of the pool's {n_pool} images are impossible: 1 to {n_pool}")
    return sizes


def accuracy_lines(comparison: Comparison) -> list[str]:
    """A table for the terminal: mean test accuracy of the heads at the sizes that matter, then of the whole pool."""
    curves = {head: comparison.curve(head, comparison.dim) for head in comparison.heads}
    sizes = next(iter(curves.values())).index.to_numpy()
    wanted = [comparison.dim / 4, comparison.dim / 2, comparison.dim, 2 * comparison.dim, sizes[-1]]
    shown = sorted({int(sizes[np.abs(np.log(sizes / size)).argmin()]) for size in wanted})
    width = max(map(len, ("labeled images", *curves)))
    lines = ["  ".join([f"{'labeled images':<{width}}", *(f"{size:>7}" for size in shown)])]
    for head, curve in curves.items():
        lines.append("  ".join([f"{head:<{width}}", *(f"{curve['mean'][size]:>7.3f}" for size in shown)]))
    whole = comparison.of_whole_pool()
    some = [dims for dims in (*PCA_SIZES, comparison.dim) if dims in whole.index]
    said = ", ".join(f"{whole[dims]:.3f} with {dims} dimensions" for dims in dict.fromkeys(some))
    return [*lines, f"solve fitted to all {comparison.n_pool} images: {said}"]


def _figure_5_4(dim: int) -> list[Curve]:
    fixed = [Curve(head=SOLVE, dims=dims) for dims in PCA_SIZES if dims < dim]
    return [*fixed, Curve(head=SOLVE, dims=dim), Curve(head=GROWING, dims=dim)]


def _in_parallel(jobs: Sequence[Any], workers: int) -> list[dict[str, Any]]:
    """The rows of all jobs, in no order. Each process computes with one thread, as in the grid."""
    n_jobs = min(workers or os.cpu_count() or 1, len(jobs))
    with (
        parallel_config(backend="loky", inner_max_num_threads=1),
        tqdm(total=len(jobs), desc="heads", unit="curve", disable=None) as progress,
    ):
        rows = []
        for done in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
            rows += done
            progress.update()
    return rows


def _said_pool(task: Task) -> Iterable[str]:
    return [f"pool {task.about['pool']}"] if "pool" in task.about else []


def _stem(task: Task) -> str:
    """A file name that tells this task's comparison from every other's."""
    name = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", task.about[part]) for part in ("dataset", "full_name"))
    return f"heads-{name}-{digest_json(dict(task.about))[:8]}"
