"""Tables of a report. Each is made once; the page, CSV, LaTeX and Markdown all show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cache.files import canonical_json
from pipeline.curves import named
from pipeline.efficiency import labeling_efficiency
from pipeline.paired import Paired
from pipeline.results import Estimate, Group, Result, seed_ranges
from pipeline.statistics import ALPHA, Comparison, said_p
from pipeline.tables import Table

MARK = " *"
"""Ends a cell of a matrix that is significant."""


def said(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """`0.885`, or `–` for None and NaN; a real minus."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def said_estimate(estimate: Estimate | None, digits: int = 3, sign: bool = False) -> str:
    """`0.885 ± 0.004`, or `–` for None."""
    if estimate is None:
        return "–"
    mean = said(estimate.mean, digits, sign)
    return mean if estimate.error is None else f"{mean} ± {estimate.error:.{digits}f}"


def results_table(group: Group, comparison: Comparison) -> Table:
    """One row per strategy, highest AUBC first."""
    rows = [_said_row(result, comparison, group) for result in group.results]
    labels = pd.Index([result.label for result in group.results], name="Strategy")
    return Table(
        stem=f"{group.stem}/results",
        caption=_results_caption(group, comparison),
        said=pd.DataFrame(rows, index=labels),
        numbers=pd.DataFrame(_result_numbers(group, comparison)),
    )


@dataclass(frozen=True)
class _Beside:
    """A result beside random's: every number of the table that is not the result's own; None where there is none."""

    mean_rank: float | None = None
    pair: Paired | None = None
    adjusted: float | None = None
    claim: str | None = None
    efficiency: Estimate | None = None


def _beside(result: Result, comparison: Comparison, group: Group) -> _Beside:
    claims, against = comparison.claims, comparison.against_random.get(result.label)
    efficiency = labeling_efficiency(group, result.label) if result.gain else None
    return _Beside(
        mean_rank=None if claims is None else float(claims.ranks[comparison.labels.index(result.label)]),
        pair=against.paired if against else None,
        adjusted=against.adjusted if against else None,
        claim=against.claim if against else None,
        efficiency=efficiency.at_target if efficiency else None,
    )


def _said_row(result: Result, comparison: Comparison, group: Group) -> dict[str, str]:
    beside = _beside(result, comparison, group)
    row = {"AUBC": said_estimate(result.aubc), "Final accuracy": said_estimate(result.final)}
    if comparison.claims is not None:
        row["Mean rank"] = said(beside.mean_rank, 2)
    row["AUBC over random"] = said_estimate(result.gain, sign=True)
    if comparison.against_random:
        pair = beside.pair
        row["95% interval"] = " to ".join(map(said, pair.interval)) if pair and pair.interval else "–"
        row["p (Holm)"] = (
            "–"
            if beside.adjusted is None
            else said_p(beside.adjusted).removeprefix("p = ").removeprefix("p ") + MARK * bool(beside.claim)
        )
        row["Effect size"] = said(pair.effect if pair else None, 2, sign=True)
    if _has_random(group):
        row["Labeling efficiency"] = said_estimate(beside.efficiency, 2)
    if not group.shared:
        row["Seeds"] = f"{len(result.seeds)} ({seed_ranges(result.seeds)})"
    return row | {"Seconds per run": f"{result.seconds:.2f}"}


def _has_random(group: Group) -> bool:
    return any(result.gain for result in group.results)


def _result_numbers(group: Group, comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {"place": place, "strategy": result.label, **_numbers(result, _beside(result, comparison, group))}
        for place, result in enumerate(group.results, start=1)
    ]


def _numbers(result: Result, beside: _Beside) -> dict[str, Any]:
    pair = beside.pair
    low, high = (pair.interval if pair else None) or (None, None)
    return {
        **_columns(aubc=result.aubc, final_accuracy=result.final, gain=result.gain),
        "mean_rank": beside.mean_rank,
        "gain_low": low,
        "gain_high": high,
        "p": pair.p if pair else None,
        "p_holm": beside.adjusted,
        "claim": beside.claim,
        "effect": pair.effect if pair else None,
        "rank_biserial": pair.rank_biserial if pair else None,
        **_columns(efficiency=beside.efficiency),
        "seeds": " ".join(map(str, result.seeds)),
        "seconds": result.seconds,
    }


def _columns(**estimates: Estimate | None) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, estimate in estimates.items():
        columns[f"{name}_mean"] = estimate.mean if estimate else None
        columns[f"{name}_error"] = estimate.error if estimate else None
    return columns


def _results_caption(group: Group, comparison: Comparison) -> str:
    parts = ["Mean ± standard error over seeds.", *_seeds_said(group)]
    shares = "" if group.shared else ", where strategy and random share one"
    parts.append(f"AUBC over random is the mean of the differences on the same seed{shares}.")
    if comparison.claims is not None:
        parts.append("Mean rank: over seeds, 1 is best.")
    if comparison.against_random:
        parts.append(
            "Interval: bias-corrected and accelerated bootstrap over seeds. p: Wilcoxon's signed-rank test against "
            f"random, after Holm's correction (of the best also twice that over its own comparisons); "
            f"* where below {ALPHA} and Friedman's test finds differences as a whole. "
            "Effect size: mean over standard deviation of the differences."
        )
    if _has_random(group):
        parts.append(
            "Labeling efficiency: labels random needs over those the strategy needs, to reach random's final accuracy; "
            "– where it never does, no error where it would not without one of the seeds."
        )
    return " ".join(parts)


def _seeds_said(group: Group) -> list[str]:
    seeds = seed_ranges(group.results[0].seeds)
    if len(group.results) == 1:
        parts = [f"Seeds {seeds}."]
    elif group.shared:
        parts = [f"Only seeds {seeds} count, which all strategies share."]
    else:
        parts = ["The strategies share fewer than two seeds, so each is shown on its own: means are not of the same."]
    left_out = group.left_out.items()
    return parts + [f"Not counted: seeds {seed_ranges(seeds)} of {', '.join(labels)}." for seeds, labels in left_out]


def pairs_table(group: Group, comparison: Comparison) -> Table | None:
    """Differences of mean AUBC of every two of the named strategies; the CSV has those of all."""
    claims, labels = comparison.claims, comparison.labels
    if claims is None:
        return None
    shown = [labels.index(result.label) for result in named(group)]
    marked = claims.claimed(claims.pairs, claims.signs) != 0
    cells = [[_cell(comparison, marked, i, j) for j in shown] for i in shown]
    names = [labels[i] for i in shown]
    numbers = [
        {
            "row": labels[i],
            "column": labels[j],
            "difference": comparison.differences[i, j],
            "p": claims.p[i, j],
            "p_holm": claims.pairs[i, j],
            "significant": bool(marked[i, j]),
        }
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j
    ]
    return Table(
        stem=f"{group.stem}/pairs",
        caption=f"AUBC of the row's strategy less that of the column's. * and colour: significant, p < {ALPHA} by "
        f"Wilcoxon's signed-rank test over {comparison.n_seeds} seeds after Holm's correction over all pairs of "
        f"{len(labels)} strategies, and Friedman's test finds differences as a whole ({said_p(claims.omnibus)}).",
        said=pd.DataFrame(cells, index=pd.Index(names, name="AUBC, row less column"), columns=names),
        numbers=pd.DataFrame(numbers),
    )


def _cell(comparison: Comparison, marked: np.ndarray, i: int, j: int) -> str:
    return "" if i == j else said(comparison.differences[i, j], sign=True) + MARK * bool(marked[i, j])


def summary_table(groups: Sequence[Group], comparisons: Mapping[str, Comparison]) -> Table:
    """AUBC and seconds of all strategies in every group; as numbers all columns of `results_table`, and settings."""
    labels = list(dict.fromkeys(result.label for group in groups for result in group.results))
    headers, columns = [], []
    for group, name in zip(groups, group_names(groups), strict=True):
        found = {result.label: result for result in group.results}
        headers += [f"{name}, {group.n_seeds}", "s"]
        columns.append([said_estimate(found[label].aubc) if label in found else "–" for label in labels])
        columns.append([f"{found[label].seconds:.1f}" if label in found else "–" for label in labels])
    cells = [list(row) for row in zip(*columns, strict=True)]
    rows = [
        {"group": group.stem, **_flat(group.settings), **row}
        for group in groups
        for row in _result_numbers(group, comparisons[group.stem])
    ]
    return Table(
        stem="report",
        caption="AUBC, mean ± standard error over seeds, and seconds per run.",
        said=pd.DataFrame(cells, index=pd.Index(labels, name="AUBC"), columns=headers),
        numbers=pd.DataFrame(rows),
    )


def group_names(groups: Sequence[Group]) -> list[str]:
    """Titles; with what their budgets are where several have one title."""
    titles = [group.title for group in groups]
    return [
        title if titles.count(title) == 1 else f"{title}, {group.results[0].budget[-1]} labels"
        for title, group in zip(titles, groups, strict=True)
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: canonical_json(value) if isinstance(value, dict) else value for name, value in settings.items()}
