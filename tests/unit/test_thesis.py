"""The thesis's surrogate: its rows, its errors and ranks, its search, its tests."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss

from cache.errors import InputError
from pipeline.config import SurrogateConfig
from pipeline.results import Estimate, Result
from pipeline.thesis import check_thesis, evaluation_seeds
from pipeline.thesis_report import paired
from stages.al.acquisition import METRICS
from stages.al.heads import HEADS
from stages.al.loop import Cell, Evaluation, RunLog, run_active_learning
from stages.al.models import MODEL_FORMAT
from stages.al.pool import Pool
from stages.al.protocol import CandidateLog, Protocol
from stages.al.strategies import STRATEGIES
from stages.surrogate.table import INPUTS
from stages.surrogate.thesis import MODELS, correlations, error_table, fit, query_rows, save, search_space, select
from tests.conftest import blobs

QUERIED = CandidateLog(log_every=1, log_candidates=0)
PROTOCOL = Protocol(initial_size=6, budget=16, candidates=40)


def run(make_pool: Callable[..., Pool], rng: np.random.Generator, head: str) -> tuple[Pool, Evaluation, RunLog]:
    features, labels = blobs(rng, n=200)
    pool = make_pool(features[:120], labels[:120], 4)
    validation, test = (Evaluation(features[part], labels[part]) for part in (slice(120, 160), slice(160, 200)))
    cell = Cell(strategy=STRATEGIES.build("margin"), seed=3, candidate_log=QUERIED)
    [log] = run_active_learning(pool, validation, test, HEADS.build(head, n_classes=4), PROTOCOL, [cell])
    return pool, validation, log


def rows_of(log: RunLog) -> pd.DataFrame:
    queried = {name: np.concatenate([block[name] for block in log.candidates]) for name in log.candidates[0]}
    return query_rows(pd.DataFrame(log.rounds), pd.DataFrame(queried))


def test_rows_are_what_two_rounds_say(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    pool, validation, log = run(make_pool, rng, "ridge")
    rows = rows_of(log)
    assert rows["candidate"].tolist() == [int(row["queried"][0]) for row in log.rounds[1:]]
    labeled = list(log.rounds[0]["queried"])
    for row in rows.to_dict("records"):
        before, after = (HEADS.build("ridge", n_classes=4) for _ in range(2))
        before.fit(pool.features[labeled], pool.labels[labeled])
        image = pool.features[row["candidate"]].astype(float)
        distances = np.linalg.norm(pool.features[labeled] - image, axis=1)
        proba = before.predict_proba(image[None])[0]
        told = {
            "least_confidence": 1 - proba.max(),
            "entropy": -(proba * np.log(proba)).sum(),
            "coreset_distance": distances.min(),
            "step": len(labeled) / 16,
        }
        labeled.append(row["candidate"])
        after.fit(pool.features[labeled], pool.labels[labeled])
        accuracy = [accuracy_score(validation.labels, head.predict(validation.features)) for head in (before, after)]
        loss = [log_loss(validation.labels, head.predict_proba(validation.features)) for head in (before, after)]
        told |= {"accuracy_gain": accuracy[1] - accuracy[0], "cross_entropy_drop": loss[0] - loss[1]}
        told |= {"val_accuracy": accuracy[0], "val_cross_entropy": loss[0]}
        assert {name: row[name] for name in told} == pytest.approx(told, rel=1e-4, abs=1e-5)


def test_every_head_logs_what_it_queried(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    """Also one that cannot say what labeling a candidate would change."""
    assert not hasattr(HEADS.get("svm"), "influence")
    _, _, log = run(make_pool, rng, "svm")
    rows = rows_of(log)
    assert len(rows) == 10
    assert np.isfinite(rows[list(METRICS)]).all(axis=None)


def test_the_log_does_not_change_the_queries(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    pool, validation, log = run(make_pool, rng, "solve")
    cell = Cell(strategy=STRATEGIES.build("margin"), seed=3)
    head = HEADS.build("solve", n_classes=4)
    [plain] = run_active_learning(pool, validation, validation, head, PROTOCOL, [cell])
    assert [row["queried"].tolist() for row in plain.rounds] == [row["queried"].tolist() for row in log.rounds]
    assert plain.candidates == []


def test_the_six_models_are_the_thesis() -> None:
    assert [model.name for model in MODELS] == [
        *("acc", "acc_asn", "acc_asnvalid"),
        *("loss", "loss_asn", "loss_asnvalid"),
    ]
    assert [model.inputs for model in MODELS] == ["standard", "step", "valid"] * 2


def test_ranks_and_errors_by_hand() -> None:
    errors = pd.DataFrame({"a": [3.0, 2.0], "b": [1.0, 2.0], "c": [2.0, 1.0]}, index=["one", "two"])
    table = error_table(errors)
    assert table.loc["Average MSE"].tolist() == [2.5, 1.5, 1.5]
    assert table.loc["Average rank"].tolist() == [(2 + 1.5) / 2, (0 + 1.5) / 2, (1 + 0) / 2]
    assert select(errors) == "c"
    assert select(errors[["a", "b"]].iloc[:1]) == "b"
    tied = pd.DataFrame({"a": [1.0, 5.0], "b": [2.0, 3.0]})
    assert select(tied) == "b"  # ranks tie, errors do not


@pytest.fixture
def table() -> pd.DataFrame:
    """Five seeds in which accuracy rises with entropy, and nothing tells the cross-entropy."""
    rng = np.random.default_rng(0)
    names = INPUTS["valid"]
    frame = pd.DataFrame(rng.random((500, len(names)), dtype=np.float32), columns=names)
    gain = 0.01 * frame["entropy"] + 0.001 * rng.normal(size=500)
    return frame.assign(seed=np.arange(500) % 5, accuracy_gain=gain, cross_entropy_drop=rng.normal(size=500))


def test_training_learns_stops_early_and_is_deterministic(table: pd.DataFrame) -> None:
    one, two = (fit(table, MODELS[0], 3) for _ in range(2))
    assert bytes(one.booster.save_raw()) == bytes(two.booster.save_raw())
    assert one.parameters in search_space(3)
    assert one.mse["test"] < 0.3 * table["accuracy_gain"].var()
    noise = fit(table, MODELS[3], 3)
    assert noise.booster.num_boosted_rounds() < 100
    assert noise.mse["test"] == pytest.approx(table["cross_entropy_drop"].var(), rel=0.3)


def test_errors_are_those_of_the_repetitions(table: pd.DataFrame) -> None:
    fitted = fit(table, MODELS[1], 1)
    for name, part in (("train", table[table["seed"] < 4]), ("test", table[table["seed"] == 4])):
        predicted = fitted.booster.inplace_predict(part[list(INPUTS["step"])].to_numpy())
        assert fitted.mse[name] == pytest.approx(np.mean((predicted - part["accuracy_gain"]) ** 2), rel=1e-4)


def test_a_longer_search_begins_with_the_shorter_and_is_no_worse(table: pd.DataFrame) -> None:
    assert search_space(8)[:3] == search_space(3)
    assert fit(table, MODELS[2], 4).mse["test"] <= fit(table, MODELS[2], 1).mse["test"]


def test_a_saved_model_is_a_strategy(table: pd.DataFrame, tmp_path: Path) -> None:
    save(
        fit(table, MODELS[1], 1),
        MODELS[1],
        {"learned_from": "here"},
        [0, 1, 2, 3, 4],
        MODEL_FORMAT,
        tmp_path / "acc_asn",
    )
    record = STRATEGIES.build(f"gain_surrogate:{tmp_path / 'acc_asn'}").record()
    assert record["train_seeds"] == [0, 1, 2, 3, 4]


def test_correlations_by_hand() -> None:
    table = pd.DataFrame(
        {
            "val_accuracy": [0.1, 0.2, 0.3],
            "test_accuracy": [0.2, 0.4, 0.6],
            "val_cross_entropy": [3.0, 2.0, 1.0],
            "test_cross_entropy": [1.0, 2.0, 3.0],
            "accuracy_gain": [0.0, 1.0, 0.0],
            "test_accuracy_gain": [0.0, 1.0, 2.0],
            "cross_entropy_drop": [1.0, 1.0, 1.0],
            "test_cross_entropy_drop": [1.0, 2.0, 3.0],
        }
    )
    found = correlations(table)
    assert [found[name] for name in ("accuracy", "cross_entropy", "accuracy_gain")] == pytest.approx([1, -1, 0])
    assert np.isnan(found["cross_entropy_drop"])


def result(aubcs: list[float], **changes: Any) -> Result:
    settings = {
        "label": "x",
        "strategy": {"name": "x"},
        "seeds": tuple(range(len(aubcs))),
        "left_out": (),
        "budget": np.array([1, 2]),
        "accuracy": np.array([[a, a] for a in aubcs]),
        "aubc": Estimate.of(aubcs),
        "final": Estimate.of(aubcs),
        "gain": None,
        "seconds": 0.0,
    }
    return Result(**(settings | changes))


def test_paired_tests_by_hand() -> None:
    differences = np.array([0.01, 0.02, -0.005, 0.04, 0.03])
    base = np.array([0.5, 0.4, 0.6, 0.5, 0.3])
    found, t, w = paired(result(list(base + differences)), result(list(base)))
    assert found.mean == pytest.approx(0.019)
    assert found.error == pytest.approx(differences.std(ddof=1) / 5**0.5)
    x = differences.mean() / (differences.std(ddof=1) / 5**0.5)  # Student's distribution of 4 degrees, in closed form
    s = x / (4 + x**2) ** 0.5
    assert t == pytest.approx(1 - 1.5 * (s - s**3 / 3))
    ranks = np.array([2, 3, 1, 5, 4])
    least = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=5)]
    assert w == pytest.approx(2 * np.mean(np.array(sums) <= least))


def test_nothing_to_test_is_nan() -> None:
    for first, second in (([0.5], [0.4]), ([0.5, 0.6], [0.4, 0.5])):
        difference, t, w = paired(result(first), result(second))
        assert difference.mean == pytest.approx(0.1)
        assert np.isnan([t, w]).all()


def test_seeds_that_training_saw_are_refused() -> None:
    assert evaluation_seeds("") == list(range(5, 15))
    with pytest.raises(InputError, match=r"must not have \[3, 4\]"):
        check_thesis(SurrogateConfig(seeds="3-7"))
    with pytest.raises(InputError, match="search=0"):
        check_thesis(SurrogateConfig(search=0))
