"""Who wins, by how much, and whether it is luck: paired comparisons of a group's strategies. Pure numbers.

All tests are paired by seed: the runs of one seed share their initial set, validation images and random numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pipeline.paired import (
    ALPHA,
    DECIMALS,
    GATE,
    Paired,
    directions,
    friedman_p,
    holm,
    least_seeds,
    paired_columns,
    seeds_needed,
    wilcoxon_p,
)
from pipeline.results import Group, Result, sees_labels

MOST_SEEDS = 1000
"""More than these are not worth naming."""
PICKED = 2
"""Factor on Holm's p values against the best, which was picked after looking: else of two equal strategies above all
others one is called the winner in 4.9% of grids, and of five equal ones some is called worse than the best in 8%."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """A strategy less a reference. adjusted : p after Holm's correction; claim : "above", "below", or None: level"""

    paired: Paired
    adjusted: float
    claim: str | None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The tests of a group, without words. Indices are places in the group; matrices are row less column.

    omnibus : Friedman's p; of two strategies that of their pair
    ranks : mean over seeds, 1 is best
    p, pairs : Wilcoxon's p of every pair; Holm's correction of it over all pairs. 1 on the diagonal
    signs : 1 where row is above column both in the mean and in Wilcoxon's ranks, -1 below, 0 where the two disagree
    best : the highest mean AUBC of those that may win
    to_best, to_random : Holm's correction over the pairs with that one, times PICKED for the best, NaN at itself; None
        without random. The best and random, a pair of both families, has the larger p in both: one verdict
    """

    omnibus: float
    ranks: Float[np.ndarray, "k"]
    p: Float[np.ndarray, "k k"]
    pairs: Float[np.ndarray, "k k"]
    signs: Float[np.ndarray, "k k"]
    best: int
    to_best: Float[np.ndarray, "k"]
    to_random: Float[np.ndarray, "k"] | None

    @property
    def decided(self) -> bool:
        """Whether the strategies differ at all, without which nothing is claimed."""
        return self.omnibus < GATE

    @property
    def above(self) -> Bool[np.ndarray, "k k"]:
        """Whether row is claimed to be above column, in the family of all pairs."""
        return self.claimed(self.pairs, self.signs) > 0

    def claimed(self, adjusted: Float[np.ndarray, "*k"], signs: Float[np.ndarray, "*k"]) -> Float[np.ndarray, "*k"]:
        """The signs where p and direction support a claim, elsewhere 0."""
        return np.where(self.decided & (adjusted < ALPHA), signs, 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A group's strategies compared. Where nothing could be, `claims` is None, the rest empty, and `warning` says why.

    labels : the group's, highest AUBC first, as rows and columns of `claims`
    differences : of mean AUBC, row less column
    against_random, against_best : every other strategy less random, less `best`, by label
    best : the highest AUBC of those that may win: that see no label beyond the budget, nor were trained on these seeds
    winner : the best, where all others that may win are significantly below it
    level : the best and those that may win and are not significantly below it
    sentence : who wins, by how much, and whether it is luck
    warning : where there are too few seeds to claim anything of the best, how many it takes at least
    pairs_warning : the same of the matrix of all pairs, whose family is larger
    """

    labels: tuple[str, ...]
    n_seeds: int
    claims: Claims | None
    differences: Float[np.ndarray, "k k"]
    against_random: Mapping[str, Against]
    against_best: Mapping[str, Against]
    best: str | None
    winner: str | None
    level: tuple[str, ...]
    sentence: str
    warning: str | None
    pairs_warning: str | None


def compare(group: Group) -> Comparison:
    """Compare a group's strategies by AUBC on the seeds that they share.

    A claim of any kind needs three things: the omnibus test below GATE; the pair's p, after Holm's correction over its
    family, below ALPHA; mean and ranks that point the same way. Families: all others against random, all others
    against the best (times PICKED), all pairs.
    """
    reason = _incomparable(group)
    return _compared(group) if reason is None else _nothing(group, reason)


def _nothing(group: Group, reason: str) -> Comparison:
    labels = tuple(result.label for result in group.results)
    return Comparison(
        labels=labels,
        n_seeds=len(group.results[0].seeds) if group.shared else 0,
        claims=None,
        differences=np.full((len(labels), len(labels)), np.nan),
        against_random={},
        against_best={},
        best=None,
        winner=None,
        level=(),
        sentence=f"Nothing is claimed: {reason}",
        warning=reason,
        pairs_warning=reason,
    )


def _compared(group: Group) -> Comparison:
    labels = tuple(result.label for result in group.results)
    values = np.stack([result.accuracy.mean(axis=1) for result in group.results], axis=1)
    fair = np.array([may_win(result) for result in group.results])
    random = labels.index("random") if "random" in labels else None
    claims = claims_of(values, fair, random)
    best = labels[claims.best]
    against_best = _against(labels, values, claims, claims.best, claims.to_best)
    against_random = {}
    if random is not None and claims.to_random is not None:
        against_random = _against(labels, values, claims, random, claims.to_random)
    rivals = [label for label, fine in zip(labels, fair, strict=True) if fine and label != best]
    level = tuple(label for label in rivals if against_best[label].claim != "below")
    n, k = values.shape
    warning = _too_few(n, PICKED * (k - 1), f"the best of {k} strategies")
    return Comparison(
        labels=labels,
        n_seeds=n,
        claims=claims,
        differences=values.mean(axis=0)[:, None] - values.mean(axis=0),
        against_random=against_random,
        against_best=against_best,
        best=best,
        winner=best if rivals and not level else None,
        level=(best, *level),
        sentence=_sentence(best, rivals, level, against_best, claims, bool(warning)),
        warning=warning,
        pairs_warning=_too_few(n, k * (k - 1) // 2, f"any of all {k * (k - 1) // 2} pairs"),
    )


def may_win(result: Result) -> bool:
    """Whether it sees no label beyond its budget, and was not trained on the seeds that it is compared on."""
    return not (sees_labels(result) or set(result.seeds) & set(result.strategy.get("train_seeds") or ()))


def claims_of(values: Float[np.ndarray, "seeds k"], fair: Bool[np.ndarray, "k"], random: int | None = None) -> Claims:
    """The tests of at least two strategies on at least two seeds. fair : which may win, at least one"""
    from scipy.stats import rankdata

    k = values.shape[1]
    first, second = np.triu_indices(k, 1)
    p, pairs, signs = np.ones((k, k)), np.ones((k, k)), np.zeros((k, k))
    differences = values[:, first] - values[:, second]
    signs[first, second] = directions(differences)
    p[first, second] = p[second, first] = wilcoxon_p(differences)
    pairs[first, second] = pairs[second, first] = holm(p[first, second])
    best = int(np.where(fair, values.mean(axis=0), -np.inf).argmax())
    to_best = np.minimum(1, PICKED * _family(p, best))
    to_random = None if random is None else _family(p, random)
    if random is not None and to_random is not None and random != best:
        to_best[random] = to_random[best] = max(to_best[random], to_random[best])
    return Claims(
        omnibus=float(p[0, 1]) if k == 2 else friedman_p(values),
        ranks=rankdata(-values.round(DECIMALS), axis=1).mean(axis=0),
        p=p,
        pairs=pairs,
        signs=signs - signs.T,
        best=best,
        to_best=to_best,
        to_random=to_random,
    )


def _family(p: Float[np.ndarray, "k k"], reference: int) -> Float[np.ndarray, "k"]:
    """Holm's correction over the pairs with one strategy."""
    others = np.arange(len(p)) != reference
    adjusted = np.full(len(p), np.nan)
    adjusted[others] = holm(p[others, reference])
    return adjusted


def _against(
    labels: Sequence[str],
    values: Float[np.ndarray, "seeds k"],
    claims: Claims,
    reference: int,
    adjusted: Float[np.ndarray, "k"],
) -> dict[str, Against]:
    """Every other strategy less the reference."""
    others = [place for place in range(len(labels)) if place != reference]
    found = paired_columns(values[:, others] - values[:, [reference]])
    claimed = claims.claimed(adjusted, claims.signs[:, reference])
    return {
        labels[place]: Against(
            paired=pair,
            adjusted=float(adjusted[place]),
            claim={1: "above", -1: "below"}.get(int(claimed[place])),
        )
        for place, pair in zip(others, found, strict=True)
    }


def _incomparable(group: Group) -> str | None:
    """Why nothing can be compared."""
    if len(group.results) < 2:
        return f"only {group.results[0].label} was run: `make al STRATEGY=random,... SEEDS=10` runs others beside it"
    if not group.shared:
        return "the strategies share fewer than two seeds: `make al SEEDS=10` runs all of them on the same ten"
    if not any(may_win(result) for result in group.results):
        return "every strategy saw labels beyond its budget: `make al STRATEGY=random SEEDS=10` runs one that does not"
    return None


def _too_few(n: int, family: int, about: str) -> str | None:
    """What to say where no p of a family could be small enough."""
    least = least_seeds(family)
    if n >= least:
        return None
    return (
        f"{n} seeds are too few to claim anything about {about}: no p of Wilcoxon's test can then be below "
        f"{2 / 2**n:.2g}, before Holm's correction; it takes at least {least}, `make al SEEDS={least}`"
    )


def _sentence(
    best: str,
    rivals: Sequence[str],
    level: Sequence[str],
    against: Mapping[str, Against],
    claims: Claims,
    too_few: bool,
) -> str:
    if not rivals:
        return f"No winner: {best} is the only one that sees no label beyond its budget"
    pair = against[(level or rivals)[0]]
    n, gap = pair.paired.n, f"+{abs(pair.paired.difference.mean):.4f}"
    if not level:
        return (
            f"{best} wins: {gap} AUBC over the next ({rivals[0]}), {said_p(pair.adjusted)} after correction, {n} seeds"
        )
    more = f" and {len(level) - 1} more" if len(level) > 1 else ""
    if too_few:
        return f"No winner: {best} is first ({gap} AUBC over {level[0]}), but {n} seeds are too few to claim anything"
    needed = seeds_needed(pair.paired, ALPHA / (PICKED * len(level)))
    hope = f"; {said_seeds(needed)} seeds would tell them apart" if needed and needed > n else ""
    if not claims.decided:
        return (
            f"No winner: {best} is first ({gap} AUBC over {level[0]}), but the strategies do not differ as a whole "
            f"({said_p(claims.omnibus)}, {n} seeds){hope}"
        )
    return f"No winner: {best} is first, but level with {level[0]} ({gap}, {said_p(pair.adjusted)}){more}{hope}"


def said_p(p: float) -> str:
    """`p = 0.012`: three digits, and nothing below 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"


def said_seeds(n: int) -> str:
    return f"more than {MOST_SEEDS:,}" if n > MOST_SEEDS else f"some {n}"
