"""Labels saved against random on curves whose answer is known by hand, and from where random is beaten."""

import numpy as np
import pytest

from pipeline.efficiency import beats_random_from, labeling_efficiency, labels_needed, law
from tests.unit.test_statistics import BUDGET, group_of, result_of


def test_labels_needed_by_hand():
    budget, curve = np.array([10, 20, 30, 40, 50]), np.array([0.2, 0.6, 0.5, 0.6, 0.8])
    needed = labels_needed(budget, curve, np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.81]))
    np.testing.assert_allclose(needed, [10, 10, 15, 20, 45, 50, np.nan])


def test_a_strategy_that_needs_half_the_labels_has_efficiency_two(rng):
    budget = np.arange(10, 101)
    levels = rng.uniform(0, 0.05, (5, 1))
    random, twice = levels + budget / 200, levels + np.minimum(2 * budget, 150) / 200
    found = labeling_efficiency(
        group_of(result_of("random", random, budget=budget), result_of("a", twice, budget=budget)), "a"
    )
    np.testing.assert_allclose(found.ratio, 2)
    np.testing.assert_allclose(found.error[1:-1], 0, atol=1e-9)
    assert found.accuracy[0] == twice.mean(axis=0)[0] and found.accuracy[-1] == random.mean(axis=0).max()
    assert found.target == random.mean(axis=0)[-1]
    assert found.at_target.mean == pytest.approx(2) and found.at_target.error == pytest.approx(0, abs=1e-9)


def test_the_error_is_the_jackknife_s(rng):
    curves = {name: np.sort(rng.random((4, 21)), axis=1) for name in ("random", "a")}
    group = group_of(*(result_of(name, curve) for name, curve in curves.items()))
    found = labeling_efficiency(group, "a")

    def first(name, kept, accuracy):
        """Labels by a walk over the rounds."""
        mean = curves[name][kept].mean(axis=0)
        place = next(i for i in range(21) if mean[i] >= accuracy)
        if place == 0:
            return BUDGET[0]
        return BUDGET[place] - (mean[place] - accuracy) / (mean[place] - mean[place - 1])

    for level in (5, 20, 35):
        accuracy = found.accuracy[level]
        folds = [[0, 1, 2, 3], [1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
        whole, *parts = (first("random", kept, accuracy) / first("a", kept, accuracy) for kept in folds)
        assert found.ratio[level] == pytest.approx(whole)
        assert found.error[level] == pytest.approx((3 / 4 * sum((x - np.mean(parts)) ** 2 for x in parts)) ** 0.5)


def test_what_never_reaches_random_s_accuracy_has_no_efficiency_there():
    random, worse = np.linspace(0.2, 0.8, 21), np.linspace(0.2, 0.6, 21)
    found = labeling_efficiency(group_of(result_of("random", [random]), result_of("a", [worse])), "a")
    assert found.at_target is None and found.accuracy[-1] == 0.6 and np.isnan(found.error).all()
    assert found.ratio[-1] == pytest.approx((10 + 20 * 2 / 3) / 30)
    only = group_of(result_of("a", [worse]))
    assert labeling_efficiency(only, "a") is None and beats_random_from(only, "a") is None
    apart = group_of(result_of("a", [worse] * 2, seeds=[0, 1]), result_of("random", [random] * 2, seeds=[2, 3]))
    assert labeling_efficiency(apart, "a") is None and beats_random_from(apart, "a") is None


def crossing(rng, lead, seeds=5):
    """Random, and a strategy that leads it by `lead` (rounds), with noise that both share and some that they do not."""
    shared = rng.normal(0.5, 0.05, (seeds, 1))
    random = shared + rng.normal(0, 0.001, (seeds, 21))
    return group_of(result_of("random", random), result_of("a", shared + rng.normal(0, 0.001, (seeds, 21)) + lead))


def test_the_budget_that_beats_random(rng):
    places = np.arange(21)
    assert beats_random_from(crossing(rng, np.where(places < 8, -0.02, 0.02)), "a") == BUDGET[8]
    assert beats_random_from(crossing(rng, np.full(21, 0.02)), "a") == BUDGET[0]
    assert beats_random_from(crossing(rng, np.where(places < 8, 0.02, -0.02)), "a") is None
    assert beats_random_from(crossing(rng, np.full(21, 0.02), seeds=1), "a") is None
    assert beats_random_from(crossing(rng, np.full(21, 0.02)), "random") is None


def test_a_dip_within_the_noise_is_no_loss(rng):
    group = crossing(rng, np.full(21, 0.02))
    noisy = next(result for result in group.results if result.label == "a").accuracy
    noisy[:, 12] = noisy[:, 12] - 0.02 + np.array([0.2, -0.1, 0.1, -0.2, -0.01])
    assert beats_random_from(group, "a") == BUDGET[0]


def test_equal_strategies_seldom_have_such_a_budget():
    """Curves whose noise is a random walk: the first half of the rule alone would let every second pair through."""
    rng = np.random.default_rng(0)
    found = [
        beats_random_from(
            group_of(*(result_of(name, rng.normal(0, 0.01, (5, 21)).cumsum(axis=1)) for name in names)), "a"
        )
        for names in [("random", "a")] * 200
    ]
    assert sum(budget is not None for budget in found) < 10


def test_the_law_is_fitted_where_there_are_three_data_sets(rng):
    """Labels per class = 0.1 * classes^0.5 by construction."""
    groups = []
    for n_classes in (4, 16, 64, 100):
        budget = np.arange(1, 101) * n_classes // 20
        start = int(np.argmax(budget >= 0.1 * n_classes**1.5))
        lead = np.where(np.arange(100) < start, -0.02, 0.02)
        random = rng.normal(0.5, 0.05, (5, 1)) + rng.normal(0, 1e-4, (5, 100))
        ours = random + lead + rng.normal(0, 1e-4, (5, 100))
        results = (result_of("random", random, budget=budget), result_of("a", ours, budget=budget))
        groups.append(group_of(*results, dataset=f"of {n_classes}", n_classes=n_classes))
    (found,) = law(groups)
    assert found.label == "a"
    for threshold in found.thresholds:
        assert threshold.per_class == threshold.budget / threshold.n_classes
        assert threshold.per_class == pytest.approx(0.1 * threshold.n_classes**0.5, rel=0.3)
    rows = [(threshold.n_classes, threshold.per_class) for threshold in found.thresholds]
    slope, intercept = np.polyfit(*np.log10(rows).T, 1)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert found.correlation == pytest.approx(np.corrcoef(np.transpose(rows))[0, 1])
    assert law(groups[:2])[0].slope is None and len(law(groups[:2])[0].thresholds) == 2
