"""A suggestion of real labels against the loop, which simulates them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cache.errors import InputError
from stages.al.heads import build_head
from stages.al.initial import initial_set
from stages.al.loop import INITIAL, Cell, run_active_learning
from stages.al.pool import Evaluation, Pool
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from stages.al.suggest import suggest

PROTOCOL = Protocol(initial="random", initial_size=12, batch_size=5, budget=17)


def hidden(pool: Pool, labeled: np.ndarray) -> Pool:
    """The pool with all other labels gone."""
    labels = np.full(len(pool), -1)
    labels[labeled] = pool.labels[labeled]
    return replace(pool, labels=labels)


@pytest.mark.parametrize("strategy", ["margin", "typiclust", "surrogate:shipped", "random", "badge"])
def test_it_is_what_the_loop_queries_after_the_same_labels(strategy: str, tiny_pool: Pool) -> None:
    images = Evaluation(tiny_pool.views[1], tiny_pool.labels)
    cell = Cell(strategy=STRATEGIES.build(strategy), seed=3)
    unfitted = build_head("ridge", tiny_pool.n_classes)
    (log,) = run_active_learning(tiny_pool, images, images, unfitted, PROTOCOL, [cell])
    labeled, expected = (row["queried"] for row in log.rounds)
    queried, _ = suggest(hidden(tiny_pool, labeled), unfitted, cell.strategy, 5, seed=3)
    assert queried.tolist() == expected.tolist()


BEGINNERS = [name for name in STRATEGIES if STRATEGIES.get(name).cold_start]


@pytest.mark.parametrize("strategy", BEGINNERS)
def test_without_labels_it_is_the_initial_set(strategy: str, tiny_pool: Pool) -> None:
    expected = initial_set(replace(PROTOCOL, initial=strategy), tiny_pool, np.random.default_rng([3, INITIAL]))
    nothing = hidden(tiny_pool, np.empty(0, dtype=int))
    queried, head = suggest(nothing, build_head("ridge", 4), STRATEGIES.build(strategy), 12, seed=3)
    assert queried.tolist() == expected.tolist()
    assert head is None
    one_class = suggest(replace(nothing, n_classes=1), build_head("ridge", 1), STRATEGIES.build(strategy), 12, seed=3)
    assert len(set(one_class[0].tolist())) == 12


@pytest.mark.parametrize("strategy", ["true_loss", "true_gain", "validation_loss_reduction"])
def test_what_only_a_simulation_knows_is_refused(strategy: str, tiny_pool: Pool) -> None:
    known = hidden(tiny_pool, np.arange(12))
    with pytest.raises(InputError, match=f"{strategy!r} is for simulations"):
        suggest(known, build_head("ridge", 4), STRATEGIES.build(strategy), 5, seed=0)


def test_hidden_labels_change_nothing(tiny_pool: Pool, make_pool: Callable[..., Pool]) -> None:
    labeled = np.arange(12)
    found = [
        suggest(hidden(pool, labeled), build_head("ridge", 4), STRATEGIES.build("surrogate:shipped"), 5, seed=0)[0]
        for pool in (tiny_pool, make_pool(tiny_pool.features, tiny_pool.labels, 4, "again"))
    ]
    assert found[0].tolist() == found[1].tolist()
    assert not set(found[0].tolist()) & set(labeled.tolist())
