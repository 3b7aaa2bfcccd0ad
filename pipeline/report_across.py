"""What a report says of several groups together: mean ranks, BADGE's wins, and the samples-per-class law."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.curves import Picture, Style
from pipeline.efficiency import Law, Threshold, law
from pipeline.rankings import Wins, critical_difference, group_blocks, labels_of, wins
from pipeline.report_figures import law_figure, rank_figure
from pipeline.report_tables import group_names, said
from pipeline.results import Group
from pipeline.statistics import said_p
from pipeline.tables import Table

FOLDER = "all"
LEAST_BLOCKS = 3
"""Groups from which on their ranks are tested."""


def across(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[Picture | Table | str]:
    """Parts of the page, in order; empty for a single group.

    styles : of the curves, by label
    """
    if len(groups) < 2:
        return []
    names = group_names(groups)
    labels = labels_of(groups)
    parts: list[Picture | Table | str] = []
    if len(labels) < 2:
        parts.append(f"No two strategies ran in all {len(groups)} comparisons, so there are no ranks over them.")
    else:
        parts += [*_ranks(groups, names), *_wins(wins(groups))]
    return parts + _law(law(groups), names, groups, styles)


def _ranks(groups: Sequence[Group], names: Sequence[str]) -> list[Picture | Table | str]:
    """Mean ranks, and of enough groups the critical-difference diagram."""
    values, labels = group_blocks(groups)
    found = critical_difference(values, labels)
    frame = pd.DataFrame(values.T, index=pd.Index(labels, name="Strategy"), columns=names).loc[list(found.labels)]
    shown = frame.map(said)
    shown.insert(0, "Mean rank", [said(rank, 2) for rank in found.ranks])
    numbers = frame.set_axis([f"{name} aubc" for name in names], axis=1)
    numbers.insert(0, "mean_rank", found.ranks)
    table = Table(
        stem=f"{FOLDER}/ranks",
        caption=f"Mean rank by mean AUBC over {len(groups)} comparisons, of the {len(labels)} strategies that all of "
        "them have, and AUBC in each.",
        said=shown,
        numbers=numbers.reset_index(names="strategy"),
    )
    if len(groups) < LEAST_BLOCKS:
        return [table]
    figure = rank_figure(found, f"Mean ranks over {len(groups)} comparisons")
    caption = rank_caption(found.p, found.n_blocks, "comparisons")
    return [table, Picture(stem=f"{FOLDER}/mean-ranks", alt=caption, figure=figure)]


def rank_caption(p: float, n: int, blocks: str) -> str:
    """The test, stated."""
    return (
        f"Critical-difference diagram. Friedman's test over {n} {blocks}: {said_p(p)}; bars join strategies that "
        "Nemenyi's test at 0.05 does not tell apart."
    )


def _wins(found: Wins) -> list[Table | str]:
    if not found.n_settings:
        return ["In no comparison do the strategies share two seeds or more, so that no wins can be counted."]
    rows = np.vstack([found.matrix, found.losses])
    names = [*found.labels, "mean"]
    frame = pd.DataFrame(rows, index=pd.Index(names, name="Row beats column"), columns=list(found.labels))
    shown = frame.map(lambda value: said(value, 2))
    for label in found.labels:
        shown.loc[label, label] = ""
    return [
        Table(
            stem=f"{FOLDER}/wins",
            caption="BADGE's matrix: in how many comparisons the row's strategy beats the column's, by a two-sided "
            f"paired t-test over seeds (p < 0.05, uncorrected) at a budget; each of {found.n_settings} weighs 1, "
            "divided over its budgets. Last row: how often a strategy is beaten, mean over the others; lowest is best.",
            said=shown,
            numbers=frame.reset_index(names="strategy"),
        )
    ]


def _law(
    laws: Sequence[Law], names: Sequence[str], groups: Sequence[Group], styles: Mapping[str, Style]
) -> list[Picture | Table | str]:
    """The table of all strategies, and the figure of those that have a style."""
    if not laws:
        return ["No comparison has runs of random, so that no budget can be found from which a strategy beats it."]
    name_of = {id(group): name for group, name in zip(groups, names, strict=True)}
    numbers = [
        {
            "strategy": found.label,
            "comparison": name_of[id(point.group)],
            "dataset": point.dataset,
            "classes": point.n_classes,
            "budget": point.budget,
            "per_class": point.per_class,
            "slope": found.slope,
            "intercept": found.intercept,
            "correlation": found.correlation,
        }
        for found in laws
        for point in found.thresholds
    ]
    rows = []
    for found in laws:
        row = dict.fromkeys(names, "") | {name_of[id(point.group)]: _said_point(point) for point in found.thresholds}
        rows.append(row | {"Slope": said(found.slope, 2), "Correlation": said(found.correlation, 2)})
    caption = (
        "The samples-per-class law: labels (per class) from which a strategy beats random and stays ahead; – where it "
        "never does. Slope: of labels per class against the number of classes, both in logarithms; correlation: of "
        "the numbers themselves; both of at least three data sets."
    )
    labels = pd.Index([found.label for found in laws], name="Strategy")
    said_rows = pd.DataFrame(rows, index=labels)
    table = Table(stem=f"{FOLDER}/law", caption=caption, said=said_rows, numbers=pd.DataFrame(numbers))
    figure = law_figure(laws, styles)
    if figure is None:
        return [table]
    short = (
        "Labels per class from which strategies beat random, against the number of classes; lines: fits in logarithms."
    )
    return [table, Picture(stem=f"{FOLDER}/samples-per-class", alt=short, caption=short, figure=figure)]


def _said_point(point: Threshold) -> str:
    return "–" if point.per_class is None else f"{point.budget} ({point.per_class:.1f})"
