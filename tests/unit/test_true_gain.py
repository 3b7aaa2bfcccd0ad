"""The ablation that knows what labeling a candidate does, and the log of candidates."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from cache.errors import InputError
from stages.al.heads import HEADS
from stages.al.loop import Cell, candidate_rows, run_active_learning
from stages.al.pool import Evaluation, Pool
from stages.al.posterior import posterior_by, posterior_seeing_labels
from stages.al.protocol import CandidateLog, Protocol
from stages.al.strategies import STRATEGIES
from stages.al.view import Needs, PoolView
from tests.conftest import blobs, make_view


@pytest.fixture
def pool(make_pool: Callable[..., Pool], rng: np.random.Generator) -> Pool:
    features, labels = blobs(rng, n=80)
    return make_pool((features + 2 * rng.normal(size=features.shape)).astype(np.float32), labels, 4)


@pytest.fixture
def view(pool: Pool, rng: np.random.Generator) -> PoolView:
    """A round with ten labels and validation images of its own."""
    features, labels = blobs(np.random.default_rng(0), n=70)
    features = (features + 2 * rng.normal(size=features.shape)).astype(np.float32)
    return make_view(pool, np.arange(10), held_out=Evaluation(features, labels))


def refitted_measures(view: PoolView, image: int, label: int) -> dict[str, float]:
    """Accuracy and cross-entropy on the validation images with one more label, less those of before."""
    pool, images = view.pool, view.held_out
    rows = np.append(view.labeled, image)
    head = HEADS.build("ridge", n_classes=4).fit(pool.features[rows], np.append(view.labels, label))
    found: dict[str, float] = {}
    for sign, fitted in ((1, head), (-1, view.fitted_head)):
        logits = fitted.logits(images.features.astype(np.float64))
        losses = -log_softmax(logits, axis=1)[np.arange(len(images.labels)), images.labels]
        right = logits.argmax(axis=1) == images.labels
        for name, value in (("accuracy", right.mean()), ("cross_entropy", losses.mean())):
            found[name] = found.get(name, 0.0) + sign * float(value)
    return found


def knowledge(view: PoolView, posterior: str) -> np.ndarray:
    if posterior == "known":
        return np.eye(4)[view.pool.labels]
    if posterior == "pool":
        return posterior_seeing_labels(view.pool)
    head = view.fitted_head
    temperature = head.calibrated_temperature(view.pool.features[view.labeled], view.labels)
    return softmax(head.raw_logits(view.pool.features.astype(np.float64)) / temperature, axis=1)


def test_validation_loss_reduction_guesses_labels_by_the_validation_set(view: PoolView) -> None:
    proba = posterior_by(view.held_out, view.pool.features, 4)
    losses = [
        sum(proba[image, label] * refitted_measures(view, image, label)["cross_entropy"] for label in range(4))
        for image in view.candidates
    ]
    query = STRATEGIES.build("validation_loss_reduction").query(view, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(query, view.candidates[np.argsort(losses)[:5]])
    with pytest.raises(AttributeError, match="oracle"):
        replace(view, allowed=STRATEGIES.get("validation_loss_reduction").requires).oracle  # noqa: B018


@pytest.mark.parametrize("target", ["accuracy", "cross_entropy"])
@pytest.mark.parametrize("posterior", ["known", "pool", "head"])
def test_queries_what_refitting_says_is_best(target: str, posterior: str, view: PoolView) -> None:
    proba = knowledge(view, posterior)
    sign = 1 if target == "accuracy" else -1
    gains = np.array(
        [
            sign * sum(proba[image, label] * refitted_measures(view, image, label)[target] for label in range(4))
            for image in view.candidates
        ]
    )
    strategy = STRATEGIES.build(f"true_gain:target={target}:posterior={posterior}")
    queried = strategy.query(replace(view, allowed=strategy.requires), 5, np.random.default_rng(0))
    found = gains[np.searchsorted(view.candidates, queried)]
    np.testing.assert_allclose(found, np.sort(gains)[::-1][:5], atol=1e-6)


def test_ties_are_broken_at_random(view: PoolView) -> None:
    """Most labels change how many validation images are right by the same number."""
    few = replace(view, held_out=Evaluation(view.held_out.features[:3], view.held_out.labels[:3]))
    strategy = STRATEGIES.build("true_gain:target=accuracy")
    queried = {int(strategy.query(few, 1, np.random.default_rng(seed))[0]) for seed in range(20)}
    assert len(queried) > 5


def test_a_class_that_no_candidate_has(view: PoolView) -> None:
    waiting = view.candidates[view.pool.labels[view.candidates] != 2]
    few = replace(view, candidates=waiting, memo={})
    strategy = STRATEGIES.build("true_gain:target=accuracy")
    assert strategy.query(few, 1, np.random.default_rng(0))[0] in waiting


def test_scores_some_candidates(view: PoolView) -> None:
    strategy = STRATEGIES.build("true_gain:candidates=3")
    queried = {int(strategy.query(view, 1, np.random.default_rng(seed))[0]) for seed in range(20)}
    assert len(queried) > 3
    with pytest.raises(ValueError, match="candidates=0"):
        STRATEGIES.build("true_gain:candidates=0")
    for wrong in ("target=loss", "posterior=none"):
        with pytest.raises((InputError, ValueError), match=wrong.partition("=")[2]):
            STRATEGIES.build(f"true_gain:{wrong}")


def test_validation_images_are_for_those_who_declare_them(view: PoolView) -> None:
    declared = replace(view, allowed=frozenset({Needs.VALIDATION}))
    assert declared.validation is view.held_out
    with pytest.raises(AttributeError, match="validation.*without declaring"):
        _ = replace(view, allowed=frozenset(Needs) - {Needs.VALIDATION}).validation
    with pytest.raises(ValueError, match="no validation images"):
        _ = replace(view, held_out=None).validation


def rows_of(view: PoolView, **settings: Any) -> dict[str, np.ndarray]:
    waiting = np.ones(len(view.pool), dtype=bool)
    waiting[view.labeled] = False
    return candidate_rows(view, waiting, view.candidates[[3]], CandidateLog(**settings), np.random.default_rng(0))


def test_the_log_says_what_refitting_does(view: PoolView) -> None:
    rows = rows_of(view, log_images=1000)
    proba = posterior_seeing_labels(view.pool)
    for i, image in enumerate(view.candidates):
        known = refitted_measures(view, image, view.pool.labels[image])
        assert rows["accuracy_change"][i] == pytest.approx(known["accuracy"], abs=1e-6)
        assert rows["cross_entropy_change"][i] == pytest.approx(known["cross_entropy"], abs=2e-5)
    expected = np.zeros(len(view.candidates))
    images = view.pool.features.astype(np.float64)
    before = -(proba * log_softmax(view.fitted_head.logits(images), axis=1)).sum(axis=1).mean()
    for i, image in enumerate(view.candidates):
        for label in range(4):
            rows_ = np.append(view.labeled, image)
            head = HEADS.build("ridge", n_classes=4).fit(view.pool.features[rows_], np.append(view.labels, label))
            after = -(proba * log_softmax(head.logits(images), axis=1)).sum(axis=1).mean()
            expected[i] += proba[image, label] * (after - before)
    np.testing.assert_allclose(rows["expected_cross_entropy_change"], expected, atol=2e-5)
    assert rows["queried"].tolist() == [i == 3 for i in range(len(view.candidates))]


def test_the_log_draws_its_images_by_the_generator(view: PoolView) -> None:
    few, again, all_ = rows_of(view, log_images=40), rows_of(view, log_images=40), rows_of(view, log_images=1000)
    for name in ("cross_entropy_change", "later_cross_entropy_change", "expected_cross_entropy_change"):
        np.testing.assert_array_equal(few[name], again[name])
        assert not np.array_equal(few[name], all_[name])


def test_a_run_logs_every_column_and_queries_as_without(pool: Pool, view: PoolView) -> None:
    head, protocol = HEADS.build("ridge", n_classes=4), Protocol(budget=40, initial_size=5, batch_size=5)
    strategy = STRATEGIES.build("margin")
    logs = []
    for candidate_log in (None, CandidateLog(log_every=1, log_candidates=30)):
        cell = Cell(strategy=strategy, seed=0, candidate_log=candidate_log)
        logs += run_active_learning(pool, view.held_out, view.held_out, head, protocol, [cell])
    plain, logged = logs
    assert [row["queried"].tolist() for row in plain.rounds] == [row["queried"].tolist() for row in logged.rounds]
    assert len(logged.candidates) == 7
    for block in logged.candidates:
        changes = [values for name, values in block.items() if "change" in name]
        assert len(changes) == 7
        assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in changes)


@pytest.mark.parametrize("name", ["log_images", "log_later"])
def test_a_log_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=0"):
        CandidateLog(**{name: 0}).check()
