"""Strategies over many settings: ranks with Nemenyi's critical difference, and BADGE's matrix of wins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pipeline.paired import ALPHA, DECIMALS, friedman_p, wilcoxon_p
from pipeline.results import Group, Result

SATURATED = 0.99
"""Share of random's final accuracy after which BADGE no longer compares."""


@dataclass(frozen=True, kw_only=True)
class CriticalDifference:
    """What a critical-difference diagram shows.

    labels, ranks : lowest mean rank first, 1 is best
    p : Friedman's test over the blocks; of two strategies Wilcoxon's
    difference : mean ranks at least so far apart differ significantly (Nemenyi's test)
    cliques : maximal runs of at least two labels, none of them so far apart; all labels where p is not below ALPHA
    n_blocks : seeds, or settings
    """

    labels: tuple[str, ...]
    ranks: tuple[float, ...]
    p: float
    difference: float
    cliques: tuple[tuple[str, ...], ...]
    n_blocks: int


def critical_difference(values: Float[np.ndarray, "blocks k"], labels: Sequence[str]) -> CriticalDifference:
    """Ranks of at least two strategies within at least two blocks.

    values : higher is better, AUBC for example; `seed_blocks` and `group_blocks` give them
    Source: Demsar 2006, Journal of Machine Learning Research 7, section 3.2.2. Without a rejected Friedman test there
    is no post-hoc test: all strategies are then one clique.
    """
    from scipy.stats import rankdata, studentized_range

    n, k = values.shape
    ranks = rankdata(-values.round(DECIMALS), axis=1).mean(axis=0)
    order = np.argsort(ranks, kind="stable")
    p = friedman_p(values) if k > 2 else float(wilcoxon_p(values[:, :1] - values[:, 1:])[0])
    quantile = float(studentized_range.ppf(1 - ALPHA, k, np.inf)) / 2**0.5
    difference = quantile * (k * (k + 1) / (6 * n)) ** 0.5
    ordered = tuple(labels[place] for place in order)
    runs = _runs(ranks[order], difference) if p < ALPHA else [(0, k)]
    return CriticalDifference(
        labels=ordered,
        ranks=tuple(ranks[order].tolist()),
        p=p,
        difference=difference,
        cliques=tuple(ordered[start:stop] for start, stop in runs),
        n_blocks=n,
    )


def _runs(ranks: Float[np.ndarray, "k"], difference: float) -> list[tuple[int, int]]:
    """(start, stop) of the maximal runs of two or more sorted ranks less than a difference apart."""
    # relative slack: the ranks are sums of 1/n, so that a gap of exactly the difference may come out below it
    stops = [int((ranks - rank < difference * (1 - 1e-12)).sum()) for rank in ranks]
    return [
        (start, stop)
        for start, stop in enumerate(stops)
        if stop - start > 1 and (start == 0 or stop > stops[start - 1])
    ]


def seed_blocks(group: Group) -> tuple[Float[np.ndarray, "seeds k"], list[str]]:
    """AUBC by seed, of a group whose strategies share seeds."""
    return np.stack([result.accuracy.mean(axis=1) for result in group.results], axis=1), labels_of([group])


def group_blocks(groups: Sequence[Group]) -> tuple[Float[np.ndarray, "groups k"], list[str]]:
    """Mean AUBC by group, of the strategies that all groups have."""
    labels = labels_of(groups)
    found = [{result.label: result.aubc.mean for result in group.results} for group in groups]
    return np.array([[by_label[label] for label in labels] for by_label in found]).reshape(len(groups), -1), labels


def labels_of(groups: Sequence[Group]) -> list[str]:
    """Labels of the strategies that all groups have, in the first group's order.

    Labels name parameters only where variants of a strategy are in one group: `make runs` shows those of each run.
    """
    common = set.intersection(*({result.label for result in group.results} for group in groups))
    return [result.label for result in groups[0].results if result.label in common]


@dataclass(frozen=True, kw_only=True)
class Wins:
    """BADGE's matrix. matrix : row beats column, in settings; n_settings : its largest possible entry"""

    labels: tuple[str, ...]
    matrix: Float[np.ndarray, "k k"]
    n_settings: int

    @property
    def losses(self) -> Float[np.ndarray, "k"]:
        """The bottom row: mean over the others of how often each is beaten; lowest is best."""
        return self.matrix.sum(axis=0) / max(1, len(self.labels) - 1)


def wins(groups: Sequence[Group]) -> Wins:
    """How often each strategy significantly beats each other, over settings and budgets.

    Every group with shared seeds is a setting of weight 1, divided equally over its budgets. At a budget, i beats j
    where its mean accuracy is higher and the two-sided paired t-test over seeds has p < 0.05, uncorrected as in the
    paper (with its 5 seeds, t > 2.776): of equal strategies each entry is expected to be 0.025 of the settings.
    Deviations: as many seeds as there are; only strategies that all groups have; the bottom row is the mean over the
    k - 1 others, not over k with the strategy itself. Constant differences, which have no t, are wins where not 0.
    Source: Ash et al. 2020 (BADGE), section 5, pairwise comparisons.
    """
    settings = [group for group in groups if group.shared]
    labels = labels_of(settings) if settings else []
    matrix = np.zeros((len(labels), len(labels)))
    for group in settings:
        by_label = {result.label: result for result in group.results}
        accuracy = np.stack([by_label[label].accuracy for label in labels])
        rounds = badge_rounds(group)
        matrix += np.mean([_beats(accuracy[:, :, place]) for place in rounds], axis=0)
    return Wins(labels=tuple(labels), matrix=matrix, n_settings=len(settings))


def badge_rounds(group: Group) -> list[int]:
    """Places of the budgets initial + 2^(m-1) batches, m = 1, 2, ... while 2^m batches are not past saturation.

    Saturation is where random first reaches 99% of its final accuracy; without random the end. The first budget is
    always among them, and of a group of a single round that round.
    """
    n_rounds = len(group.results[0].budget)
    random = next((result for result in group.results if result.label == "random"), None)
    last = _saturation(random) if random else n_rounds - 1
    rounds = [2 ** (m - 1) for m in range(1, max(2, last.bit_length()))]
    return [min(place, n_rounds - 1) for place in rounds]


def _saturation(random: Result) -> int:
    mean = random.accuracy.mean(axis=0)
    return int(np.argmax(mean >= SATURATED * mean[-1]))


def _beats(accuracy: Float[np.ndarray, "k seeds"]) -> Bool[np.ndarray, "k k"]:
    """Whether row beats column."""
    from scipy.stats import t

    difference = (accuracy[:, None] - accuracy).round(DECIMALS)
    n = accuracy.shape[1]
    error = difference.std(axis=2, ddof=1) / n**0.5
    return np.asarray(difference.mean(axis=2) > float(t.ppf(1 - ALPHA / 2, n - 1)) * error)
