"""Pictures of what strategies queried: classes over time, balance of the labels, and the map of the pool."""

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from pipeline.curves import GREY, LONGEST_ENTRY, Style, add_legend, legend_columns, make_axes, short, wrapped
from pipeline.queried_classes import Spent
from pipeline.queries import MOST_LAID_OUT, PoolMap, lay_out
from pipeline.results import Group
from stages.al.pool import Pool

COLUMNS, WIDTH = 2, 5.4
MOST_ROWS = 12
"""Classes whose rows are named; of more, the rows are thin lines."""
NAME_WIDTH, LABEL_WIDTH, TITLE_WIDTH = 14, 32, 46
SMALL_DPI, SMALL_COLOURS = 144, 256
OCTAVES = 2
"""Shares are shown up to so many doublings above and below the pool's."""
SHARES = "PuOr"
"""A map that the colour-blind can read: brown below, white alike, purple above."""


def small_png(figure: Figure) -> bytes:
    """For a page that holds many: fewer pixels than the file beside it, and a palette. A map takes some 200 KB."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=SMALL_DPI)
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(SMALL_COLOURS, dither=Image.Dither.NONE).save(
        small, "png", optimize=True
    )
    return small.getvalue()


def draw_classes(
    group: Group, spent: Sequence[Spent], names: Sequence[str], shares: Float[np.ndarray, "classes"]
) -> Figure:
    """A panel for each strategy, a row for each class: its share of the labels so far over its share of the pool.

    names, shares : of the classes, in the order of the rows
    """
    rows = -(-len(spent) // COLUMNS)
    height = 0.16 * len(names) + 0.2 if len(names) <= MOST_ROWS else 1.9
    lines = max(-(-len(one.label) // LABEL_WIDTH) for one in spent)
    figure = Figure(figsize=(WIDTH, rows * (height + 0.3 + 0.15 * lines) + 1.5), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(group.title, TITLE_WIDTH), fontsize=12, fontweight="bold", x=0.01, ha="left")
    panels = figure.subplots(rows, min(COLUMNS, len(spent)), sharex=True, sharey=True, squeeze=False)
    for axes, one in zip(panels.ravel(), spent, strict=False):
        mesh = _draw_shares(axes, one, shares)
    for axes in panels.ravel()[len(spent) :]:
        axes.set_axis_off()
    _name_rows(list(panels[:, 0]), names)
    for column in range(panels.shape[1]):
        lowest = panels[-1 if column < len(spent) - (rows - 1) * COLUMNS else -2, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("Labels spent", fontsize=10)
    bar = figure.colorbar(mesh, ax=panels, location="bottom", aspect=40, shrink=0.9, pad=0.02)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼ or less", "½", "alike", "2", "4 or more"])
    bar.set_label("Share of the labels, over the class's share of the pool", fontsize=10)
    return figure


def _draw_shares(axes: Axes, spent: Spent, shares: Float[np.ndarray, "classes"]) -> QuadMesh:
    with np.errstate(divide="ignore"):
        octaves = np.log2(spent.share / shares)
    mesh = axes.pcolormesh(
        _edges(spent.budget),
        np.arange(len(shares) + 1),
        octaves.clip(-OCTAVES, OCTAVES).T,
        cmap=SHARES,
        vmin=-OCTAVES,
        vmax=OCTAVES,
        rasterized=True,
    )
    axes.set_title(wrapped(spent.label, LABEL_WIDTH), fontsize=9.5, loc="left")
    axes.tick_params(labelsize=9)
    return mesh


def _edges(budget: Int[np.ndarray, "rounds"]) -> Float[np.ndarray, "edges"]:
    """Borders of the rounds' columns, half-way between their budgets."""
    steps = np.diff(budget) if len(budget) > 1 else np.ones(1)
    middles = (budget[1:] + budget[:-1]) / 2
    return np.concatenate([[budget[0] - steps[0] / 2], middles, [budget[-1] + steps[-1] / 2]])


def _name_rows(panels: Sequence[Axes], names: Sequence[str]) -> None:
    panels[0].invert_yaxis()
    for axes in panels:
        if len(names) > MOST_ROWS:
            axes.set_yticks([])
            axes.set_ylabel(f"{len(names)} classes", fontsize=9)
        else:
            shown = [name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…" for name in names]
            axes.set_yticks(np.arange(len(names)) + 0.5, labels=shown, fontsize=8)
            axes.tick_params(axis="y", length=0)


def draw_balance(group: Group, spent: Sequence[Spent], pool: float, styles: Mapping[str, Style]) -> Figure:
    """Mean balance of the labels against labels spent, with a band of one standard error. pool : the pool's own"""
    said = [f"{one.balance[:, -1].mean():.3f}  {short(one.label, LONGEST_ENTRY)}" for one in spent]
    columns = legend_columns(said)
    rows = 1 + -(-(len(spent) + 1) // columns)
    figure, axes = make_axes(group.title, "1: all classes alike; 0: one class only", "Labels spent", rows)
    axes.set_ylabel("Balance of the labels' classes", fontsize=11)
    for one, label in zip(spent, said, strict=True):
        colour, dashes = styles[one.label]
        mean, n = one.balance.mean(axis=0), len(one.balance)
        marker = "o" if len(mean) == 1 else None
        axes.plot(one.budget, mean, color=colour, linestyle=dashes, linewidth=1.6, marker=marker, label=label)
        if n > 1:
            error = one.balance.std(axis=0, ddof=1) / np.sqrt(n)
            axes.fill_between(one.budget, mean - error, mean + error, color=colour, alpha=0.13, linewidth=0)
    axes.axhline(pool, color=GREY, linewidth=1, linestyle=":", label=f"{pool:.3f}  the pool")
    add_legend(figure, columns, title="Balance at the end")
    return figure


def map_pool(
    group: Group,
    pool: Pool,
    class_names: Sequence[str],
    queried: Mapping[str, Int[np.ndarray, "queried"]],
    layout: str,
    seed: int,
) -> PoolMap:
    """The images queried, and a random sample of the others, so that the picture stays small.

    Raises InputError where there are too few images for t-SNE.
    """
    wanted = np.unique(np.concatenate(list(queried.values())))
    shown, plane = lay_out(pool.unit, wanted, layout, seed)
    others = np.setdiff1d(shown, wanted)
    sample = np.random.default_rng(seed).permutation(others)[:MOST_LAID_OUT]
    kept = np.isin(shown, np.union1d(wanted, sample))
    return PoolMap(
        title=group.title,
        layout=layout,
        seed=seed,
        class_names=class_names,
        labels=pool.labels,
        n_initial=group.settings["protocol"]["initial_size"],
        queried=dict(queried),
        shown=shown[kept],
        plane=plane[kept],
    )
