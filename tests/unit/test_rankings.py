"""Critical differences against Demsar's table; BADGE's wins against a plain recount."""

import numpy as np
import pytest
from scipy import stats

from pipeline.rankings import badge_rounds, critical_difference, group_blocks, seed_blocks, wins
from tests.unit.test_statistics import BUDGET, group_of, result_of


@pytest.mark.parametrize(("k", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_demsar_s(rng, k, quantile):
    """Demsar 2006, table 5(a)."""
    found = critical_difference(rng.random((14, k)), list(map(str, range(k))))
    assert found.difference == pytest.approx(quantile * (k * (k + 1) / (6 * 14)) ** 0.5, abs=2e-3)
    assert found.n_blocks == 14


def test_the_critical_difference_of_demsar_s_example():
    """Demsar 2006, section 3.2.2: four learners on 14 data sets, 1.25."""
    values = np.tile([0.4, 0.3, 0.2, 0.1], (14, 1))
    found = critical_difference(values, ["a", "b", "c", "d"])
    assert found.difference == pytest.approx(1.25, abs=0.01) and found.ranks == (1, 2, 3, 4)
    assert found.cliques == (("a", "b"), ("b", "c"), ("c", "d"))


def test_cliques_are_maximal_runs_and_need_a_rejected_test(rng):
    values = np.array([0.9, 0.89, 0.8, 0.5, 0.49]) + rng.normal(0, 0.01, (20, 5))
    found = critical_difference(values, list("abcde"))
    gaps = {(i, j): found.ranks[j] - found.ranks[i] < found.difference for i in range(5) for j in range(i + 1, 5)}
    maximal = [
        pair
        for pair, close in gaps.items()
        if close
        and not any(other != pair and gaps[other] and other[0] <= pair[0] and pair[1] <= other[1] for other in gaps)
    ]
    assert found.p < 0.05 and list(found.cliques) == [found.labels[i : j + 1] for i, j in maximal]
    equal = critical_difference(rng.random((6, 5)), list("abcde"))
    assert equal.p > 0.05 and equal.cliques == (equal.labels,)


def test_of_two_strategies_the_test_is_wilcoxon_s(rng):
    values = rng.random((9, 2)) + np.array([0, 0.4])
    assert critical_difference(values, "ab").p == stats.wilcoxon(*values.T).pvalue


def test_blocks_are_seeds_or_groups(rng):
    accuracy = rng.random((3, 5, 21))
    one = group_of(*(result_of(label, curves) for label, curves in zip("abc", accuracy, strict=True)))
    two = group_of(result_of("c", accuracy[0]), result_of("a", accuracy[1]))
    values, labels = seed_blocks(one)
    np.testing.assert_allclose(values, accuracy[["abc".index(label) for label in labels]].mean(axis=2).T)
    values, labels = group_blocks([one, two])
    expected = {"a": (accuracy[0].mean(), accuracy[1].mean()), "c": (accuracy[2].mean(), accuracy[0].mean())}
    np.testing.assert_allclose(values.T, [expected[label] for label in labels])
    assert sorted(labels) == ["a", "c"]


def test_badge_s_budgets_end_where_random_is_saturated():
    ramp = np.minimum(np.arange(21), 16) / 16
    random = group_of(result_of("random", [ramp, ramp]), result_of("margin", [ramp, ramp]))
    assert badge_rounds(random) == [1, 2, 4, 8]  # saturated at 16 batches: 2^m up to 16
    assert badge_rounds(group_of(result_of("margin", [ramp, ramp]))) == [1, 2, 4, 8]  # 20 batches
    assert badge_rounds(group_of(result_of("random", np.ones(2)))) == [1]
    assert badge_rounds(group_of(result_of("random", np.ones((2, 1)), budget=BUDGET[:1]))) == [0]


def test_wins_agree_with_a_recount(rng):
    groups = []
    for _ in range(3):
        curves = (
            rng.normal(0, 0.05, (4, 6, 21)) + np.linspace(0.2, 0.8, 21) + np.array([0, 0.03, 0.06, 0])[:, None, None]
        )
        names = ("random", "margin", "coreset", "bald")
        groups.append(group_of(*(result_of(name, curve) for name, curve in zip(names, curves, strict=True))))
    alone = group_of(*(result for result in groups[0].results if result.label != "bald"), shared=False)
    found = wins([*groups[:2], group_of(*(r for r in groups[2].results if r.label != "bald")), alone])
    assert set(found.labels) == {"random", "margin", "coreset"} and found.n_settings == 3
    expected = np.zeros((3, 3))
    for group in groups:
        by_label = {result.label: result.accuracy for result in group.results}
        for place in badge_rounds(group):
            for i, first in enumerate(found.labels):
                for j, second in enumerate(found.labels):
                    if i != j:
                        test = stats.ttest_rel(by_label[first][:, place], by_label[second][:, place])
                        expected[i, j] += (test.statistic > 0 and test.pvalue < 0.05) / len(badge_rounds(group))
    np.testing.assert_allclose(found.matrix, expected)
    assert expected.sum() > 0 and found.matrix.max() <= 3
    np.testing.assert_allclose(found.losses, expected.sum(axis=0) / 2)
    assert wins([alone]).labels == ()
