"""Table, training and the strategy that uses the model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cache.errors import CacheMismatchError, CacheMissError, InputError
from stages.al.acquisition import METRICS
from stages.al.models import MODEL_FORMAT, load_models, read_manifest
from stages.al.strategies import STRATEGIES
from stages.surrogate.config import TrainConfig
from stages.surrogate.table import INPUTS, Log, Table, build_table, standardised
from stages.surrogate.train import ranking_quality, save, train

ROWS, ROUNDS = 60, 3


def write_logs(folder: Path, seeds: int) -> list[Log]:
    """Logs in which the gain is entropy minus typicality, plus noise."""
    logs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(
            rng.random((ROWS * ROUNDS, len(INPUTS["valid"])), dtype=np.float32), columns=INPUTS["valid"]
        )
        gain = frame["entropy"] - frame["typicality"] + 0.01 * rng.normal(size=len(frame))
        frame = frame.assign(
            round=np.repeat(np.arange(ROUNDS), ROWS),
            candidate=np.tile(np.arange(ROWS), ROUNDS),
            cross_entropy_change=-gain * (1 + np.repeat(np.arange(ROUNDS), ROWS)),
            accuracy_change=gain,
        )
        frame.to_parquet(folder / f"{seed}.parquet")
        logs.append(Log(path=folder / f"{seed}.parquet", seed=seed))
    return logs


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return build_table(write_logs(tmp_path, 3), TrainConfig())


def test_the_table_has_every_candidate_of_every_round(table: Table) -> None:
    assert len(table) == 3 * ROUNDS * ROWS
    assert table.names == INPUTS["step"]
    assert np.bincount(table.round).tolist() == [ROWS] * 9
    assert table.seed.tolist() == np.repeat([0, 1, 2], ROUNDS * ROWS).tolist()


def test_relative_gains_are_standardised_within_rounds_and_higher_is_better(table: Table) -> None:
    for number in range(9):
        gain = table.gain[table.round == number]
        assert gain.mean() == pytest.approx(0, abs=1e-9)
        assert gain.std() == pytest.approx(1)
    assert np.corrcoef(table.inputs[:, 0], table.gain)[0, 1] > 0.5


def test_a_round_without_differences_is_zero() -> None:
    assert standardised(np.array([2.0, 2.0, 1.0, 3.0]), np.array([0, 0, 1, 1])).tolist() == [0, 0, -1, 1]


def test_raw_targets(tmp_path: Path) -> None:
    logs = write_logs(tmp_path, 1)
    raw = pd.read_parquet(logs[0].path)
    for target, sign in (("accuracy", 1), ("cross_entropy", -1)):
        table = build_table(logs, TrainConfig(target=target, relative=False, inputs="standard"))
        np.testing.assert_allclose(table.gain, sign * raw[f"{target}_change"])
        np.testing.assert_array_equal(table.inputs, raw[list(INPUTS["standard"])])


def test_thinning_is_about_max_rows_and_repeatable(tmp_path: Path) -> None:
    logs = write_logs(tmp_path, 3)
    thin = [build_table(logs, TrainConfig(max_rows=100)) for _ in range(2)]
    assert 60 < len(thin[0]) < 140
    assert np.array_equal(thin[0].inputs, thin[1].inputs)


def test_no_logs_and_one_seed_are_said(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match="run `make al LOG_SEEDS=5` first"):
        build_table([], TrainConfig())
    with pytest.raises(InputError, match="one seed"):
        train(build_table(write_logs(tmp_path, 1), TrainConfig()), 1)


def test_training_learns_is_deterministic_and_holds_seeds_out(table: Table) -> None:
    one, two = train(table, 1), train(table, 1)
    assert [bytes(b.save_raw()) for b in one.boosters] == [bytes(b.save_raw()) for b in two.boosters]
    assert (one.train_seeds, one.stopping_seed) == ([0, 1, 2], 2)
    quality = one.quality.set_index("ranked_by")
    assert quality.index[0] == "surrogate"
    assert quality.loc["surrogate", "rank_correlation"] > 0.8
    assert quality.loc["surrogate", "top_pick"] > 0.8


def test_no_image_is_scored_by_a_model_that_learned_from_it(table: Table) -> None:
    """Gains that are pure noise per image, told by an input that identifies the image, cannot be predicted."""
    rng = np.random.default_rng(5)
    luck = rng.normal(size=ROWS)
    inputs = table.inputs.copy()
    inputs[:, 3] = table.candidate
    noise = Table(**{**vars(table), "inputs": inputs, "gain": luck[table.candidate]})
    crossed, single = (train(noise, 1, folds).quality.set_index("ranked_by").loc["surrogate"] for folds in (2, 1))
    assert abs(crossed["rank_correlation"]) < 0.35
    assert single["rank_correlation"] > abs(crossed["rank_correlation"]) + 0.2


def test_ranking_quality_by_hand() -> None:
    table = Table(
        names=("up", "down"),
        inputs=np.array([[1, 3], [2, 2], [3, 1]] * 2, dtype=np.float32),
        gain=np.array([0.1, 0.2, 0.3, 5.0, 6.0, 4.0]),
        round=np.array([0, 0, 0, 1, 1, 1]),
        seed=np.zeros(6, dtype=int),
        candidate=np.arange(6),
    )
    quality = ranking_quality(table, table.gain).set_index("ranked_by")
    assert quality.loc["surrogate"].tolist() == [pytest.approx(1), pytest.approx(1)]
    assert quality.loc["up"].tolist() == [pytest.approx(0.25), pytest.approx(2 / 3)]
    assert quality.loc["down", "rank_correlation"] == pytest.approx(0.25)


def test_a_constant_ranking_has_a_top_pick_of_chance() -> None:
    table = Table(
        names=("constant",),
        inputs=np.ones((10, 1), dtype=np.float32),
        gain=np.arange(10.0)[::-1],
        round=np.repeat([0, 1], 5),
        seed=np.zeros(10, dtype=int),
        candidate=np.arange(10),
    )
    quality = ranking_quality(table, np.zeros(10)).set_index("ranked_by")
    assert quality["top_pick"].tolist() == pytest.approx([0.6, 0.6])  # the mean of 1/5 .. 5/5


@pytest.fixture
def folder(table: Table, tmp_path: Path) -> Path:
    save(train(table, 1), TrainConfig(), {"head": "ridge"}, MODEL_FORMAT, tmp_path / "model")
    return tmp_path / "model"


def test_the_manifest_says_what_the_model_is(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest["inputs"] == list(INPUTS["step"])
    assert manifest["train_seeds"] == [0, 1, 2]
    assert manifest["models"] == ["model-0.ubj", "model-1.ubj"]
    assert STRATEGIES.build(f"gain_surrogate:{folder}").record()["model_digest"] == manifest["model_digest"]


def test_a_missing_changed_or_foreign_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match="run `make surrogate` first"):
        read_manifest(tmp_path / "nowhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"inputs": ["entropy", "horoscope"]}))
    with pytest.raises(CacheMismatchError, match="inputs unknown here: horoscope"):
        load_models(str(folder), METRICS)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(CacheMismatchError, match=f"it has format 1, not {MODEL_FORMAT}: run `make surrogate` again"):
        read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model-1.ubj").write_bytes((folder / "model-0.ubj").read_bytes()[:-1])
    with pytest.raises(CacheMismatchError, match="run `make surrogate` again"):
        read_manifest(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(CacheMismatchError, match="not a surrogate's"):
        read_manifest(folder)
