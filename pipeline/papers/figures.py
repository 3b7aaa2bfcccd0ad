"""Learning curves as papers draw them."""

from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.figure import Figure

from pipeline.curves import Style, add_legend, legend_columns, line_styles, make_axes
from pipeline.papers.base import Value
from pipeline.results import Group, Result, seed_ranges

SAID = {"deviation": "standard deviation", "error": "standard error"}


def draw_group(
    group: Group,
    title: str,
    band: Literal["deviation", "error"] = "error",
    start: int = 0,
    styles: Mapping[str, Style] | None = None,
) -> Figure:
    """Mean test accuracy against labels spent with a band, the last round's accuracy in the legend, highest first.

    start : labels that the axis begins at; styles : by label, of a report's own where none are given
    """
    chosen = styles or line_styles(group, strategy_names([group]))
    shown = sorted((r for r in group.results if r.label in chosen), key=lambda r: -float(r.accuracy[:, -1].mean()))
    labels = {result.label: f"{last(result, band)}  {result.label}" for result in shown}
    columns = legend_columns(list(labels.values()))
    subtitle = f"mean ± {SAID[band]}, seeds {seed_ranges(shown[0].seeds)}"
    figure, axes = make_axes(title, subtitle, "Labels spent", 1 - (-len(shown) // columns))
    for result in shown:
        (colour, dashes), seen = chosen[result.label], result.budget >= start
        x, curves = result.budget[seen], result.accuracy[:, seen]
        values = [getattr(Value, band)(column) for column in curves.T]
        mean = [value.mean for value in values]
        mark = "o" if len(x) == 1 else None
        axes.plot(x, mean, color=colour, linestyle=dashes, linewidth=1.6, marker=mark, label=labels[result.label])
        low, high = ([v.mean + sign * (v.spread or 0) for v in values] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    add_legend(figure, columns, title="Accuracy of the last round")
    return figure


def last(result: Result, band: Literal["deviation", "error"]) -> str:
    """`0.841 ± 0.004`, of the last round."""
    value: Value = getattr(Value, band)(result.accuracy[:, -1])
    return value.said(".3f")


def strategy_names(groups: Sequence[Group]) -> list[str]:
    """What `line_styles` gives colours by: all labels but random's and the surrogates'."""
    results = [result for group in groups for result in group.results]
    return sorted({r.label for r in results if not (r.name == "random" or r.is_surrogate)})
