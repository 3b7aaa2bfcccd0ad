"""SUPClust's figures 3 and 4, drawn from what strategies queried."""

import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from cache.files import write_whole
from pipeline.curves import GREY, PALETTE, ROW_INCHES, add_legend, rendered, wrapped
from pipeline.queries import PoolMap, Queries, ScoredCluster
from stages.al.strategies.supclust import SupClust, typical_count

COLOURS = (*PALETTE[:5], "#D55E00", "#F0E442")
"""Okabe and Ito's, without black, which is the edge of what was queried."""
MARKERS = ("o", "^", "s", "D")
"""Of the first seven categories, of the next seven, and so on."""
MOST_NAMED = len(COLOURS) * len(MARKERS)
MOST_COLUMNS, PANEL = 3, 4.2
LAYOUTS = {"tsne": "t-SNE", "pca": "principal components"}
CROWD, FEW = 10_000, 120
"""From so many images on, their dots are smaller and paler; of more queried than so many, they are smaller."""
NAME_WIDTH, SPEC_WIDTH, CHARACTERS = 24, 34, 10
"""Characters of a category's name, of a line of a panel's title, and of the title in an inch."""


def write_figures(queries: Queries, out: Path) -> list[Path]:
    """Both as PNG, the second where there are two clusters or more. Returns the files."""
    figures = {"figure-3": draw_queries(queries)}
    if queries.clusters:
        figures["figure-4"] = draw_clusters(queries)
    files = {out / f"{queries.stem}-{name}.png": rendered(figure, "png") for name, figure in figures.items()}
    for path, content in files.items():
        write_whole(path, partial(Path.write_bytes, data=content))
    return list(files)


def draw_queries(queries: PoolMap, columns: int = 0, panel: float = PANEL) -> Figure:
    """Figure 3: a panel for each strategy, the same images in all of them, what it queried large and edged.

    columns : 0 for as many as go well with the number of panels; panel : inches
    """
    columns = columns or (2 if len(queries.queried) == 4 else min(MOST_COLUMNS, len(queries.queried)))
    rows = -(-len(queries.queried) // columns)
    styles, width = category_styles(queries), int(SPEC_WIDTH * panel / PANEL)
    legend_rows = 1 + -(-(len(styles) + 3) // _legend_columns(panel * columns, queries, styles))
    figure = _figure((panel * columns, (panel + 0.5) * rows + 0.5 + ROW_INCHES * legend_rows), queries.title)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (spec, queried) in zip(panels, queries.queried.items(), strict=False):
        _draw_panel(axes, queries, wrapped(spec.replace(":", ": "), width), queried, styles)
    for axes in panels[len(queries.queried) :]:
        axes.set_axis_off()
    _add_legend(figure, queries, styles)
    return figure


def category_styles(queries: PoolMap) -> dict[int, tuple[str, str]]:
    """(colour, marker) of the categories, the same in every picture of a pool; of very many the rarest have none."""
    counts = np.bincount(queries.labels, minlength=len(queries.class_names))
    frequent = np.argsort(-counts, kind="stable")[:MOST_NAMED]
    return {
        int(label): (COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS)])
        for place, label in enumerate(np.sort(frequent))
    }


def draw_clusters(queries: Queries) -> Figure:
    """Figure 4: typicality against SUP of the images of some clusters, and what two strategies would take of each."""
    columns = min(2, len(queries.clusters))
    rows = -(-len(queries.clusters) // columns)
    subtitle = f"{len(queries.clusters)} of {queries.n_clusters} clusters, temperature {queries.temperature:g}"
    figure = _figure((PANEL * columns, 3.4 * rows + 1.1), queries.title, subtitle)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, cluster in zip(panels, queries.clusters, strict=False):
        _draw_cluster(axes, cluster)
    for axes in panels[len(queries.clusters) :]:
        axes.set_axis_off()
    share = f"{100 * SupClust().typical_share:g}%"
    handles = [
        Line2D([], [], color=GREY, linestyle="--", label=f"the {share} most typical lie to the right"),
        _handle("o", PALETTE[1], "most typical: typiclust", edge="black"),
        _handle("^", PALETTE[2], f"highest SUP of the {share}: supclust", edge="black"),
    ]
    add_legend(figure, columns, handles=handles, handlelength=2.0)
    return figure


def _draw_panel(
    axes: Axes,
    queries: PoolMap,
    title: str,
    queried: Int[np.ndarray, "queried"],
    styles: dict[int, tuple[str, str]],
) -> None:
    seen = len(set(queries.labels[queried].tolist()))
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", pad=20)
    said = f"{len(queried)} labels in {seen} of {len(queries.class_names)} categories"
    note = axes.annotate(said, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=10, color="#595959")
    note.set_in_layout(False)  # else a long one makes its panel narrower
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#cccccc")
    size, alpha = (5, 0.35) if len(queries.shown) < CROWD else (2, 0.12)
    _scatter(axes, queries, queries.shown, styles, s=size, alpha=alpha, linewidths=0, zorder=1)
    shrunk = min(1, FEW / len(queried))
    given, chosen = queried[: queries.n_initial], queried[queries.n_initial :]
    _scatter(axes, queries, given, styles, s=34 * shrunk, linewidths=0.9 * shrunk, edgecolors="white", zorder=2)
    _scatter(axes, queries, chosen, styles, s=46 * shrunk, linewidths=1.1 * shrunk, edgecolors="black", zorder=3)


def _scatter(
    axes: Axes, queries: PoolMap, images: Int[np.ndarray, "m"], styles: dict[int, tuple[str, str]], **how: Any
) -> None:
    """Images where they lie, in the colours and markers of their categories; grey dots of those without."""
    places = queries.plane[np.searchsorted(queries.shown, images)]
    labels = queries.labels[images]
    rest = ~np.isin(labels, list(styles))
    for mask, (colour, marker) in [(rest, (GREY, "o")), *((labels == label, styles[label]) for label in styles)]:
        axes.scatter(places[mask, 0], places[mask, 1], c=colour, marker=marker, **how)


def _add_legend(figure: Figure, queries: PoolMap, styles: dict[int, tuple[str, str]]) -> None:
    handles = [
        _handle(marker, colour, _short(queries.class_names[label])) for label, (colour, marker) in styles.items()
    ]
    if len(queries.class_names) > len(styles):
        handles.append(_handle("o", GREY, "other categories"))
    handles.append(_handle("o", "white", "queried", edge="black"))
    if queries.n_initial:
        handles.append(_handle("o", "#bbbbbb", "labeled at first", edge="white"))
    title = f"{LAYOUTS[queries.layout]} of {len(queries.shown):,} images; seed {queries.seed}"
    columns = _legend_columns(figure.get_figwidth(), queries, styles)
    add_legend(figure, columns, title, handles=handles, handlelength=2.0, handletextpad=0.2)


def _short(name: object) -> str:
    return textwrap.shorten(str(name), NAME_WIDTH, placeholder="…")


def _legend_columns(width: float, queries: PoolMap, styles: dict[int, tuple[str, str]]) -> int:
    """As many as fit into so many inches. The longest of what is no category has 16 characters."""
    longest = max(16, *(len(_short(queries.class_names[label])) for label in styles))
    return max(1, int(width / (0.55 + 0.075 * longest)))


def _draw_cluster(axes: Axes, cluster: ScoredCluster) -> None:
    typicality = cluster.typicality
    order = np.argsort(-typicality, kind="stable")[: typical_count(SupClust().typical_share, len(typicality))]
    best = order[cluster.sup[order].argmax()]
    axes.scatter(typicality, cluster.sup, s=14, c=PALETTE[0], alpha=0.55, linewidths=0)
    axes.axvline(typicality[order[-1]], color=GREY, linestyle="--", linewidth=1)
    for image, marker, colour, size in ((order[0], "o", PALETTE[1], 70), (best, "^", PALETTE[2], 70)):
        axes.scatter(typicality[image], cluster.sup[image], s=size, marker=marker, c=colour, edgecolors="black")
    said = f"{len(typicality)} images"
    if np.ptp(typicality) and np.ptp(cluster.sup):
        said += f", rank correlation {spearmanr(typicality, cluster.sup)[0]:+.2f}"
    axes.set_title(said, fontsize=10, color="#595959", loc="left")
    axes.set_xlabel("Typicality", fontsize=10)
    axes.set_ylabel("SUP", fontsize=10)
    axes.locator_params(nbins=5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(size: tuple[float, float], title: str, subtitle: str = "") -> Figure:
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    lines = "\n".join([textwrap.fill(title, int(CHARACTERS * size[0])), *([subtitle] if subtitle else [])])
    figure.suptitle(lines, fontsize=11, x=0.01, ha="left", linespacing=1.5)
    return figure


def _handle(marker: str, colour: str, label: str, edge: str = "none") -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, markeredgecolor=edge, markersize=7, label=label)
