"""How many labels a strategy saves against random, and from which budget it beats it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.paired import GATE
from pipeline.results import Estimate, Group, Result

LEVELS = 50


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Labels random needs over those the strategy needs, to reach an accuracy; above 1 the strategy saves labels.

    accuracy : LEVELS of them, from the better of both starts to the lower of both tops
    ratio, error : at each of them; error is NaN of fewer than two shared seeds
    target : random's final accuracy
    at_target : the ratio there; None where the strategy never reaches it
    """

    accuracy: Float[np.ndarray, "levels"]
    ratio: Float[np.ndarray, "levels"]
    error: Float[np.ndarray, "levels"]
    target: float
    at_target: Estimate | None


def labeling_efficiency(group: Group, label: str) -> Efficiency | None:
    """Of a strategy against random on the seeds that both have; None where there are none.

    The paper: "the ratio of the minimum number of labeled images needed by random sampling divided by the minimum
    number of images needed by the investigated AL strategy, to reach a given accuracy". As its figure compares one
    curve a method, these are mean curves over seeds; the error is the jackknife's over seeds (Efron & Stein 1981),
    which unlike a mean of ratios by seed keeps that definition, and needs no seed to reach the accuracy by itself.
    Between two rounds the curve is a straight line. What is lost again still counts as reached: a curve is its running
    maximum, and on a plateau its first round counts. Accuracies that one of both never reaches have no ratio.
    Source: best-practices seed (000), A.12, figure 35.
    """
    curves = _curves(group, label)
    if curves is None:
        return None
    budget, ours, random = curves
    starts, tops = zip(*((mean[0], mean.max()) for mean in (ours.mean(axis=0), random.mean(axis=0))), strict=True)
    accuracy = np.linspace(max(starts), max(*starts, min(tops)), LEVELS)
    ratio, error = _jackknifed(budget, ours, random, accuracy)
    at_target = Estimate(mean=float(ratio[-1]), error=None if np.isnan(error[-1]) else float(error[-1]))
    return Efficiency(
        accuracy=accuracy,
        ratio=ratio[:-1],
        error=error[:-1],
        target=float(random.mean(axis=0)[-1]),
        at_target=None if np.isnan(ratio[-1]) else at_target,
    )


def _curves(group: Group, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Budget, and accuracies (seeds, rounds) of a strategy and of random on the seeds that both have."""
    by_label = {result.label: result for result in group.results}
    if "random" not in by_label:
        return None
    ours, random = by_label[label], by_label["random"]
    seeds = sorted(set(ours.seeds) & set(random.seeds))
    return (ours.budget, _of(ours, seeds), _of(random, seeds)) if seeds else None


def _of(result: Result, seeds: Sequence[int]) -> Float[np.ndarray, "seeds rounds"]:
    return result.accuracy[[result.seeds.index(seed) for seed in seeds]]


def _jackknifed(
    budget: Int[np.ndarray, "rounds"],
    ours: Float[np.ndarray, "seeds rounds"],
    random: Float[np.ndarray, "seeds rounds"],
    accuracy: Float[np.ndarray, "levels"],
) -> tuple[Float[np.ndarray, "levels+1"], Float[np.ndarray, "levels+1"]]:
    """Ratios of labels needed at each accuracy, last at random's final one, and their standard errors.

    NaN where a curve falls short, the error also where one without one of the seeds does.
    """

    def ratios(kept: Sequence[int]) -> Float[np.ndarray, "levels+1"]:
        ours_mean, random_mean = ours[kept].mean(axis=0), random[kept].mean(axis=0)
        wanted = np.append(accuracy, random_mean[-1])
        return np.asarray(labels_needed(budget, random_mean, wanted) / labels_needed(budget, ours_mean, wanted))

    n = len(ours)
    everything = list(range(n))
    if n < 2:
        return ratios(everything), np.full(len(accuracy) + 1, np.nan)
    left_out = np.stack([ratios([other for other in everything if other != seed]) for seed in everything])
    return ratios(everything), np.sqrt((n - 1) * left_out.var(axis=0))


def labels_needed(
    budget: Int[np.ndarray, "rounds"], curve: Float[np.ndarray, "rounds"], accuracy: Float[np.ndarray, "levels"]
) -> Float[np.ndarray, "levels"]:
    """Labels with which a curve, straight between rounds, first reaches each accuracy; NaN where it never does."""
    best = np.maximum.accumulate(curve)
    place = np.searchsorted(best, accuracy)
    reached = place < len(best)
    after = np.where(reached, place, 0)
    before = np.maximum(after - 1, 0)
    rise = best[after] - best[before]
    part = np.divide(accuracy - best[before], rise, out=np.ones(len(accuracy)), where=rise > 0)
    return np.where(reached, budget[before] + part * (budget[after] - budget[before]), np.nan)


def beats_random_from(group: Group, label: str) -> int | None:
    """The budget from which a strategy beats random, and stays ahead; None if it never does, or of fewer than 2 seeds.

    The paper names the budgets "above which the AL methods outperform Random sampling" and gives no rule. Here, of the
    paired differences over seeds: the first budget at which the mean is above its standard error, after the last at
    which it is below minus that; and from there to the end, the mean over the rounds must be above 0 in a two-sided
    paired t-test at GATE. The first part is where, the second is whether: without it every second pair of equal
    strategies has such a budget. A strategy that random catches up with at the end and passes therefore has none.
    Source: SSL-meets-AL seed (003), sections 5 and 6.
    """
    curves = _curves(group, label)
    if label == "random" or curves is None or len(curves[1]) < 2:
        return None
    budget, ours, random = curves
    start = _lead_starts(ours - random)
    return None if start is None else int(budget[start])


def _lead_starts(differences: Float[np.ndarray, "seeds rounds"]) -> int | None:
    from scipy.stats import t

    n = len(differences)
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / n**0.5
    behind = np.flatnonzero(mean < -error)
    first = behind[-1] + 1 if len(behind) else 0
    ahead = np.flatnonzero(mean[first:] > error[first:])
    if not len(ahead):
        return None
    start = int(first + ahead[0])
    rest = differences[:, start:].mean(axis=1)
    needed = float(t.ppf(1 - GATE / 2, n - 1)) * rest.std(ddof=1) / n**0.5
    return start if rest.mean() > needed else None


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """From where a strategy beats random in one group. budget, per_class : labels; None where it never does"""

    group: Group
    n_classes: int
    budget: int | None

    @property
    def dataset(self) -> str:
        return str(self.group.settings["dataset"])

    @property
    def per_class(self) -> float | None:
        return None if self.budget is None else self.budget / self.n_classes


@dataclass(frozen=True, kw_only=True)
class Law:
    """A strategy's samples-per-class law: labels per class = 10^intercept * classes^slope.

    thresholds : one per group that has the strategy and random
    correlation : Pearson's, of labels per class and number of classes, as in the paper
    slope, intercept, correlation : None unless thresholds were found on at least three data sets and two numbers of
        classes; the correlation also where all have the same labels per class
    """

    label: str
    thresholds: tuple[Threshold, ...]
    slope: float | None
    intercept: float | None
    correlation: float | None


def law(groups: Sequence[Group]) -> list[Law]:
    """Every strategy's, over all groups that have it and random; fitted by least squares in the logarithms.

    The paper's three points (CIFAR-10, CIFAR-100, Tiny ImageNet) have a correlation of 0.99.
    Source: SSL-meets-AL seed (003), section 6, figure 6.
    """
    with_random = [group for group in groups if any(result.label == "random" for result in group.results)]
    labels = dict.fromkeys(result.label for group in with_random for result in group.results)
    return [_law(label, with_random) for label in labels if label != "random"]


def _law(label: str, groups: Sequence[Group]) -> Law:
    from scipy.stats import linregress

    thresholds = tuple(
        Threshold(group=group, n_classes=n_classes(group), budget=beats_random_from(group, label))
        for group in groups
        if any(result.label == label for result in group.results)
    )
    found = [threshold for threshold in thresholds if threshold.per_class is not None]
    classes = np.array([threshold.n_classes for threshold in found], dtype=float)
    if len({threshold.dataset for threshold in found}) < 3 or len(set(classes)) < 2:
        return Law(label=label, thresholds=thresholds, slope=None, intercept=None, correlation=None)
    per_class = np.array([threshold.per_class for threshold in found], dtype=float)
    fit = linregress(np.log10(classes), np.log10(per_class))
    varies = len(set(per_class)) > 1
    return Law(
        label=label,
        thresholds=thresholds,
        slope=float(fit.slope),
        intercept=float(fit.intercept),
        correlation=float(np.corrcoef(classes, per_class)[0, 1]) if varies else None,
    )


def n_classes(group: Group) -> int:
    return len(group.runs[0].record["classes"])
