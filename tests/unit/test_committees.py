"""What committees say, against plain loops over members, images and classes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax

from stages.al import view as view_module
from stages.al.committee import Opinions, members_opinions, opinions_of, views_opinions
from stages.al.heads import HEADS
from stages.al.heads.members import Members
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.bald import BALD
from tests.conftest import make_view

NAMES = ["bald", "dbal", "mc_entropy", "mc_margin"]


def entropy_by_hand(p: np.ndarray) -> float:
    return -sum(float(x) * math.log(x) for x in p if x > 0)


def margin_by_hand(p: np.ndarray) -> float:
    top = sorted(p.tolist(), reverse=True)
    return top[0] - top[1]


BY_HAND: dict[str, Callable[[np.ndarray], float]] = {
    "bald": lambda proba: entropy_by_hand(proba.mean(axis=0)) - float(np.mean([entropy_by_hand(p) for p in proba])),
    "dbal": lambda proba: entropy_by_hand(proba.mean(axis=0)),
    "mc_entropy": lambda proba: float(np.mean([entropy_by_hand(p) for p in proba])),
    "mc_margin": lambda proba: float(np.mean([1 - margin_by_hand(p) for p in proba])),
}
"""Scores of an image from what the members say of it (members, classes)."""


def scores_by_hand(name: str, logits: np.ndarray) -> np.ndarray:
    return np.array([BY_HAND[name](softmax(image, axis=1)) for image in logits.transpose(1, 0, 2)])


def measured(name: str, opinions: Opinions) -> np.ndarray:
    return STRATEGIES.get(name).measure(opinions)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["dropout", "bootstrap"])
def test_the_highest_scores_are_queried(name: str, kind: str, tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(10))
    strategy = STRATEGIES.build(f"{name}:kind={kind}:members=6:rate=0.3")
    committee = view.members(strategy.kind, 6, 0.3, np.random.default_rng(4))
    scores = scores_by_hand(name, committee.logits(view.features.astype(np.float64)))
    queried = strategy.query(view, 6, np.random.default_rng(4))
    assert queried.tolist() == view.candidates[np.argsort(-scores)[:6]].tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.1, 3, 60])
@pytest.mark.parametrize(("n_members", "n_classes"), [(2, 2), (7, 5), (3, 130)])
def test_the_compiled_opinions_are_the_plain_ones(
    name: str, scale: float, n_members: int, n_classes: int, rng: np.random.Generator
) -> None:
    members = Members(
        scale * rng.normal(size=(n_members, 6, n_classes)), scale * rng.normal(size=(n_members, n_classes))
    )
    members.weights[0, :, 1], members.constants[0, 1] = members.weights[0, :, 0], members.constants[0, 0]  # a tie
    X, rows = rng.normal(size=(700, 6)), rng.permutation(700)[:600]
    expected = scores_by_hand(name, members.logits(X[rows]))
    np.testing.assert_allclose(measured(name, opinions_of(members.logits(X[rows]))), expected, atol=1e-12)
    found = measured(name, members_opinions(members, X.astype(np.float32), rows))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * max(3, scale * n_classes**0.5))


def test_what_sure_members_say_keeps_its_digits() -> None:
    members = Members(np.zeros((2, 1, 3)), np.array([[0, -30, -31], [0, -35, -36.0]]))
    found = members_opinions(members, np.zeros((3, 1), np.float32), np.arange(3))
    expected = opinions_of(members.logits(np.zeros((3, 1))))
    for name in ("entropy", "least_confidence", "closeness"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)


def test_one_class_leaves_nothing_to_say(rng: np.random.Generator) -> None:
    members = Members(rng.normal(size=(4, 3, 1)), rng.normal(size=(4, 1)))
    X = rng.normal(size=(5, 3)).astype(np.float32)
    for opinions in (members_opinions(members, X, np.arange(5)), opinions_of(members.logits(X))):
        for part in opinions:
            np.testing.assert_allclose(part, 0, atol=1e-7)


def test_agreeing_members_leave_no_mutual_information() -> None:
    logits = np.repeat(np.array([[[0.0, 1, 2], [0, 700, -700], [5, 5, 5]]]), 9, axis=0)
    np.testing.assert_allclose(BALD.measure(opinions_of(logits)), 0, atol=1e-12)
    opposed = np.array([[[800.0, 0]], [[0, 800.0]]])
    np.testing.assert_allclose(BALD.measure(opinions_of(opposed)), np.log(2))
    noise = Opinions(*np.array([[1.0], [1 + 1e-7], [0], [0]]))
    assert BALD.measure(noise).tolist() == [0]


def test_views_are_asked_like_members(tiny_pool: Pool) -> None:
    head = HEADS.build("ridge", n_classes=4).fit(tiny_pool.features[:10], tiny_pool.labels[:10])
    rows = np.arange(20, 90)
    found = views_opinions(head, tiny_pool.views, rows)
    expected = opinions_of(np.stack([head.logits(view[rows].astype(np.float64)) for view in tiny_pool.views]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_committees_are_asked_block_by_block(tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view(tiny_pool, np.arange(10))
    committee = view.members("dropout", 5, 0.5, np.random.default_rng(0))
    positions = np.array([3, 70, 9, 44])
    whole = view.exact_opinions(committee, positions)
    monkeypatch.setattr(view_module, "COMMITTEE_NUMBERS", 30)
    for one, other in zip(view.exact_opinions(committee, positions), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("spec", ["bald:members=1", "mc_margin:rate=1", "dbal:members=1001"])
def test_impossible_committees_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="members=.*rate="):
        STRATEGIES.build(spec)


def test_there_are_two_kinds_of_committees() -> None:
    with pytest.raises(ValueError, match="kind='jury' is not 'dropout' or 'bootstrap'"):
        STRATEGIES.build("bald:kind=jury")
