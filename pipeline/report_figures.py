"""Figures of a report besides the learning curves: ranks, and seconds per strategy."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from pipeline.curves import OTHER, Style
from pipeline.results import Group

WIDTH = 5.4
ROW = 0.2
"""Inches."""
LONGEST = 34
"""Characters of a label; of a longer one the middle is left out."""
BAR = "#0072B2"
_VALUE: dict[str, Any] = {"va": "center", "fontsize": 9, "annotation_clip": False}
LOG_FROM = 20
"""Ratio of the slowest to the quickest from which seconds are drawn on a logarithmic axis."""


def short(label: str) -> str:
    """A label that leaves a figure room."""
    half = LONGEST // 2
    return label if len(label) <= LONGEST else f"{label[:half]}…{label[1 - half :]}"


def rank_figure(
    labels: Sequence[str],
    ranks: Float[np.ndarray, "k"],
    distance: float,
    cliques: Sequence[Sequence[int]],
    title: str,
) -> Figure:
    """Critical-difference diagram (Demsar 2006, figure 1), turned so that any number of names can be read.

    A row for each strategy, best on top, a dot at its mean rank; upright bars join those not significantly apart.
    distance : the critical difference, drawn as a ruler; cliques : places in `labels` that a bar joins
    """
    order = np.argsort(ranks, kind="stable")
    k = len(order)
    row_of = {int(index): row for row, index in enumerate(order)}
    figure, axes = _axes(title, 1.1 + ROW * k)
    axes.hlines(np.arange(k), 1, ranks[order], color="#e5e5e5", lw=1, zorder=0)
    axes.plot(ranks[order], np.arange(k), "o", color="black", ms=5)
    for index, row in row_of.items():
        axes.annotate(f"{ranks[index]:.2f}", (ranks[index], row), (6, 0), textcoords="offset points", **_VALUE)
    step = 0.035 * k
    for level, clique in enumerate(cliques):
        rows = [row_of[index] for index in clique]
        axes.plot([k + step * (level + 4)] * 2, [min(rows) - 0.25, max(rows) + 0.25], color=BAR, lw=3)
    axes.errorbar(1 + distance / 2, -1.1, xerr=distance / 2, color=BAR, capsize=3, lw=1.5)
    axes.annotate(f"critical difference {distance:.2f}", (1 + distance, -1.1), (6, 0), textcoords="offset points", **_VALUE)
    axes.set_yticks(np.arange(k), [short(labels[index]) for index in order], fontsize=9)
    axes.set(ylim=(k - 0.4, -1.7), xlim=(0.9, max(k + step * (len(cliques) + 4), 1.05 + distance)))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _ticks(k) if 1 <= tick <= k]))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Mean rank, 1 is best", fontsize=10)
    return figure


def _ticks(k: int) -> list[float]:
    return [1, *MaxNLocator(integer=True, nbins=8).tick_values(2, k).tolist()]


def seconds_figure(group: Group, styles: Mapping[str, Style]) -> Figure:
    """A bar for each strategy, the slowest on top, in the colours of the curves."""
    results = sorted(group.results, key=lambda result: result.seconds)
    seconds = np.array([result.seconds for result in results])
    figure, axes = _axes(f"Seconds per run: {group.title}", 1.0 + ROW * len(results))
    logarithmic = seconds.min() > 0 and seconds.max() > LOG_FROM * seconds.min()
    left = 10 ** np.floor(np.log10(seconds.min())) if logarithmic else 0
    colours = [str(styles.get(result.label, (OTHER,))[0]) for result in results]
    rows = np.arange(len(results))
    axes.barh(rows, seconds - left, left=left, color=colours, height=0.7)  # a bar reaches from the axis to the value also where that is logarithmic
    for row, value in zip(rows, seconds, strict=True):
        axes.annotate(f"{value:.3g}", (value, row), (4, 0), textcoords="offset points", **_VALUE)
    axes.set_yticks(rows, [short(result.label) for result in results], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.1, y=0.3 / len(results))
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(left=left)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"Seconds per run{', logarithmic' if logarithmic else ''}", fontsize=10)
    return figure


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    lines = textwrap.wrap(title, 60)
    figure = Figure(figsize=(WIDTH, height + ROW * len(lines)), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, figure.add_subplot()
