"""Which candidates the surrogate asks its model of."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from stages.al.signals import ranks
from stages.al.strategies.surrogate import proposed


@pytest.mark.parametrize("k", [1, 3, 59])
def test_what_an_input_or_a_pair_of_them_puts_first(k: int, rng: np.random.Generator) -> None:
    table = ranks(rng.normal(size=(60, 4))).astype(np.float32)
    expected: set[int] = set()
    for one, other in combinations_with_replacement(range(4), 2):
        height = [-np.log(1 - row[one]) - np.log(1 - row[other]) for row in table.astype(np.float64)]
        expected.update(np.argsort(height)[-k:].tolist())
    found = proposed(table, k)
    assert found.tolist() == sorted(expected)
    assert len(found) < 60 or k > 3


def test_ties_are_proposed_together_whatever_their_order(rng: np.random.Generator) -> None:
    values = np.column_stack([rng.integers(0, 4, 60), rng.normal(size=60)]).astype(float)
    table, order = ranks(values).astype(np.float32), rng.permutation(60)
    assert sorted(order[proposed(table[order], 1)]) == proposed(table, 1).tolist()
    assert set(np.flatnonzero(values[:, 0] == 3)) <= set(proposed(table, 1).tolist())


def test_all_where_there_is_no_choice_to_make(rng: np.random.Generator) -> None:
    assert proposed(ranks(rng.normal(size=(5, 3))).astype(np.float32), 5).tolist() == [0, 1, 2, 3, 4]
    assert proposed(np.empty((4, 0), np.float32), 1).tolist() == [0, 1, 2, 3]
