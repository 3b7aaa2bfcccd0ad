"""Initial sets, budgets, and the variants of a pool."""

import numpy as np
import pytest

from cache.errors import InputError, UnknownNameError
from stages.al.heads import build_head
from stages.al.initial import INITIAL_SETS, initial_set, k_means_plus_plus, require_initial
from stages.al.loop import Cell, Evaluation, run_active_learning
from stages.al.protocol import Protocol, ProtocolConfig, count_of
from stages.al.strategies import STRATEGIES
from stages.al.strategies.typiclust import TypiClust
from stages.al.variants import evaluated_rows, long_tail_counts, parse_variant, variant_rows
from stages.al.view import Needs
from tests.conftest import make_view

SEEDED = sorted(set(INITIAL_SETS) - {"typical"})
HARD = {
    "duplicates": lambda rng: np.tile(rng.normal(size=(5, 6)), (8, 1)),
    "constant": lambda rng: np.ones((40, 6)),
    "far_scale": lambda rng: 1e4 * rng.normal(size=(40, 6)),
}


def drawn(name, pool, size=12, seed=0):
    return initial_set(Protocol(initial=name, initial_size=size), pool, np.random.default_rng([seed, 0]))


@pytest.mark.parametrize("size", [4, 12, 120])
@pytest.mark.parametrize("name", INITIAL_SETS)
def test_an_initial_set_is_distinct_of_its_size_and_repeatable(name, size, tiny_pool):
    first = drawn(name, tiny_pool, size)
    assert len(set(first.tolist())) == len(first) == size
    assert first.min() >= 0 and first.max() < len(tiny_pool)
    assert first.tolist() == drawn(name, tiny_pool, size).tolist()


@pytest.mark.parametrize("name", INITIAL_SETS)
@pytest.mark.parametrize("kind", HARD)
def test_copies_and_constants_do_not_break_an_initial_set(name, kind, make_pool, rng):
    pool = make_pool(HARD[kind](rng).astype(np.float32), np.arange(40) % 4, 4, kind)
    assert len(set(drawn(name, pool).tolist())) == 12


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_is_another_initial_set(name, tiny_pool):
    assert drawn(name, tiny_pool).tolist() != drawn(name, tiny_pool, seed=1).tolist()


@pytest.mark.parametrize("name", INITIAL_SETS)
def test_every_strategy_and_head_begins_with_the_same_initial_set(name, tiny_pool):
    data = Evaluation(tiny_pool.features[:30], tiny_pool.labels[:30])
    protocol = Protocol(initial=name, initial_size=6, budget=8)
    starts = set()
    for strategy, head in (("random", "ridge"), ("margin", "ridge"), ("coreset", "pinv"), ("typiclust", "ridge")):
        made = build_head(head, 4)
        cell = Cell(strategy=STRATEGIES.build(strategy), seed=3)
        (log,) = run_active_learning(tiny_pool, data, data, made, protocol, [cell])
        starts.add(tuple(log.rounds[0]["queried"].tolist()))
        assert [row["budget_spent"] for row in log.rounds] == [6, 7, 8]
    assert len(starts) == 1


def test_random_draws_are_those_of_before(tiny_pool):
    expected = np.random.default_rng([0, 0]).choice(len(tiny_pool), 12, replace=False)
    assert drawn("random", tiny_pool).tolist() == expected.tolist()


def test_one_per_class_has_every_class_evenly(tiny_pool, make_pool, rng):
    for size, counts in ((4, [1, 1, 1, 1]), (12, [3, 3, 3, 3]), (14, [3, 3, 4, 4])):
        found = np.bincount(tiny_pool.labels[drawn("one_per_class", tiny_pool, size)], minlength=4)
        assert sorted(found.tolist()) == counts
    rare = make_pool(rng.normal(size=(40, 3)).astype(np.float32), np.array([0, 0] + [1] * 38), 2, "rare")
    assert np.bincount(rare.labels[drawn("one_per_class", rare, 10)]).tolist() == [2, 8]
    with pytest.raises(InputError, match="initial_size=3 is less than the 4 classes"):
        drawn("one_per_class", tiny_pool, 3)


def test_kcenter_is_the_farthest_point_of_brute_force(tiny_pool):
    chosen = drawn("kcenter", tiny_pool)
    between = np.linalg.norm(tiny_pool.features[:, None] - tiny_pool.features[None], axis=2)
    for i in range(1, len(chosen)):
        assert chosen[i] == between[:, chosen[:i]].min(axis=1).argmax()


def test_kmeans_draws_by_squared_distance():
    """Points 0, 1 and 3 on a line: after the first centre the second follows with odds of its squared distance."""
    line = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    pairs = np.zeros((3, 3))
    for seed in range(3000):
        first, second = k_means_plus_plus(line, 2, np.random.default_rng(seed))
        pairs[first, second] += 1
    odds = (line - line.T) ** 2
    expected = odds / odds.sum(axis=1, keepdims=True) / 3
    assert np.abs(pairs / 3000 - expected).max() < 0.03


def test_typical_is_typiclusts_first_round(tiny_pool, rng):
    view = make_view(tiny_pool, np.empty(0, dtype=np.int64), allowed=frozenset(Needs))
    assert drawn("typical", tiny_pool).tolist() == TypiClust().query(view, 12, rng).tolist()
    clusters = tiny_pool.clusters(12)
    assert len(set(clusters[drawn("typical", tiny_pool)])) == 12


@pytest.mark.parametrize("name", [name for name in STRATEGIES if STRATEGIES.get(name).cold_start])
def test_a_strategy_that_needs_no_labels_may_begin(tiny_pool, name):
    first = drawn(name, tiny_pool)
    assert len(set(first.tolist())) == len(first) == 12
    assert first.tolist() == drawn(name, tiny_pool).tolist()


def test_a_strategy_that_needs_labels_says_so(tiny_pool):
    with pytest.raises(InputError, match=r"'margin' needs labels.*typiclust"):
        drawn("margin", tiny_pool)
    with pytest.raises(InputError, match="no parameter"):
        require_initial("typiclust:colour=red")


def test_an_unknown_initial_set_is_named(tiny_pool):
    with pytest.raises(UnknownNameError, match="did you mean 'kcenter'"):
        drawn("k_center", tiny_pool)
    with pytest.raises(InputError, match="more than the pool's 120"):
        drawn("random", tiny_pool, 121)


@pytest.mark.parametrize(("amount", "count"), [("210", 210), ("5%", 50), ("0.1%", 1), ("0.01%", 1), ("100%", 1000)])
def test_counts_and_percentages(amount, count):
    assert count_of("budget", amount, 1000) == count


@pytest.mark.parametrize("amount", ["", "five", "-1", "1.5", "0%", "101%", "%", "5 %", "1e2", "nan%"])
def test_what_is_no_count_is_said(amount):
    with pytest.raises(InputError, match="budget="):
        ProtocolConfig(budget=amount).check()


def test_a_percentage_is_resolved_on_the_pool():
    protocol = ProtocolConfig(initial_size="1%", budget="5%", batch_size=7).resolve(1000)
    assert (protocol.initial_size, protocol.budget, protocol.n_rounds(1000)) == (10, 50, 1 + 6)
    with pytest.raises(InputError, match="do not go together"):
        ProtocolConfig(initial_size="10%", budget="5%").resolve(1000)
    with pytest.raises(InputError, match="more than the pool's 5"):
        ProtocolConfig().resolve(5)


def test_cifar10_lt_has_the_counts_of_the_literature():
    kept = long_tail_counts(np.full(10, 5000), 50.0)
    assert kept.tolist() == [int(5000 * 50 ** (-c / 9) + 1e-9) for c in range(10)]
    assert kept.sum() == 13996 and kept[0] == 5000 and kept[-1] == 100


@pytest.mark.parametrize("factor", [1, 2, 10, 33.3])
def test_a_long_tail_has_exactly_the_counts_of_its_formula(factor, rng):
    labels = rng.choice(5, 2000, p=[0.15, 0.25, 0.2, 0.2, 0.2])
    counts = np.bincount(labels)
    rows = variant_rows(parse_variant(f"longtail:{factor}"), labels)
    found = np.bincount(labels[rows])
    largest = found[0]
    assert found.tolist() == [int(largest * factor ** (-c / 4) + 1e-9) for c in range(5)]
    more = [int((largest + 1) * factor ** (-c / 4) + 1e-9) for c in range(5)]
    assert any(np.array(more) > counts), "a larger one would have fitted"
    assert len(set(rows.tolist())) == len(rows)


def test_an_imbalanced_pool_has_the_long_tail_in_what_it_is_evaluated_on(rng):
    """Of many classes, too, of which validation has more or fewer images by chance, and one not at all."""
    labels = rng.permutation(np.repeat(np.arange(100), 50))
    held_out = rng.integers(1, 100, 1000)
    variant, long_tail = parse_variant("imbalanced:16"), parse_variant("longtail:16")
    rows = variant_rows(variant, labels)
    assert rows.tolist() == variant_rows(long_tail, labels).tolist()
    kept = evaluated_rows(variant, held_out, labels, labels[rows])
    assert (np.diff(kept) > 0).all()
    before, after = (np.bincount(part, minlength=100) for part in (held_out, held_out[kept]))
    share = np.bincount(labels[rows], minlength=100) / 50
    share /= share[1:].max()
    assert np.abs(after - np.maximum(before * share, 1))[1:].max() <= 0.5 + 1e-9 and after[0] == 0
    assert after[1:11].sum() > 5 * after[90:].sum()
    for other in (long_tail, parse_variant("subset:20")):
        assert evaluated_rows(other, held_out, labels, labels[rows]).tolist() == list(range(1000))
    assert variant.text(500) == "imbalanced:16"


def test_a_redundant_pool_is_copies_of_few_images(rng):
    labels = rng.integers(0, 3, 50)
    rows = variant_rows(parse_variant("redundant:4:12"), labels)
    assert len(rows) == 48 and len(set(rows.tolist())) == 12
    assert np.bincount(rows).max() == np.bincount(rows)[rows].min() == 4
    assert (rows.reshape(4, 12) == rows[:12]).all()
    assert parse_variant("redundant:4:20%").text(50) == "redundant:4:10"


def test_a_subset_is_stratified():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for text, counts in (("subset:10", [6, 3, 1]), ("subset:50%", [30, 15, 5]), ("subset:11", [7, 3, 1])):
        rows = variant_rows(parse_variant(text), labels)
        assert np.bincount(labels[rows], minlength=3).tolist() == counts
        assert len(set(rows.tolist())) == len(rows)
    assert parse_variant("subset:50%").text(100) == parse_variant("subset:50").text(100) == "subset:50"


@pytest.mark.parametrize("text", ["longtail:5", "imbalanced:5", "redundant:2:20", "subset:20"])
def test_a_variant_is_the_same_every_time(text):
    labels = np.arange(100) % 4
    some = labels[variant_rows(parse_variant(text), labels)]
    once, again = (evaluated_rows(parse_variant(text), labels, labels, some).tolist() for _ in range(2))
    assert once == again
    assert variant_rows(parse_variant(text), labels).tolist() == variant_rows(parse_variant(text), labels).tolist()


IMPOSSIBLE = (
    *(
        "",
        "longtail",
        "imbalanced",
        "imbalanced:0",
        "longtail:",
        "longtail:0.5",
        "longtail:nan",
        "longtail:inf",
        "longtail:x",
        "longtail:5:5",
    ),
    *("redundant:2", "redundant:1:10", "redundant:x:10", "redundant:2:x", "subset", "subset:0%", "subset:x", "whole:1"),
)


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_an_impossible_variant_is_said(text):
    with pytest.raises(InputError, match=r"longtail:50, imbalanced:50, redundant:20:6000"):
        parse_variant(text)


@pytest.mark.parametrize(
    "text", ["longtail:1000", "imbalanced:1000", "redundant:2:101", "redundant:2:0", "subset:101", "subset:0"]
)
def test_a_variant_that_the_pool_cannot_make_is_said(text):
    with pytest.raises(InputError, match="POOL="):
        variant_rows(parse_variant(text), np.arange(100) % 4)
