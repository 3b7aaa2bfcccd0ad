"""Two pictures of a surrogate: what it looks at, and where it stands between random and strategies that know labels."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cache.files import write_whole
from cache.runs import RunStore, StoredRun
from pipeline.curves import GREY, PALETTE, ROW_INCHES, Style, add_legend, line_styles, make_axes, rendered
from pipeline.reading import sound_runs
from pipeline.results import Group, Result, group_runs, seed_ranges, sees_labels

BARS = {
    "importance": ("share of the gain of all splits", PALETTE[0]),
    "shap": ("share of mean |SHAP|", PALETTE[1]),
}
"""Of every input, by the manifest's name: what is said of them, and a colour."""
PANELS = {
    "Of the image: its rank among the candidates": True,
    "Of the round: the same for all its candidates": False,
}
"""Titles, and whether an input that is a rank belongs there."""
BAR, INPUT_INCHES = 0.4, 0.27
"""Of a bar, in units of the space of an input; that space."""
WIDTH, LABEL_WIDTH = 68, 60
"""Characters in a line of the title, and of a label of the lines' legend."""
BEST_DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1)))
"""Of the best strategies beside the surrogates, so that each is seen where they are alike."""
CEILINGS = ("#444444", "#888888", "#aaaaaa")
CEILING_DASHES = (":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (5, 3)))
LONGEST_MEAN = 9
"""Rounds of the running mean; of short runs a tenth."""

Curve = tuple[Float[np.ndarray, "rounds"], Float[np.ndarray, "rounds"]]
"""Of test accuracy over random's: the mean over seeds, and its standard error."""


def write_figures(manifest: Mapping[str, Any], store: RunStore, runs: Sequence[StoredRun], out: Path) -> list[Path]:
    """The inputs of a model, and a picture of each group of runs, of that store, that it was compared with, as PNG.

    Returns the files. Damaged runs are named on stderr and left out; where there is nothing to compare, that is said.
    """
    pictures = {"surrogate-importance.png": draw_importance(manifest)}
    sound = sound_runs(store, dict.fromkeys("/".join(run.path.parts[-3:]) for run in runs))
    for group in group_runs(sound):
        if comparable(group):
            pictures[f"surrogate-{group.stem}.png"] = draw_gains(group)
        else:
            print(f"no picture of {group.title}: no surrogate and random have runs on the same seeds")
    for name, content in pictures.items():
        write_whole(out / name, partial(Path.write_bytes, data=content))
    return [out / name for name in pictures]


def draw_importance(manifest: Mapping[str, Any]) -> bytes:
    """PNG: every input's shares, the highest gain first, those of the image above those of the round."""
    names = sorted(manifest["importance"], key=lambda name: -manifest["importance"][name])
    panels = {title: [n for n in names if n.endswith("_rank") == ranks] for title, ranks in PANELS.items()}
    panels = {title: inputs for title, inputs in panels.items() if inputs}
    said = _learned_from(manifest)
    height = INPUT_INCHES * len(names) + 0.5 * len(panels) + ROW_INCHES * (3 + said.count("\n")) + 0.5
    figure = Figure(figsize=(5.4, height), dpi=220, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(said, fontsize=10, x=0.01, ha="left", linespacing=1.4)
    heights = [len(inputs) for inputs in panels.values()]
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights).ravel()
    for axes, (title, inputs) in zip(rows, panels.items(), strict=True):
        _draw_bars(axes, title, inputs, manifest)
    rows[-1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    rows[-1].set_xlim(0, max(1.02 * max(max(manifest[kind].values()) for kind in BARS), 0.1))
    handles, labels = rows[0].get_legend_handles_labels()
    add_legend(figure, len(BARS), handles=handles, labels=labels)
    return rendered(figure, "png")


def _learned_from(manifest: Mapping[str, Any]) -> str:
    pools = [f"{pool['dataset']} {pool.get('pool', '')}".strip() for pool in manifest["about"]["pools"]]
    title = f"What the surrogate looks at, learned from {manifest['rows']:,} queries"
    names = f"in {len(pools)} pools: {', '.join(pools)}" if len(pools) > 1 else f"in the pool {pools[0]}"
    return f"{title}\n{textwrap.fill(names, WIDTH, break_on_hyphens=False)}"


def _draw_bars(axes: Axes, title: str, inputs: Sequence[str], manifest: Mapping[str, Any]) -> None:
    place = np.arange(len(inputs))
    for k, (kind, (label, colour)) in enumerate(BARS.items()):
        axes.barh(place + (k - 0.5) * BAR, [manifest[kind][name] for name in inputs], BAR, color=colour, label=label)
    axes.set_yticks(place, [name.removesuffix("_rank").replace("_", " ") for name in inputs], fontsize=10)
    axes.set_ylim(len(inputs) - 0.5, -0.5)
    axes.set_title(title, fontsize=10, color="#595959", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def comparable(group: Group) -> bool:
    """Whether a surrogate has runs on random's seeds."""
    return any(result.is_surrogate and result.gain for result in group.results)


def draw_gains(group: Group) -> bytes:
    """PNG: test accuracy over random's against labels spent, of the lines of a comparable group.

    A difference is between runs of the same seed; its band is one standard error of its mean over seeds.
    """
    shown = lines_of(group)
    random = next(result for result in shown if result.name == "random")
    window = window_of(len(random.budget))
    smooth = f", running mean of {window} rounds" * (window > 1)
    seeds = f"seeds {seed_ranges(random.seeds)}" if group.shared else "seeds of both"
    curves = {result.label: mean_and_error(running_mean(over_random(result, random), window)) for result in shown}
    bottom = lowest(curves, [result.label for result in shown if sees_labels(result)])
    labels = [_said(result) + ", leaves the picture" * _leaves(curves[result.label], bottom) for result in shown]
    labels = [textwrap.fill(label, LABEL_WIDTH, subsequent_indent=" " * 13) for label in labels]
    rows = 1 + sum(1 + label.count("\n") for label in labels)
    band = "± standard error, " * any(error.any() for _, error in curves.values())
    figure, axes = make_axes(group.title, f"{band}{seeds}{smooth}", "Labels spent", rows)
    axes.set_ylabel("Test accuracy over random's\nof the same seed", fontsize=11)
    styles = styles_of(group, shown)
    for result, label in zip(shown, labels, strict=True):
        _draw_line(axes, result, curves[result.label], styles[result.label], label)
    axes.set_ylim(bottom=bottom)
    grey = "; grey: sees labels that its budget does not count" * any(map(sees_labels, shown))
    add_legend(figure, 1, title=f"AUBC over random's{grey}", alignment="left")
    return rendered(figure, "png")


def lines_of(group: Group) -> list[Result]:
    """What is drawn, highest AUBC over random's first.

    That is random, every surrogate, every strategy that sees labels beyond its budget's, and the best of the others.
    """
    drawn = sorted((r for r in group.results if r.gain or r.name == "random"), key=_gain, reverse=True)
    special = {
        result.label for result in drawn if result.name == "random" or result.is_surrogate or sees_labels(result)
    }
    best = [result.label for result in drawn if result.label not in special][: len(BEST_DASHES)]
    return [result for result in drawn if result.label in special.union(best)]


def styles_of(group: Group, shown: Sequence[Result]) -> dict[str, Style]:
    """Colours as in a report's pictures; random is a line, what sees labels is grey and broken, each its own way."""
    ceilings = [result.label for result in shown if sees_labels(result)]
    usual = tuple(result for result in shown if result.label not in ceilings)
    best = [result.label for result in usual if not (result.is_surrogate or result.name == "random")]
    styles = line_styles(replace(group, results=usual), sorted(best)) | {"random": (GREY, "-")}
    for label, dashes in zip(best, BEST_DASHES, strict=False):
        styles[label] = styles[label][0], dashes
    for place, label in enumerate(ceilings):
        styles[label] = CEILINGS[place % len(CEILINGS)], CEILING_DASHES[place % len(CEILING_DASHES)]
    return styles


def lowest(curves: Mapping[str, Curve], ceilings: Sequence[str]) -> float:
    """Where the picture ends below: where a ceiling falls far under random, half as far down as up.

    curves : of every line; ceilings : the lines that may leave the picture
    """
    up = max(float((mean + error).max()) for mean, error in curves.values())
    down = {label: float((mean - error).min()) for label, (mean, error) in curves.items()}
    usual = min(low for label, low in down.items() if label not in ceilings)
    bottom = max(min(down.values()), min(usual, -up / 2))
    return bottom - max(0.05 * (up - bottom), 1e-6)


def _leaves(curve: Curve, bottom: float) -> bool:
    return bool(curve[0].min() < bottom)


def _draw_line(axes: Axes, result: Result, curve: Curve, style: Style, label: str) -> None:
    (mean, error), (colour, dashes) = curve, style
    width, marker = 2.2 if result.is_surrogate else 1.5, "o" if len(mean) == 1 else None
    order = 3 + result.is_surrogate - (result.name == "random")
    axes.plot(result.budget, mean, color=colour, ls=dashes, lw=width, marker=marker, label=label, zorder=order)
    axes.fill_between(result.budget, mean - error, mean + error, color=colour, alpha=0.13, linewidth=0)


def over_random(result: Result, random: Result) -> Float[np.ndarray, "seeds rounds"]:
    """Its accuracy less random's, of every seed that both have."""
    both = [seed for seed in result.seeds if seed in random.seeds]
    its, of_random = (of.accuracy[[of.seeds.index(seed) for seed in both]] for of in (result, random))
    return its - of_random


def mean_and_error(values: Float[np.ndarray, "seeds rounds"]) -> Curve:
    """Over seeds, the error of the mean; of a single seed it is 0."""
    n = len(values)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / n**0.5 if n > 1 else np.zeros(values.shape[1])


def window_of(n_rounds: int) -> int:
    """Rounds of the running mean, an odd number."""
    return min(LONGEST_MEAN, n_rounds // 10 | 1)


def running_mean(values: Float[np.ndarray, "seeds rounds"], window: int) -> Float[np.ndarray, "seeds rounds"]:
    """Mean over `window` rounds, of which each is in the middle; near both ends over as many as leave it there."""
    place, last = np.arange(values.shape[1]), values.shape[1] - 1
    half = np.minimum(window // 2, np.minimum(place, last - place))
    total = np.pad(values, ((0, 0), (1, 0))).cumsum(axis=1)
    return (total[:, place + half + 1] - total[:, place - half]) / (2 * half + 1)


def _gain(result: Result) -> float:
    """AUBC over random's, 0 for random."""
    return result.gain.mean if result.gain else 0.0


def _said(result: Result) -> str:
    signed = f"{_gain(result):+.3f}".replace("-", "−")
    return f"{signed}  {result.label}"
