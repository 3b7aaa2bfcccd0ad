"""Returns of queries: by hand, against loops, and what is learned from runs in which an effect was planted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost

from cache.errors import CacheMismatchError
from cache.runs import RunStore, StoredRun
from stages.al.models import MODEL_FORMAT, load_models, read_manifest
from stages.al.signals import RANKS, ROUND
from stages.surrogate.returns import contributions, learn, mean_ahead, return_rows, returns, save, standing
from tests.files import tree

INPUTS = RANKS + ROUND
PLANTED = INPUTS.index("coverage_rank")
ROUNDS = 121


def stored_run(store: RunStore, name: str, effect: float) -> StoredRun:
    """A run that queries high or low coverage for a while, and back, and what its rank does to accuracy."""
    rng = np.random.default_rng(list(name.encode()))
    inputs = rng.random((ROUNDS - 1, len(INPUTS)), dtype=np.float32)
    phases = np.repeat(rng.random(ROUNDS // 20), 20)
    inputs[:, PLANTED] = np.clip(phases + 0.15 * rng.normal(size=ROUNDS - 1), 0, 1)
    steps = 0.002 + effect * (inputs[:, PLANTED] - 0.5) + 0.003 * rng.normal(size=ROUNDS - 1)
    accuracy = 0.4 + np.concatenate([[0.0], np.cumsum(steps)])
    cross_entropy = 3 - 2 * accuracy + 0.01 * rng.normal(size=ROUNDS)
    rounds = pa.table(
        {
            "round": range(ROUNDS),
            "budget_spent": range(10, 10 + ROUNDS),
            "val_accuracy": accuracy,
            "val_cross_entropy": cross_entropy,
        }
    )
    log = pa.table({"round": range(ROUNDS - 1), **dict(zip(INPUTS, inputs.T, strict=True))})
    return store.put(f"data/backbone/{name}", {"run": {}}, rounds, log)


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., list[StoredRun]]:
    def make(name: str, n: int, effect: float) -> list[StoredRun]:
        return [stored_run(RunStore(tmp_path / "runs"), f"{name}-{k}", effect) for k in range(n)]

    return make


def response(booster: xgboost.Booster) -> np.ndarray:
    """What is predicted of a coverage rank of 0.1 to 0.9, on average over random other inputs."""
    others = np.random.default_rng(0).random((500, len(INPUTS)), dtype=np.float32)
    predictions = []
    for rank in np.linspace(0.1, 0.9, 5):
        others[:, PLANTED] = rank
        predictions.append(booster.inplace_predict(others).mean())
    return np.array(predictions)


@pytest.mark.parametrize("horizon", [1, 3, 8, 50])
def test_mean_ahead_against_loops(horizon: int, rng: np.random.Generator) -> None:
    accuracy = rng.random(9)
    expected = []
    for query in range(8):
        ahead = [accuracy[r] for r in range(query + 1, query + 1 + horizon) if r < 9]
        expected.append(sum(ahead) / len(ahead))
    np.testing.assert_allclose(mean_ahead(accuracy, horizon), expected)
    assert len(mean_ahead(accuracy[:1], horizon)) == 0


def test_return_rows_by_hand() -> None:
    """Two queries of two images each, the last round queries nothing."""
    measured = {"val_accuracy": [0.5, 0.6, 0.8], "val_cross_entropy": [3.0, 2.0, 1.5]}
    rounds = pd.DataFrame({"round": [0, 1, 2], "budget_spent": [10, 12, 14], **measured})
    log = pd.DataFrame({"round": np.array([0, 0, 1, 1], np.int32), "a": [1, 2, 3, 4], "b": 0, "val_accuracy": 9.0})
    rows = return_rows(rounds, log, ["a"])
    assert list(rows) == ["round", "a", "labels", "accuracy", "accuracy_gain", "cross_entropy", "cross_entropy_gain"]
    assert rows["a"].tolist() == [1, 2, 3, 4]
    assert rows["labels"].tolist() == [10, 10, 12, 12]
    assert rows["accuracy"].tolist() == [0.5, 0.5, 0.6, 0.6]
    assert rows["accuracy_gain"].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2])
    assert rows["cross_entropy_gain"].tolist() == pytest.approx([-1.25, -1.25, -0.5, -0.5])
    near = return_rows(rounds, log, ["a"], horizon=1)
    assert near["accuracy_gain"].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_standing_is_about_0_with_the_same_spread_where_nothing_is_planted(rng: np.random.Generator) -> None:
    """At every number of labels, though gains and their spread fall as labels are added."""
    labels = np.tile(np.arange(10, 210), 60)
    accuracy = 0.9 - 4 / labels + 0.02 * rng.normal(size=len(labels))
    gain = 0.9 - accuracy + 2 / labels * rng.normal(size=len(labels))
    found = standing(pd.DataFrame({"labels": labels, "accuracy": accuracy, "accuracy_gain": gain}), "accuracy")
    for part in (labels < 30, (labels >= 30) & (labels < 100), labels >= 100):
        assert abs(found[part].mean()) < 0.1
        assert np.abs(found[part]).mean() == pytest.approx(np.abs(found).mean(), rel=0.1)
    assert 0.7 < np.abs(found).mean() < 1.1
    assert abs(np.corrcoef(found, accuracy)[0, 1]) < 0.1


def test_gains_that_are_all_alike_stand_at_0() -> None:
    rows = pd.DataFrame({"labels": [10, 11, 12], "accuracy": 0.5, "accuracy_gain": 0.25})
    assert standing(rows, "accuracy").tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_few_rows_stand_where_they_can(rng: np.random.Generator) -> None:
    """Fewer than there are stretches of a budget."""
    rows = pd.DataFrame({"labels": np.repeat([10, 11, 12], 5), "accuracy": 0.5, "accuracy_gain": rng.normal(size=15)})
    found = standing(rows, "accuracy")
    assert np.corrcoef(found, rows["accuracy_gain"])[0, 1] > 0.9
    assert np.isfinite(standing(rows[:1], "accuracy")).all()


def test_a_return_is_high_where_accuracy_is_and_cross_entropy_is_not(rng: np.random.Generator) -> None:
    accuracy, cross_entropy = rng.normal(size=(2, 500))
    rows = pd.DataFrame(
        {
            "labels": np.arange(10, 510),
            **{"accuracy": 0.5, "accuracy_gain": accuracy, "cross_entropy": 1.0, "cross_entropy_gain": cross_entropy},
        }
    )
    found = returns(rows)
    assert found.std() == pytest.approx(1)
    assert np.corrcoef(found, accuracy - cross_entropy)[0, 1] > 0.95


def test_a_planted_effect_is_found(runs: Callable[..., list[StoredRun]]) -> None:
    learned = learn([runs("a", 30, 0.004)], INPUTS)
    assert learned.rows == 30 * (ROUNDS - 1)
    predicted = response(learned.booster)
    assert (np.diff(predicted) > 0).all()
    assert predicted[-1] - predicted[0] > 1
    for shares in (learned.importance, learned.shap):
        assert shares["coverage_rank"] > 0.5
        assert sum(shares.values()) == pytest.approx(1)
        assert tuple(shares) == INPUTS
    opposite = response(learn([runs("b", 30, -0.004)], INPUTS).booster)
    assert (np.diff(opposite) < 0).all()


def test_nothing_is_found_where_nothing_is_planted(runs: Callable[..., list[StoredRun]]) -> None:
    learned = learn([runs("a", 30, 0.0)], INPUTS)
    assert np.ptp(response(learned.booster)) < 0.3


def test_every_pool_has_the_same_weight(runs: Callable[..., list[StoredRun]]) -> None:
    """Of opposite effects, the one with three times the runs does not win."""
    few, many = runs("few", 20, 0.004), runs("many", 60, -0.004)
    alone, one_pool, two_pools = (
        np.ptp(response(learn(pools, INPUTS).booster)[[0, -1]]) for pools in ([few], [few + many], [few, many])
    )
    assert one_pool > alone / 2
    assert two_pools < alone / 5


def test_learning_is_deterministic_to_the_byte(runs: Callable[..., list[StoredRun]], tmp_path: Path) -> None:
    pools = [runs("a", 10, 0.004), runs("b", 12, 0.0)]
    for name in ("one", "two"):
        save(learn(pools, INPUTS), [0, 1], {"head": "ridge"}, MODEL_FORMAT, tmp_path / name)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    manifest = read_manifest(tmp_path / "one")
    assert manifest["inputs"] == list(INPUTS)
    assert (manifest["rows"], manifest["trees"], manifest["train_seeds"]) == (22 * (ROUNDS - 1), [150], [0, 1])
    assert set(manifest["shap"]) == set(INPUTS)
    assert sum(manifest["shap"].values()) == pytest.approx(1, abs=0.01)
    read, [booster] = load_models(str(tmp_path / "one"), INPUTS)
    assert read == manifest
    np.testing.assert_array_equal(response(booster), response(learn(pools, INPUTS).booster))


def test_contributions_are_what_one_split_moves(rng: np.random.Generator) -> None:
    """A tree of one split moves a prediction from the mean over its rows by its leaf: Shapley's value by hand."""
    inputs = rng.random((60, 3), dtype=np.float32)
    weight = rng.random(60) + 0.5
    data = xgboost.DMatrix(inputs, np.where(inputs[:, 1] > 0.6, 1.0, 0.0), weight=weight)
    booster = xgboost.train({"max_depth": 1, "eta": 1, "lambda": 0, "nthread": 1}, data, 1)
    predicted = booster.predict(data).astype(float)
    moved = np.abs(predicted - np.average(predicted, weights=weight))
    expected = [0, np.average(moved, weights=weight), 0]
    np.testing.assert_allclose(contributions(booster, data), expected, atol=1e-5)


def test_runs_with_fewer_rows_than_a_leaf_needs_are_learned_from(runs: Callable[..., list[StoredRun]]) -> None:
    learned = learn([runs("a", 1, 0.004)], INPUTS)
    assert np.ptp(response(learned.booster)) == 0
    assert set(learned.importance.values()) == set(learned.shap.values()) == {0.0}


@pytest.mark.parametrize("damage", ["cut", "gone", "other columns"])
def test_a_damaged_log_is_named(damage: str, runs: Callable[..., list[StoredRun]]) -> None:
    [run] = runs("a", 1, 0.0)
    log = run.path / "candidates.parquet"
    if damage == "cut":
        log.write_bytes(log.read_bytes()[:100])
    elif damage == "gone":
        log.unlink()
    else:
        pd.read_parquet(log).drop(columns="norm_rank").to_parquet(log)
    with pytest.raises(CacheMismatchError, match="a-0 is damaged: delete that folder"):
        learn([[run]], INPUTS)
