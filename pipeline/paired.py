"""Tests of strategies on the same seeds: differences, intervals, p values, and how many seeds they take."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.results import Estimate

ALPHA = 0.05
"""Of all tests after Holm's correction, and of the share of grids of equal strategies of which anything is claimed."""
GATE = 0.025
"""What the omnibus test must fall below before anything is claimed: half of ALPHA, so that the share of false claims
is below ALPHA with room to spare, not at it (two strategies have one p, and no other test that guards it)."""
POWER = 0.8
RESAMPLES = 9999
DECIMALS = 12
"""Differences are rounded to so many, so that rounding noise neither breaks a tie nor counts as a difference."""
WILCOXON_EFFICIENCY = 3 / np.pi
"""Asymptotic relative efficiency of Wilcoxon's test against the t-test, of normal differences. Lehmann 1975, 2.4."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One strategy less another on the same seeds.

    difference : mean of the AUBC's differences and its standard error
    interval : of the mean difference, 95%, bias-corrected and accelerated bootstrap over seeds (Efron 1987); None of
        fewer than two seeds
    effect : Cohen's d_z, mean over standard deviation of the differences; None where the latter is none or 0
    rank_biserial : share of the ranks that favour the first less those that favour the second (Kerby 2014)
    p : Wilcoxon's signed-rank test, two-sided; 1 where all differences are 0, None of fewer than two seeds
    n : seeds
    """

    difference: Estimate
    interval: tuple[float, float] | None
    effect: float | None
    rank_biserial: float | None
    p: float | None
    n: int


def paired(a: Float[np.ndarray, "seeds"], b: Float[np.ndarray, "seeds"]) -> Paired:
    """a less b, the AUBCs of two strategies on the same seeds in the same order."""
    return paired_columns((np.asarray(a, dtype=float) - b)[:, None])[0]


def paired_columns(differences: Float[np.ndarray, "seeds m"]) -> list[Paired]:
    """One per column of differences."""
    n = len(differences)
    if n < 2:
        return [
            Paired(difference=Estimate.of(d), interval=None, effect=None, rank_biserial=None, p=None, n=n)
            for d in differences.T
        ]
    intervals = _bootstrap(differences)
    return [
        Paired(difference=Estimate.of(d), interval=interval, effect=_effect(d), rank_biserial=_biserial(d), p=p, n=n)
        for d, interval, p in zip(differences.T, intervals, wilcoxon_p(differences).tolist(), strict=True)
    ]


def _effect(d: Float[np.ndarray, "seeds"]) -> float | None:
    deviation = float(np.std(d, ddof=1))
    return float(d.mean()) / deviation if deviation > 10.0**-DECIMALS else None


def _biserial(d: Float[np.ndarray, "seeds"]) -> float | None:
    from scipy.stats import rankdata

    rounded = d.round(DECIMALS)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return None
    ranks = rankdata(np.abs(rounded))
    return float((ranks * np.sign(rounded)).sum() / ranks.sum())


def _bootstrap(differences: Float[np.ndarray, "seeds m"]) -> list[tuple[float, float]]:
    """BCa intervals of each column's mean; of equal differences that value. Seeded: the same every time."""
    from scipy.stats import bootstrap

    rounded = differences.round(DECIMALS)
    varies = (rounded != rounded[:1]).any(axis=0)
    low, high = rounded[0].copy(), rounded[0].copy()
    if varies.any():
        found = bootstrap(
            (differences[:, varies],), np.mean, axis=0, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
        low[varies], high[varies] = found
    return list(zip(low.tolist(), high.tolist(), strict=True))


def seeds_needed(pair: Paired, alpha: float = ALPHA) -> int | None:
    """Seeds for power 0.8 of the two-sided Wilcoxon test, if the true effect is the one seen; None where that is 0.

    Those of the paired t-test, by the noncentral t, over the efficiency of Wilcoxon's test: Lehmann 1975, as G*Power's
    "A.R.E. method". The effect seen is itself an estimate, and where it was picked for being large, too large a one.
    """
    from scipy.stats import nct, t

    effect = abs(pair.effect or 0)
    if effect == 0:
        return None

    def power(n: int) -> float:
        critical = t.ppf(1 - alpha / 2, n - 1)
        noncentrality = effect * n**0.5
        return float(nct.sf(critical, n - 1, noncentrality) + nct.cdf(-critical, n - 1, noncentrality))

    low, high = 1, 2
    while power(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    return max(int(np.ceil(high / WILCOXON_EFFICIENCY)), least_seeds(1))


def least_seeds(family: int) -> int:
    """The fewest with which Wilcoxon's smallest p, 2 / 2^n, is below ALPHA after correction over a family.

    Of a single comparison, which is its own omnibus test, below GATE.
    """
    level = GATE if family == 1 else ALPHA / family
    return next(n for n in range(2, 100) if 2 / 2**n < level)


def wilcoxon_p(differences: Float[np.ndarray, "seeds m"]) -> Float[np.ndarray, "m"]:
    """Two-sided p of Wilcoxon's signed-rank test of each column; 1 where all differences are 0.

    Exact up to 50 seeds without ties and up to 13 with them, else the normal approximation (scipy's choice, which it
    makes for all columns together: those with ties are therefore handed over one by one).
    """
    from scipy.stats import wilcoxon

    rounded = differences.round(DECIMALS)
    ordered = np.sort(np.abs(rounded), axis=0)
    tied = (ordered[0] == 0) | (np.diff(ordered, axis=0) == 0).any(axis=0)
    p = np.ones(differences.shape[1])
    if not tied.all():
        p[~tied] = wilcoxon(rounded[:, ~tied], axis=0).pvalue
    for column in np.flatnonzero(tied & rounded.any(axis=0)):
        p[column] = wilcoxon(rounded[:, column]).pvalue
    return p


def friedman_p(values: Float[np.ndarray, "blocks k"]) -> float:
    """p of Friedman's test (Friedman 1937) of at least three strategies; 1 where all are tied in every block."""
    from scipy.stats import friedmanchisquare

    rounded = values.round(DECIMALS)
    if (rounded == rounded[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*rounded.T).pvalue)


def holm(p: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Adjusted p values: step i of m multiplies the i-th smallest by m - i + 1, and none is below its forerunner's.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
