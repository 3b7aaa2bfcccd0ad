"""The thesis's figures 5.2, 5.3 and 5.4, drawn from a comparison of heads."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cache.files import write_whole
from pipeline.curves import DASHES, GREY, PALETTE, Style, add_legend, legend_columns, make_axes, rendered
from pipeline.heads import GROWING, LISTING, SOLVE, Comparison
from pipeline.results import seed_ranges

SAME = 0.002
"""Curves that differ by less in mean accuracy at every size share one line."""
KINDS = ("png", "pdf")
_SAID = {LISTING: f"{LISTING}, unchecked"}


def write_figures(comparison: Comparison, out: Path) -> list[Path]:
    """Every figure as PNG and PDF, and the numbers as CSV, unrounded. Returns the files."""
    figures = {
        "figure-5.2": draw_heads(comparison),
        "figure-5.3": draw_dimensions(comparison),
        "figure-5.4": draw_dimensions_by_labels(comparison),
    }
    contents = {f"-{name}.{kind}": rendered(figure, kind) for name, figure in figures.items() for kind in KINDS}
    contents[".csv"] = comparison.table.to_csv(index=False, lineterminator="\n").encode()
    files = {out / f"{comparison.stem}{end}": content for end, content in contents.items()}
    for path, content in files.items():
        write_whole(path, partial(Path.write_bytes, data=content))
    return list(files)


def draw_heads(comparison: Comparison) -> Figure:
    """Figure 5.2: test accuracy against random labels without PCA, a line at as many labels as dimensions."""
    curves = {head: comparison.curve(head, comparison.dim) for head in comparison.heads}
    return _draw_by_labels(comparison, together(curves), "no PCA")


def draw_dimensions(comparison: Comparison) -> Figure:
    """Figure 5.3: test accuracy of solve fitted to the whole pool, against the dimensions that PCA keeps."""
    accuracy = comparison.of_whole_pool()
    subtitle = f"solve, fitted to all {comparison.n_pool:,} images of the pool"
    figure, axes = make_axes(comparison.title, subtitle, "PCA dimensions", rows=1)
    axes.plot(accuracy.index, accuracy, color=PALETTE[0], linewidth=1.8, marker="o", markersize=4)
    without = accuracy[comparison.dim]
    said = f"no PCA ({comparison.dim} dimensions): {without:.3f}"
    axes.axhline(without, color=GREY, linestyle="--", linewidth=1.4, zorder=1, label=said)
    _logarithmic(axes)
    axes.margins(x=0.03)
    add_legend(figure, columns=1)
    return figure


def draw_dimensions_by_labels(comparison: Comparison) -> Figure:
    """Figure 5.4: test accuracy of solve against random labels, with several PCA dimensions and with growing ones."""
    table = comparison.table
    fixed = sorted(set(table["dims"][(table["head"] == SOLVE) & table["seed"].notna()]))
    names = [f"PCA to {dims}" if dims < comparison.dim else f"no PCA ({dims})" for dims in fixed]
    curves = {name: comparison.curve(SOLVE, dims) for name, dims in zip(names, fixed, strict=True)}
    curves["growing: labels / 2"] = comparison.curve(GROWING, comparison.dim)
    return _draw_by_labels(comparison, curves, SOLVE)


def together(curves: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Curves by their names, those that nobody could tell apart once, under all their names."""
    names: list[list[str]] = []
    for name, curve in curves.items():
        alike = (others for others in names if (curves[others[0]]["mean"] - curve["mean"]).abs().max() < SAME)
        home = next(alike, None)
        if home is None:
            names.append([name])
        else:
            home.append(name)
    return {", ".join(alike): curves[alike[0]] for alike in names}


def _draw_by_labels(comparison: Comparison, curves: Mapping[str, pd.DataFrame], what: str) -> Figure:
    columns = legend_columns(list(curves))
    rows = -(-len(curves) // columns)
    subtitle = f"{what}; mean ± standard error, seeds {seed_ranges(comparison.seeds)}"
    figure, axes = make_axes(comparison.title, subtitle, "Randomly drawn labels", rows)
    for (name, curve), (colour, dashes) in zip(curves.items(), _styles(list(curves)), strict=True):
        axes.plot(
            curve.index, curve["mean"], color=colour, linestyle=dashes, linewidth=1.7, label=_SAID.get(name, name)
        )
        low, high = (curve["mean"] + sign * curve["sem"] for sign in (-1, 1))
        axes.fill_between(curve.index, low, high, color=colour, alpha=0.15, linewidth=0)
    _logarithmic(axes)
    _mark_dimension(axes, comparison.dim)
    add_legend(figure, columns)
    return figure


def _styles(names: Sequence[str]) -> list[Style]:
    """(colour, dashes) of each: the thesis's listing grey and dashed, the others by their places."""
    others = [name for name in names if name != LISTING]
    styles: dict[str, Style] = {
        name: (PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)])
        for place, name in enumerate(others)
    }
    return [styles.get(name, (GREY, "--")) for name in names]


def _mark_dimension(axes: Axes, dim: int) -> None:
    """A vertical line at as many labels as dimensions, where the axes reach that far."""
    if axes.get_xlim()[0] <= dim <= axes.get_xlim()[1]:
        axes.axvline(dim, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axes.annotate(
            f"n = d = {dim}", (dim, 0), (4, 4), ("data", "axes fraction"), "offset points", fontsize=10, color=GREY
        )


def _logarithmic(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 times the powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
