"""The thesis's surrogate: what the images that were queried did to the validation set (seed 002, 4.7, 5.6 and 5.8).

A row is a round of a run: the metrics of the image that was queried, and by how much the head refitted with it did
better than the one before. Rows come from rounds, so that every head has them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost

from cache.errors import CacheMismatchError
from cache.files import digest_files, write_json, write_whole
from cache.runs import StoredRun
from stages.surrogate.table import INPUTS

BOOST_ROUNDS, PATIENCE = 50_000, 50
"""The thesis's early stopping (5.6)."""
FIXED = {"objective": "reg:squarederror", "tree_method": "hist", "seed": 0, "nthread": 1}
"""One thread, because the sums of several depend on how many there are."""
PARTS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One of the thesis's six: which inputs predict which change. Higher targets are better."""

    name: str
    inputs: str
    target: str


MODELS = tuple(
    Model(name=target + suffix, inputs=inputs, target=column)
    for target, column in (("acc", "accuracy_gain"), ("loss", "cross_entropy_drop"))
    for suffix, inputs in (("", "standard"), ("_asn", "step"), ("_asnvalid", "valid"))
)
"""asn: the active-learning step, normalised; valid: validation accuracy and cross-entropy (thesis, 5.8)."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """mse : of "train" and "test", the repetitions that it learned from and the last one"""

    booster: xgboost.Booster
    parameters: dict[str, float]
    mse: dict[str, float]


def query_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """The rows of all runs, each with its run's seed. Raises CacheMismatchError where a log is not what it should be.

    runs : with logs of the queried images, one a round
    """
    return pd.concat([_rows_of(run).assign(seed=run.record["run"]["seed"]) for run in runs], ignore_index=True)


def _rows_of(run: StoredRun) -> pd.DataFrame:
    try:
        log = pd.read_parquet(io.BytesIO((run.path / "candidates.parquet").read_bytes()))
        return query_rows(run.rounds(), log)
    except (OSError, ValueError, KeyError) as error:
        raise CacheMismatchError(
            f"the log of {run.path} is damaged: delete that folder and run the same command again"
        ) from error


def query_rows(rounds: pd.DataFrame, log: pd.DataFrame) -> pd.DataFrame:
    """The log's metrics, what the round's head was worth on the test set, and what the next round's did better.

    rounds : one row each, in order; log : one image for every round but the last
    Adds test_accuracy, test_cross_entropy, accuracy_gain, cross_entropy_drop (nats), and test_ before both.
    """
    changes = rounds.select_dtypes("number").diff().shift(-1)
    rows = pd.DataFrame(
        {
            "round": rounds["round"],
            "test_accuracy": rounds["test_accuracy"],
            "test_cross_entropy": rounds["test_cross_entropy"],
            "accuracy_gain": changes["val_accuracy"],
            "cross_entropy_drop": -changes["val_cross_entropy"],
            "test_accuracy_gain": changes["test_accuracy"],
            "test_cross_entropy_drop": -changes["test_cross_entropy"],
        }
    )
    return log.merge(rows.iloc[:-1], on="round", validate="one_to_one")


def correlations(table: pd.DataFrame) -> dict[str, float]:
    """Pearson's, of validation with test, over all rounds of all runs; nan where one of them is constant.

    The thesis reports 0.99, of the levels as it turns out (5.6): that of the changes is what a target would need.
    """
    names = ("accuracy", "cross_entropy", "accuracy_gain", "cross_entropy_drop")
    validation = {"accuracy": "val_accuracy", "cross_entropy": "val_cross_entropy"}
    return {name: float(table[validation.get(name, name)].corr(table[f"test_{name}"])) for name in names}


def search_space(n: int) -> list[dict[str, float]]:
    """Random hyperparameter settings, always the same ones: the thesis's three (5.6) and the weight of a leaf."""
    rng = np.random.default_rng(0)
    return [
        {
            "eta": float(10 ** rng.uniform(-2, -0.5)),
            "max_depth": int(rng.integers(2, 11)),
            "lambda": float(10 ** rng.uniform(-1, 2)),
            "min_child_weight": float(10 ** rng.uniform(0, 2)),
        }
        for _ in range(n)
    ]


def fit(table: pd.DataFrame, model: Model, n_settings: int) -> Fitted:
    """XGBoost on all repetitions but the last, with the hyperparameters that do best on the last one.

    As the thesis has it (5.6), the last repetition also stops the boosting early and is the "test" set of its table
    5.8: that error has been chosen to be small, and no repetition is left that nothing was chosen by.
    """
    last = table["seed"] == table["seed"].max()
    names = list(INPUTS[model.inputs])
    train, test = (
        xgboost.DMatrix(part[names], part[model.target], feature_names=names) for part in (table[~last], table[last])
    )
    tried = (_boost(train, test, parameters) for parameters in search_space(n_settings))
    return min(tried, key=lambda fitted: fitted.mse["test"])


def _boost(train: xgboost.DMatrix, test: xgboost.DMatrix, parameters: dict[str, float]) -> Fitted:
    booster = xgboost.train(
        FIXED | parameters,
        train,
        num_boost_round=BOOST_ROUNDS,
        evals=[(test, "test")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    booster = booster[: booster.best_iteration + 1]
    errors = [np.float64(booster.predict(part)) - part.get_label() for part in (train, test)]
    mse = {name: float(np.mean(error**2)) for name, error in zip(PARTS, errors, strict=True)}
    return Fitted(booster=booster, parameters=parameters, mse=mse)


def save(
    fitted: Fitted, model: Model, about: dict[str, Any], train_seeds: Sequence[int], model_format: int, folder: Path
) -> None:
    """Write model-0.ubj, then the manifest that the strategy `gain_surrogate` reads.

    model_format : of those who read it
    """
    file = folder / "model-0.ubj"
    write_whole(file, partial(Path.write_bytes, data=bytes(fitted.booster.save_raw("ubj"))))
    manifest = {
        "format": model_format,
        "thesis": model.name,
        "inputs": list(INPUTS[model.inputs]),
        "target": model.target,
        "train_seeds": list(train_seeds),
        "trees": [fitted.booster.num_boosted_rounds()],
        "mse": fitted.mse,
        "parameters": FIXED | fitted.parameters,
        "about": about,
        "versions": {"xgboost": version("xgboost")},
        "models": [file.name],
        "model_digest": digest_files([file]),
    }
    write_json(folder / "manifest.json", manifest)


def error_table(errors: pd.DataFrame) -> pd.DataFrame:
    """Table 5.8 of one target and part: a row with the average MSE, one with the average rank.

    errors : a row per setting (backbone and head), a column per set of inputs
    Ranks are 0 for the lowest error, as the thesis's are (they sum to 3), the mean rank where errors tie.
    """
    ranks = errors.rank(axis=1) - 1
    return pd.DataFrame({"Average MSE": errors.mean(), "Average rank": ranks.mean()}).T


def select(errors: pd.DataFrame) -> str:
    """The column of lowest average rank, which is how the thesis chooses its model (5.6); of those, of lowest error."""
    table = error_table(errors).T
    return str(table.sort_values(["Average rank", "Average MSE"]).index[0])
