"""Who wins, and whether it is luck: scipy on the same arrays, planted winners and ties, and equal strategies."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from pipeline.paired import least_seeds, paired, seeds_needed
from pipeline.results import Estimate, Group, Result
from pipeline.statistics import claims_of, compare, holm

BUDGET = np.arange(10, 31)


def result_of(label, accuracy, seeds=None, budget=BUDGET, **strategy):
    """A result from accuracies (seeds, rounds), or from AUBCs, whose curves are flat."""
    accuracy = np.asarray(accuracy, dtype=float)
    if accuracy.ndim == 1:
        accuracy = np.repeat(accuracy[:, None], len(budget), axis=1)
    return Result(
        label=label,
        strategy={"name": label} | strategy,
        seeds=tuple(range(len(accuracy)) if seeds is None else seeds),
        left_out=(),
        budget=budget,
        accuracy=accuracy,
        aubc=Estimate.of(accuracy.mean(axis=1)),
        final=Estimate.of(accuracy[:, -1]),
        gain=None,
        seconds=1.0,
    )


def group_of(*results, shared=True, dataset="digits", n_classes=10):
    run = SimpleNamespace(record={"classes": list(map(str, range(n_classes)))})
    results = sorted(results, key=lambda result: -result.aubc.mean)
    return Group(settings={"dataset": dataset}, runs=(run,), results=tuple(results), shared=shared)


def equal(rng, n, k):
    """AUBCs of equal strategies: each seed's own level and independent noise."""
    return rng.normal(0.8, 0.02, (n, 1)) + rng.normal(0, 0.01, (n, k))


def grid(rng, n, gains):
    values = equal(rng, n, len(gains)) + list(gains.values())
    return group_of(*(result_of(label, column) for label, column in zip(gains, values.T, strict=True)))


@pytest.mark.parametrize("n", [2, 5, 12, 20, 60])
def test_a_pair_s_numbers_are_scipy_s(rng, n):
    a, b = rng.normal(0.8, 0.02, (2, n))
    pair = paired(a, b)
    assert pair.p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert pair.difference.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert pair.difference.error == pytest.approx(stats.sem(a - b))
    assert pair.effect == pytest.approx(stats.ttest_rel(a, b).statistic / n**0.5)
    above = sum(rank for rank, d in zip(stats.rankdata(abs(a - b)), a - b, strict=True) if d > 0)
    assert pair.rank_biserial == pytest.approx(2 * above / (n * (n + 1) / 2) - 1)
    low, high = pair.interval
    assert low <= pair.difference.mean <= high and pair.n == n
    assert paired(a, b) == pair and paired(b, a).p == pair.p


def test_an_interval_is_that_of_scipy_s_bootstrap(rng):
    d = rng.exponential(0.01, 15)
    expected = stats.bootstrap((d,), np.mean, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    np.testing.assert_allclose(paired(d, np.zeros(15)).interval, expected, rtol=0.03)


def test_rounding_noise_is_a_tie():
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    tied = paired(a + 1e-14 * np.arange(8), a)
    assert (tied.p, tied.effect, tied.rank_biserial, tied.interval) == (1.0, None, None, (0.0, 0.0))
    assert seeds_needed(tied) is None
    d = np.array([0.1, 0.1, -0.1, 0.2, 0.3, 0.2, 0.0, 0.4])
    assert paired(d + 1e-15 * np.arange(8), np.zeros(8)).p == stats.wilcoxon(d).pvalue
    constant = paired(a + 0.25, a)
    assert constant.effect is None and constant.p == 2 / 2**8 and constant.interval == (0.25, 0.25)


def test_of_one_seed_nothing_is_said():
    pair = paired(np.array([0.5]), np.array([0.25]))
    assert pair.difference == Estimate(mean=0.25, error=None)
    assert (pair.interval, pair.effect, pair.rank_biserial, pair.p, pair.n) == (None, None, None, None, 1)


def test_holm_is_the_step_down_procedure(rng):
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).shape == (0,)
    for _ in range(50):
        p = rng.choice(rng.random(6) ** 3, 8)
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.2, 0.6):
            rejected = set()
            for step, place in enumerate(np.argsort(p, kind="stable")):
                if p[place] > alpha / (len(p) - step):
                    break
                rejected.add(place)
            assert rejected == set(np.flatnonzero(adjusted <= alpha))


def test_the_tests_of_a_group_are_scipy_s(rng):
    group = grid(rng, 12, {"margin": 0.012, "random": 0, "coreset": -0.01})
    compared = compare(group)
    values = {result.label: result.accuracy.mean(axis=1) for result in group.results}
    claims, labels = compared.claims, list(values)
    assert claims.omnibus == pytest.approx(stats.friedmanchisquare(*values.values()).pvalue)
    assert claims.ranks.sum() == 6
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            expected = stats.wilcoxon(values[first], values[second]).pvalue if i != j else 1
            assert claims.p[i, j] == pytest.approx(expected)
            assert compared.differences[i, j] == pytest.approx(values[first].mean() - values[second].mean())
    margin, coreset = compared.against_random["margin"], compared.against_random["coreset"]
    p = {"margin": margin.paired.p, "coreset": coreset.paired.p}
    assert coreset.adjusted == pytest.approx(
        max(p["coreset"] * (1 + (p["coreset"] < p["margin"])), 2 * min(p.values()))
    )
    assert compared.against_best["random"].adjusted == margin.adjusted >= 2 * p["margin"]
    alone = paired(values["margin"], values["random"])
    assert (margin.paired.p, margin.paired.effect, margin.paired.n) == pytest.approx((alone.p, alone.effect, 12))
    assert margin.paired.interval == pytest.approx(alone.interval)


def test_a_planted_winner_is_claimed(rng):
    compared = compare(grid(rng, 12, {"random": 0, "margin": 0.03, "coreset": 0.01, "entropy": 0.009}))
    assert compared.winner == compared.best == "margin" and compared.level == ("margin",)
    assert compared.against_random["margin"].claim == "above"
    assert {against.claim for against in compared.against_best.values()} == {"below"}
    place = compared.labels.index("margin")
    assert compared.claims.above[place].sum() == 3 and not compared.claims.above[:, place].any()
    following = compared.labels[1]
    gap = -compared.against_best[following].paired.difference.mean
    assert compared.sentence.startswith(f"margin wins: +{gap:.4f} AUBC over the next ({following}), p = 0.00")
    assert compared.sentence.endswith("after correction, 12 seeds") and compared.warning is None


def test_a_planted_tie_is_not(rng):
    compared = compare(grid(rng, 12, {"random": 0, "margin": 0.03, "entropy": 0.03, "coreset": 0.01}))
    assert compared.winner is None and set(compared.level) == {"margin", "entropy"}
    assert compared.sentence.startswith(f"No winner: {compared.best} is first, but level with {compared.level[1]} (+0.")
    assert compared.against_random["entropy"].claim == "above"


def test_equal_strategies_are_said_not_to_differ(rng):
    compared = compare(grid(rng, 10, {"random": 0, "margin": 0, "coreset": 0}))
    assert compared.winner is None and len(compared.level) == 3
    assert "do not differ as a whole (p = 0." in compared.sentence
    assert compared.sentence.endswith(" seeds would tell them apart")


def test_identical_strategies_are_level():
    column = np.linspace(0.5, 0.6, 10)
    compared = compare(group_of(*(result_of(label, column) for label in ("random", "margin", "coreset"))))
    assert compared.claims.omnibus == 1 and (compared.claims.p == 1).all() and compared.winner is None
    assert f"{compared.best} is first (+0.0000 AUBC" in compared.sentence


def test_what_sees_more_labels_or_was_trained_on_the_seeds_cannot_win(rng):
    values = equal(rng, 10, 4) + np.array([0.06, 0.04, 0.02, 0])
    compared = compare(
        group_of(
            result_of("true_loss", values[:, 0]),
            result_of("surrogate", values[:, 1], train_seeds=[0, 1]),
            result_of("margin", values[:, 2]),
            result_of("random", values[:, 3]),
        )
    )
    assert compared.winner == "margin" and compared.level == ("margin",)
    assert compared.against_best["true_loss"].claim == compared.against_best["surrogate"].claim == "above"
    assert compared.against_random["true_loss"].claim == "above"
    assert "over the next (random)" in compared.sentence


def test_a_mean_and_ranks_that_disagree_claim_nothing():
    values = np.zeros((12, 2))
    values[:, 0] = -0.01 * np.arange(1, 13)
    values[0, 0] = 5
    claims = claims_of(values, np.array([True, True]))
    assert claims.p[0, 1] < 0.05 and not claims.above.any()


@pytest.mark.parametrize(("k", "least"), [(2, 7), (3, 8), (5, 9), (10, 10), (32, 12)])
def test_too_few_seeds_are_said_and_how_many_it_takes(rng, k, least):
    gains = {f"strategy_{place}": 0.1 * place for place in range(k)}
    compared = compare(grid(rng, least - 1, gains))
    assert compared.winner is None and compared.level == compared.labels
    assert f"it takes at least {least}, `make al SEEDS={least}`" in compared.warning
    assert compared.sentence.endswith(f"but {least - 1} seeds are too few to claim anything")
    enough = compare(grid(rng, least, gains))
    assert enough.warning is None and enough.winner == f"strategy_{k - 1}"


def test_least_seeds_is_the_fewest_with_which_wilcoxon_can_reject():
    for family in (2, 9, 45):
        n = least_seeds(family)
        assert stats.wilcoxon(np.arange(1, n + 1)).pvalue * family < 0.05
        assert stats.wilcoxon(np.arange(1, n)).pvalue * family >= 0.05
    compared = compare(grid(np.random.default_rng(0), 10, {f"strategy_{place}": 0.1 * place for place in range(10)}))
    assert compared.winner == "strategy_9" and not compared.claims.above.any()
    assert "10 seeds are too few to claim anything about any of all 45 pairs" in compared.pairs_warning


def test_the_seeds_needed_give_the_power(rng):
    d = np.array([0.0, 1.0, 2.0, -1.0, 0.5])
    d = (d - d.mean()) / d.std(ddof=1)
    pair = paired(d + 0.6, np.zeros(5))
    assert pair.effect == pytest.approx(0.6)
    needed = seeds_needed(pair)
    assert needed == 26  # the t-test takes 24 (Cohen 1988; G*Power), over 3 / pi
    samples = rng.normal(0.6, 1, (needed, 4000))
    assert (stats.wilcoxon(samples, axis=0).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    assert seeds_needed(paired(d + 1e-4, np.zeros(5))) > 10**8


def test_groups_that_cannot_be_compared_claim_nothing(rng):
    margin, random = (result_of(label, rng.random(5)) for label in ("margin", "random"))
    oracle = result_of("true_loss", rng.random(5))
    for group, said in (
        (group_of(margin, random, shared=False), "share fewer than two seeds"),
        (group_of(margin), "only margin was run"),
        (group_of(oracle, result_of("true_gain", rng.random(5))), "saw labels beyond its budget"),
    ):
        compared = compare(group)
        assert compared.claims is compared.winner is compared.best is None and not compared.level
        assert said in compared.warning and "`make al" in compared.warning
        assert compared.sentence == f"Nothing is claimed: {compared.warning}"


def test_of_two_equal_ones_above_the_others_neither_is_called_the_winner():
    rng = np.random.default_rng(1)
    won = 0
    for _ in range(200):
        claims = claims_of(equal(rng, 10, 5) + np.array([0, 0, -0.1, -0.1, -0.1]), np.ones(5, dtype=bool))
        won += claims.claimed(claims.to_best, claims.signs[:, claims.best])[:2].any()
    assert won / 200 < 0.05


@pytest.mark.parametrize(("k", "n"), [(2, 10), (5, 10), (10, 10), (10, 20)])
def test_of_equal_strategies_next_to_nothing_is_claimed(k, n):
    """Any claim: on the best, on random or on any pair. Of 3,000 grids each: 1.7, 1.6, 1.5 and 1.6%."""
    rng = np.random.default_rng([k, n])
    fair = np.ones(k, dtype=bool)
    false = 0
    for _ in range(200):
        claims = claims_of(equal(rng, n, k), fair, random=0)
        families = [(claims.to_best, claims.signs[:, claims.best]), (claims.to_random, claims.signs[:, 0])]
        false += any(claims.claimed(*family).any() for family in families) or claims.above.any()
    assert false / 200 < 0.05
