"""What recipes compare where a paper gives curves without numbers: strategies by its names, and what its prose says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import t

from cache.errors import InputError
from pipeline.papers.base import Bench, Beside, Row, Value
from pipeline.results import Group, Run, result_of
from pipeline.tables import Table
from pipeline.task import Task
from stages.al.protocol import ProtocolConfig

ALL = 1_000_000
"""Candidates a round: every unlabeled image."""
LEVEL = 0.05
"""Of the two-sided paired t test that calls a difference more than noise."""
RANDOM = "Random"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That some strategies are above or below others.

    quote : word for word, as the paper says it
    ahead, behind : strategies by their names, each side's mean
    above : whether the difference is said to be above 0, or below
    low, high : share of the pool labeled, of the rounds that it is about, `high` itself not among them
    """

    quote: str
    ahead: Sequence[str]
    behind: Sequence[str]
    above: bool = True
    low: float = 0.0
    high: float = np.inf

    @property
    def said(self) -> str:
        return f"{_listed(self.ahead)} − {_listed(self.behind)} {'>' if self.above else '<'} 0"

    def verdict(self, differences: Sequence[float]) -> str:
        """`yes`, `no`, or `open` where noise could be all of it: of one difference per seed."""
        value = Value.error(differences)
        ahead = value.mean if self.above else -value.mean
        if value.spread is None or abs(ahead) <= value.spread * t.ppf(1 - LEVEL / 2, len(differences) - 1):
            return "open"
        return "yes" if ahead > 0 else "no"


def named_group(
    bench: Bench,
    task: Task,
    head: str,
    strategies: Mapping[str, str],
    seeds: Sequence[int],
    protocol: ProtocolConfig,
    own: Collection[str] = (),
) -> Group:
    """Strategies by the paper's names, compared on the same seeds.

    own : names of those that choose the first labels too; the others begin with the protocol's initial set
    """
    together = {name: spec for name, spec in strategies.items() if name not in own}
    found = _runs(bench, task, head, together, seeds, protocol) if together else {}
    for name in own:
        begun = replace(protocol, initial=strategies[name])
        found |= _runs(bench, task, head, {name: strategies[name]}, seeds, begun)
    random = found.get(RANDOM, {})
    results = [result_of(name, found[name], set(seeds), random if name != RANDOM else {}) for name in strategies]
    runs = tuple(run for by_seed in found.values() for run in by_seed.values())
    ranked = sorted(results, key=lambda result: -result.aubc.mean)
    return Group(settings=runs[0].settings, runs=runs, results=tuple(ranked), shared=len(seeds) > 1)


def _runs(
    bench: Bench, task: Task, head: str, specs: Mapping[str, str], seeds: Sequence[int], protocol: ProtocolConfig
) -> dict[str, dict[int, Run]]:
    """The runs by name and seed."""
    runs = bench.group(task, head, list(specs.values()), seeds, protocol).runs
    cells = [(name, seed) for seed in seeds for name in specs]
    found: dict[str, dict[int, Run]] = {name: {} for name in specs}
    for (name, seed), run in zip(cells, runs, strict=True):
        found[name][seed] = run
    return found


def accuracy_of(group: Group, names: Sequence[str]) -> Float[np.ndarray, "seeds rounds"]:
    """The mean of some strategies."""
    by_name = {result.label: result.accuracy for result in group.results}
    return np.mean([by_name[name] for name in names], axis=0)


def shares(group: Group) -> Float[np.ndarray, rounds]:
    """Of the pool that is labeled after each round."""
    return np.asarray(group.results[0].budget / group.settings["n_pool"])


def differences(groups: Sequence[Group], claim: Claim, start: int = 0) -> list[float]:
    """By how much the claim's strategies differ on each seed, mean over its rounds of all groups; none without one.

    start : 1 leaves out the initial sets, where they are the same for all strategies
    """
    parts = [
        (accuracy_of(group, claim.ahead) - accuracy_of(group, claim.behind))[:, start:][
            :, about(claim, shares(group)[start:])
        ]
        for group in groups
    ]
    values = np.concatenate(parts, axis=1)
    return [float(value) for value in values.mean(axis=1)] if values.shape[1] else []


def about(claim: Claim, share: Float[np.ndarray, rounds]) -> Bool[np.ndarray, rounds]:
    """Rounds within the claim's budgets. 1e-9 : a percentage of a pool is rounded to whole images"""
    return np.asarray((share >= claim.low - 1e-9) & (share < claim.high - 1e-9))


def claims_table(
    stem: str, claims: Sequence[Claim], panels: Mapping[str, Mapping[Claim, Sequence[float]]], what: str
) -> Table:
    """A row per claim, a column per panel that it is about.

    panels : by their names, our differences by seed; what : that differs
    """
    said, numbers = [], []
    for claim in claims:
        cells = {name: values.get(claim, ()) for name, values in panels.items()}
        said.append([claim.said, *(_cell(claim, values) for values in cells.values())])
        numbers += [
            {"claim": claim.quote, "said": claim.said, "panel": name}
            | {"ours": (ours := Value.error(values)).mean, "ours_spread": ours.spread}
            | {"verdict": claim.verdict(values)}
            for name, values in cells.items()
            if values
        ]
    index = pd.Index([f"“{claim.quote}”" for claim in claims], name="The paper says")
    return Table(
        stem=stem,
        caption=f"What the text says of the figure, beside ours: differences of {what}, mean ± standard error over "
        f"seeds, and whether they say the same; open where p > {LEVEL:g}, two-sided paired t test.",
        said=pd.DataFrame(said, index=index, columns=["That is", *panels]),
        numbers=pd.DataFrame(numbers, columns=["claim", "said", "panel", "ours", "ours_spread", "verdict"]),
    )


def values_table(
    stem: str, caption: str, cells: Mapping[tuple[Row, str], Value], corner: str = "", digits: str = ".3f"
) -> Beside:
    """Ours alone, of a figure whose numbers the text does not have."""
    return Beside(
        stem=stem,
        caption=caption,
        corner=corner,
        rows=list(dict.fromkeys(row for row, _ in cells)),
        columns=list(dict.fromkeys(column for _, column in cells)),
        ours=cells,
        published={},
        digits=digits,
        best="highest",
    )


def check_places(bench: Bench, places: Sequence[str]) -> None:
    """Raises InputError for data sets, backbones and budgets that do not go with a paper of these data sets."""
    names, backbones = bench.datasets, bench.backbones
    if len(names) > len(places) or len(set(names)) < len(names):
        raise InputError(
            f"DATASET={','.join(names)}: give at most {len(places)} data sets, each once, in the places of "
            f"{', '.join(places)}"
        )
    if len(backbones) not in (1, len(names)):
        raise InputError(
            f"there are {len(names)} data sets and {len(backbones)} backbones: give BACKBONE= one for all, or one for "
            "each data set"
        )
    if bench.config.budget:
        raise InputError("this paper's budgets are multiples of its labels a round: leave BUDGET= out")


def backbone_of(bench: Bench, dataset: str) -> str:
    """The one for all data sets, or its own."""
    return bench.backbones[bench.datasets.index(dataset) if len(bench.backbones) > 1 else 0]


def short_name(dataset: str) -> str:
    """`cifar10` of `parquet:/data/cifar10?label=x`."""
    return dataset.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"


def _cell(claim: Claim, values: Sequence[float]) -> str:
    if not values:
        return "–"
    value = Value.error(values)
    spread = "" if value.spread is None else f" ± {value.spread:.3f}"
    return f"{Value(mean=value.mean).said('+.3f')}{spread}: {claim.verdict(values)}"
