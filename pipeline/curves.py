"""Learning curves, and what all figures of alcove have in common."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.results import Group, Result, seed_ranges

GREY, SURROGATE = "#666666", "#D55E00"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that paper swallows."""
DASHES = ("-", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
TITLE_WIDTH, WIDEST_HALF = 46, 27
"""Characters in a line of the title, and in a label of a legend of two columns."""
LONGEST, LONGEST_ENTRY, LONGEST_WORD = 34, 48, 26
"""Characters of a label, of one in a legend, and of a word of one in a narrow panel's title; of a longer one the middle
is left out."""
ROW_INCHES = 0.22
MOST_NAMED = 12
"""Strategies with a colour of their own; of more, the best, random and the surrogates have one."""
OTHER = "#cccccc"

Style = tuple[str, object]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of a page, which is also written beside it. stem : of its files' names

    alt : what it shows, in words; caption : below it, by default `alt`
    small : a PNG to inline instead of the SVG, where that has too many parts
    hover : what the script must know of learning curves (`page.hover_of`), or None
    """

    stem: str
    alt: str
    figure: Figure
    caption: str = ""
    small: bytes | None = None
    hover: Mapping[str, Any] | None = None


def named(group: Group) -> list[Result]:
    """The results of a picture's legend, best first."""
    kept = {result.label for result in group.results if result.name == "random" or result.is_surrogate}
    best = [result.label for result in group.results if result.label not in kept][: max(0, MOST_NAMED - len(kept))]
    return [result for result in group.results if result.label in kept.union(best)]


def line_styles(group: Group, names: Sequence[str]) -> dict[str, Style]:
    """(colour, dashes) of every label of a group: random grey and dashed, surrogates vermilion, the others by `names`.

    names : all labels of a report but those two kinds', so that a strategy looks the same in each of its pictures;
        of more than there are styles, one whose style is taken has the next free one
    """
    surrogates = sorted(result.label for result in group.results if result.is_surrogate)
    styles: dict[str, Style] = {}
    free: list[Style] = [(colour, dashes) for dashes in DASHES for colour in PALETTE]
    wanted = [free[place % len(free)] for place in range(len(names))]
    for result in sorted(named(group), key=lambda result: names.index(result.label) if result.label in names else -1):
        if result.name == "random":
            styles[result.label] = (GREY, "--")
        elif result.is_surrogate:
            styles[result.label] = (SURROGATE, DASHES[surrogates.index(result.label) % len(DASHES)])
        else:
            style = wanted[names.index(result.label)]
            styles[result.label] = style if style in free else free[0]
            free.remove(styles[result.label])
    return styles


def all_styles(groups: Sequence[Group]) -> dict[str, dict[str, Style]]:
    """`line_styles` of each group by its stem, the same for a strategy in all of them."""
    results = [result for group in groups for result in named(group)]
    names = sorted({result.label for result in results if not (result.name == "random" or result.is_surrogate)})
    return {group.stem: line_styles(group, names) for group in groups}


def draw_curves(group: Group, styles: Mapping[str, Style]) -> bytes:
    """PNG of `curves_figure`."""
    return rendered(curves_figure(group, styles), "png")


def curves_figure(group: Group, styles: Mapping[str, Style]) -> Figure:
    """Mean test accuracy against labels spent, a band of one standard error, legend in the order of AUBC.

    In an SVG the axes' area is named frame, the legend legend, line and band of the n-th named strategy line-n and
    band-n, the lines of the others other-0, other-1 and so on.
    """
    shown = named(group)
    others = [result for result in group.results if result.label not in styles]
    columns = legend_columns([_said(result) for result in shown])
    rows = 1 + -(-(len(shown) + bool(others)) // columns)
    figure, axes = make_axes(group.title, _subtitle(group), "Labels spent", rows)
    axes.patch.set_gid("frame")
    for place, result in enumerate(shown):
        _draw(axes, result, styles[result.label], place)
    for place, result in enumerate(others):
        label = f"{len(others)} others" if place == 0 else None
        mean = result.accuracy.mean(axis=0)
        axes.plot(result.budget, mean, color=OTHER, lw=0.8, zorder=0, label=label, gid=f"other-{place}")
    add_legend(figure, columns, title="AUBC")
    return figure


def short(label: str, longest: int = LONGEST) -> str:
    """A label that leaves a figure room."""
    half = longest // 2
    return label if len(label) <= longest else f"{label[:half]}…{label[half + 1 - longest :]}"


def wrapped(label: str, width: int) -> str:
    """A label in lines of so many characters."""
    words = [short(word, max(width, LONGEST_WORD)) for word in label.split()]
    return textwrap.fill(" ".join(words), width, break_long_words=False)


def legend_columns(labels: Sequence[str]) -> int:
    """Two where every label is short enough."""
    return 1 if any(len(label) > WIDEST_HALF for label in labels) else 2


def make_axes(title: str, subtitle: str, xlabel: str, rows: int) -> tuple[Figure, Axes]:
    """A figure of column width with axes of test accuracy, and room for a legend of so many rows below."""
    figure = Figure(figsize=(5.4, 3.9 + ROW_INCHES * rows), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=12, fontweight="bold", loc="left", pad=20)
    axes.annotate(subtitle, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=10, color="#595959")
    axes.set_xlabel(xlabel, fontsize=11)
    axes.set_ylabel("Test accuracy", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    return figure, axes


def add_legend(figure: Figure, columns: int, title: str | None = None, **how: Any) -> None:
    """Below the axes, where it covers no curve. how : more of matplotlib's options, handles for example"""
    said: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handlelength": 2.4}
    figure.legend(title=title, fontsize=10, title_fontsize=10, **(said | how)).set_gid("legend")


_UNSAID = {"png": ("Software",), "pdf": ("CreationDate",), "svg": ("Date", "Creator", "Format", "Type")}


def rendered(figure: Figure, kind: str) -> bytes:
    """The file of a figure, "png", "pdf" or "svg", the same bytes every time."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "alcove", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, metadata=dict.fromkeys(_UNSAID[kind]))
    return buffer.getvalue()


def all_rendered(figure: Figure) -> dict[str, bytes]:
    """PNG, PDF and SVG of a figure, by kind, laid out once."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return {kind: rendered(figure, kind) for kind in _UNSAID}


def _draw(axes: Axes, result: Result, style: Style, place: int) -> None:
    colour, dashes = style
    mean = result.accuracy.mean(axis=0)
    foreground = result.name == "random" or result.is_surrogate
    axes.plot(
        result.budget,
        mean,
        color=colour,
        linestyle=dashes,
        linewidth=2.2 if foreground else 1.6,
        marker="o" if len(mean) == 1 else None,
        zorder=3 if foreground else 2,
        label=_said(result),
        gid=f"line-{place}",
    )
    if len(result.seeds) > 1:
        error = result.accuracy.std(axis=0, ddof=1) / np.sqrt(len(result.seeds))
        how: dict[str, Any] = {"color": colour, "alpha": 0.13, "linewidth": 0, "zorder": 1}
        axes.fill_between(result.budget, mean - error, mean + error, gid=f"band-{place}", **how)


def _said(result: Result) -> str:
    return f"{result.aubc.mean:.3f}  {short(result.label, LONGEST_ENTRY)}"


def _subtitle(group: Group) -> str:
    seeds = f"seeds {seed_ranges(group.results[0].seeds)}" if group.shared else "each strategy's own seeds"
    return f"mean ± standard error, {seeds}"
