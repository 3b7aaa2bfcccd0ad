"""The thesis's exhibits without active learning: heads fitted to the whole pool, or to random labels (5.2 to 5.4)."""

import time
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.grid import parse_seeds
from pipeline.head_figures import draw_dimensions, draw_dimensions_by_labels, draw_heads
from pipeline.heads import SOLVE, Comparison, Curve, compare_heads, measure
from pipeline.papers.base import Bench, Exhibit, Value
from pipeline.papers.thesis_scale import (
    ADAMW,
    MAIN,
    PINV,
    PLACES,
    PUBLISHED,
    backbone_of,
    name_of,
    names_of,
    scale_of,
    task_of,
)
from pipeline.task import load_data
from stages.al.heads import build_head

HEADS = {"AdamW": ADAMW, "Closed-form": SOLVE, "Std.": "inv", "Solve": SOLVE, "Pen. Inverse": PINV}
"""By the rows of tables 5.2 to 5.4."""
FIGURE_5_2 = ("listing", SOLVE, PINV)
"""`standard`, the thesis's own lines; solve, which is ours and falls back on the Penrose inverse where it must."""
ONE_THREAD = (
    "Seconds are of one thread of this machine's processor; the thesis names neither its machine nor its threads, so "
    "only the proportions between rows compare."
)


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Of one head on one backbone's whole pool."""

    accuracy: Value
    seconds: Value
    n_pool: int


def full_fits(bench: Bench, place: str, head: str) -> Fits:
    """Fit without PCA, once a seed, and test. Closed forms draw nothing: their repetitions differ in seconds alone."""
    return bench.once(("full", place, head), lambda: _full_fits(bench, place, head))


def _full_fits(bench: Bench, place: str, head: str) -> Fits:
    task = bench.task(bench.datasets[0], backbone_of(bench, place), 0)
    pool, validation, test = load_data(task.derived, task.n_classes, task.sizes)
    X, y = np.ascontiguousarray(pool.features), np.asarray(pool.labels)
    accuracies, seconds = [], []
    with threadpool_limits(1):
        for seed in parse_seeds(scale_of(bench).seeds):
            made = build_head(f"{head}:seed={seed}" if head == ADAMW else head, task.n_classes)
            offered = {"validation": (validation.features, validation.labels)} if head == ADAMW else {}
            started = time.perf_counter()
            made.fit(X, y, **offered)
            seconds.append(time.perf_counter() - started)
            accuracies.append(float((made.predict(test.features) == test.labels).mean()))
    return Fits(accuracy=Value.deviation(accuracies), seconds=Value.deviation(seconds), n_pool=len(pool))


def table_5_2(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Table 5.2",
        title="Linear classifier's test accuracy on all labels",
        tables=[
            PUBLISHED["Table 5.2"].beside(
                "table-5.2",
                f"Test accuracy of classifiers fitted to all {full_fits(bench, PLACES[0], SOLVE).n_pool:,} images of "
                "the pool, without PCA.",
                lambda row, place: full_fits(bench, place, HEADS[row[1]]).accuracy,
                names=names_of(bench),
                best="highest",
            )
        ],
        remarks=["Standard, solve and the Penrose inverse give the same closed form here, as the thesis says."],
    )


def table_5_3(bench: Bench) -> Exhibit:
    return _times(bench, "Table 5.3", "Seconds to train a linear classifier on all labels")


def table_5_4(bench: Bench) -> Exhibit:
    return _times(bench, "Table 5.4", "Seconds of the ways to the closed form on all labels")


def _times(bench: Bench, number: str, title: str) -> Exhibit:
    return Exhibit(
        number=number,
        title=title,
        tables=[
            PUBLISHED[number].beside(
                number.lower().replace(" ", "-"),
                "Seconds to fit the whole pool without PCA, one thread.",
                lambda row, place: full_fits(bench, place, HEADS[row[1]]).seconds,
                names=names_of(bench),
                best="lowest",
            )
        ],
        remarks=[ONE_THREAD],
    )


def comparison(bench: Bench, second: bool = False) -> Comparison:
    """Heads on random labels, as `make heads` compares them, of the backbone in ResNet50's place."""

    def compare() -> Comparison:
        task = task_of(bench, PLACES[MAIN], SOLVE, second, pca=0)
        return compare_heads(task, FIGURE_5_2, parse_seeds(scale_of(bench).seeds), (), bench.config.workers)

    return bench.once(("comparison", second), compare)


def figure_5_2(bench: Bench) -> Exhibit:
    made = comparison(bench)
    return Exhibit(
        number="Figure 5.2",
        title="Closed forms on random labels, fewer and more than dimensions",
        figures={"figure-5.2": draw_heads(made)},
        quotes=[
            "with fewer images than the 2,048 dimensions standard and solve are almost random, and the Penrose inverse "
            "falls at an intermediate step before it recovers."
        ],
        remarks=[
            f"{name_of(bench, PLACES[MAIN])} has {made.dim} dimensions.",
            "listing is the thesis's own lines; our solve takes the Penrose inverse where the system is singular.",
        ],
    )


def figure_5_3(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Figure 5.3",
        title="PCA dimensions and accuracy on all labels",
        figures={"figure-5.3": draw_dimensions(comparison(bench))},
        quotes=["under 20 dimensions the model does not learn properly, over 50 it gains little."],
    )


def table_5_5(bench: Bench) -> Exhibit:
    def accuracy(place: str) -> dict[str, Value]:
        task = bench.task(bench.datasets[0], backbone_of(bench, place), 0)
        dim = load_data(task.derived, task.n_classes, task.sizes)[0].features.shape[1]
        sizes = {"NO PCA": dim, "PCA 50": 50, "PCA 20": 20}
        curves = [Curve(head=SOLVE, dims=dims) for dims in sizes.values() if dims <= dim]
        rows = measure(task, curves, None, [task.sizes[0]])
        found = {row["dims"]: row["test_accuracy"] for row in rows}
        return {name: Value(mean=found[dims]) for name, dims in sizes.items() if dims in found}

    measured = {place: accuracy(place) for place in PLACES}
    return Exhibit(
        number="Table 5.5",
        title="PCA dimensions and accuracy on all labels, by backbone",
        tables=[
            PUBLISHED["Table 5.5"].beside(
                "table-5.5",
                "Test accuracy of solve fitted to the whole pool.",
                lambda row, place: measured[place].get(row[1]),
                names=names_of(bench),
            )
        ],
        remarks=["A closed form has no randomness: one fit each, where the thesis prints ± 0.0."],
    )


def figure_5_4(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Figure 5.4",
        title="PCA dimensions on random labels",
        figures={"figure-5.4": draw_dimensions_by_labels(comparison(bench))},
        quotes=["the fewer dimensions, the fewer images it needs to converge, and the sooner it stops to learn."],
        remarks=["Dimensions that grow with the labels (6.1) are added."],
    )


def figure_5_14(bench: Bench) -> Exhibit:
    if len(bench.datasets) < 2:
        return without_second("Figure 5.14", "PCA dimensions on CIFAR-100")
    return Exhibit(
        number="Figure 5.14",
        title="PCA dimensions on CIFAR-100, all labels",
        figures={"figure-5.14": draw_dimensions(comparison(bench, second=True))},
        quotes=["50 dimensions are not enough; 150 are a compromise with the number of labels."],
    )


def without_second(number: str, title: str) -> Exhibit:
    """In the place of an exhibit of CIFAR-100."""
    return Exhibit(
        number=number,
        title=title,
        remarks=["Left out: it needs a second data set in CIFAR-100's place, DATASET=FIRST,SECOND."],
    )
