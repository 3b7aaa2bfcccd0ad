"""Figures of a report besides the learning curves: ranks, seconds per strategy, and the samples-per-class law."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from pipeline.curves import OTHER, Style, add_legend, legend_columns, short
from pipeline.efficiency import Law
from pipeline.rankings import CriticalDifference
from pipeline.results import Group

WIDTH = 5.4
ROW = 0.2
"""Inches."""
BAR = "#0072B2"
MARKERS = "os^Dv<>phX*P"
_VALUE: dict[str, Any] = {"va": "center", "fontsize": 9, "annotation_clip": False}
LOG_FROM = 20
"""Ratio of the slowest to the quickest from which seconds are drawn on a logarithmic axis."""


def rank_figure(found: CriticalDifference, title: str) -> Figure:
    """Critical-difference diagram (Demsar 2006, figure 1), turned so that any number of names can be read.

    A row for each strategy, best on top, a dot at its mean rank; upright bars join those not significantly apart. The
    ruler on top is as long as the critical difference.
    """
    k, distance = len(found.labels), found.difference
    rows = np.arange(k)
    figure, axes = _axes(title, 1.1 + ROW * k)
    axes.hlines(rows, 1, found.ranks, color="#e5e5e5", lw=1, zorder=0)
    axes.plot(found.ranks, rows, "o", color="black", ms=5)
    for row, rank in zip(rows, found.ranks, strict=True):
        axes.annotate(f"{rank:.2f}", (rank, row), (6, 0), textcoords="offset points", **_VALUE)
    step, last = 0.035 * k, k + 0.14 * k
    for clique in found.cliques:
        ends = found.labels.index(clique[0]) - 0.25, found.labels.index(clique[-1]) + 0.25
        axes.plot([last, last], ends, color=BAR, lw=3)
        last += step
    axes.errorbar(1 + distance / 2, -1.1, xerr=distance / 2, color=BAR, capsize=3, lw=1.5)
    said = f"critical difference {distance:.2f}"
    axes.annotate(said, (1 + distance, -1.1), (6, 0), textcoords="offset points", **_VALUE)
    axes.set_yticks(rows, [short(label) for label in found.labels], fontsize=9)
    axes.set(ylim=(k - 0.4, -1.7), xlim=(0.9, max(last, 1.05 + distance)))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _ticks(k) if 1 <= tick <= k]))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Mean rank, 1 is best", fontsize=10)
    return figure


def _ticks(k: int) -> list[float]:
    return [1.0, *np.asarray(MaxNLocator(integer=True, nbins=8).tick_values(2, k)).tolist()]


def seconds_figure(group: Group, styles: Mapping[str, Style]) -> Figure:
    """A bar for each strategy, the slowest on top, in the colours of the curves."""
    results = sorted(group.results, key=lambda result: result.seconds)
    seconds = np.array([result.seconds for result in results])
    figure, axes = _axes(f"Seconds per run: {group.title}", 1.0 + ROW * len(results))
    logarithmic = seconds.min() > 0 and seconds.max() > LOG_FROM * seconds.min()
    left = 10 ** np.floor(np.log10(seconds.min())) if logarithmic else 0
    colours = [str(styles.get(result.label, (OTHER,))[0]) for result in results]
    rows = np.arange(len(results))
    # a bar reaches from the axis to the value also where that is logarithmic
    axes.barh(rows, seconds - left, left=left, color=colours, height=0.7)
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


def law_figure(laws: Sequence[Law], styles: Mapping[str, Style]) -> Figure | None:
    """Labels per class from which strategies beat random, against the number of classes, with the fits there are.

    Of the strategies that have a style. None where none of them ever beats random.
    Source: SSL-meets-AL seed (003), figure 6.
    """
    drawn = [law for law in laws if law.label in styles and any(point.per_class for point in law.thresholds)]
    if not drawn:
        return None
    figure, axes = _axes("Labels per class from which a strategy beats random", 3.6 + ROW * (1 + len(drawn) / 2))
    for place, law in enumerate(drawn):
        colour, dashes = styles[law.label]
        found = [point for point in law.thresholds if point.per_class is not None]
        classes = np.array([point.n_classes for point in found], dtype=float)
        mark = MARKERS[place % len(MARKERS)]
        per_class = np.array([point.per_class for point in found], dtype=float)
        axes.plot(classes, per_class, mark, color=colour, ms=6, mfc="none")
        if law.slope is not None and law.intercept is not None:
            ends = np.array([classes.min(), classes.max()])
            axes.plot(ends, 10**law.intercept * ends**law.slope, color=colour, linestyle=dashes, lw=1)
        fit = "" if law.slope is None else f", slope {law.slope:.2f}".replace("-", "−")
        axes.plot([], [], mark, color=colour, linestyle=dashes, lw=1, mfc="none", label=short(law.label) + fit)
    axes.set(xscale="log", yscale="log", xlabel="Classes", ylabel="Labels per class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    counts = sorted({point.n_classes for law in drawn for point in law.thresholds})
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.margins(0.12)
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, legend_columns([short(law.label) for law in drawn]))
    return figure


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    lines = textwrap.wrap(title, 60)
    figure = Figure(figsize=(WIDTH, height + ROW * len(lines)), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, figure.add_subplot()
