"""What queries were worth: returns over several rounds, and XGBoost on them.

The thesis (seed 002, 4.7 and 5.6) has a row for every query and what the next accuracy gained. One label changes
little, and much of what happens to accuracy has nothing to do with it. Here the target is

    return = mean validation accuracy after this query and the next ones, `horizon` in all,
             less what runs of that pool have on average from so many labels and such an accuracy on,

in units of its spread at so many labels, less the same of validation cross-entropy, which tells apart what accuracy on
a few hundred images does not. A run that goes on as it began shows what its way of querying is worth, and the runs that
it learns from go many ways (`explore`).
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
from jaxtyping import Float

from cache.errors import CacheMismatchError
from cache.files import digest_files, write_json, write_whole
from cache.runs import StoredRun

RETURN_FORMAT = 4
"""Raise it when training or what the manifest says changes, so that old models are made again."""
HORIZON = 15
"""Rounds."""
MEASURES = {"accuracy": 1, "cross_entropy": -1}
"""Of the validation set, and their weights in the target (several of them: thesis, 6.1)."""
COMMON = {"objective": "reg:squarederror", "tree_method": "hist", "seed": 0, "nthread": 1, "subsample": 0.5}
"""One thread, because the sums of several depend on how many there are."""
POLICY = COMMON | {
    "max_depth": 4,
    "eta": 0.08,
    "min_child_weight": 300,
    "colsample_bytree": 0.7,
    "num_parallel_tree": 5,
}
POLICY_TREES = 150
SHAP_ROWS = 2_000
"""Of those learned from, over which contributions to predictions are averaged."""
STRETCHES, LEAST_ROWS = 20, 10
"""Of a budget, with as many rows each; fewer where they would have fewer rows than that."""


def mean_ahead(measure: Float[np.ndarray, "rounds"], horizon: int) -> Float[np.ndarray, "queries"]:
    """After every query the mean of the next `horizon` rounds, or of as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(measure)])
    first = np.arange(1, len(measure))
    last = np.minimum(first + horizon, len(measure))
    return (total[last] - total[first]) / (last - first)


def return_rows(rounds: pd.DataFrame, log: pd.DataFrame, inputs: Sequence[str], horizon: int = HORIZON) -> pd.DataFrame:
    """The inputs of every query, `labels` before it, and of every measure its value before it and its `_gain` ahead.

    rounds : one row each, in order; log : the queried images. Of a batch, every image has the batch's gain
    """
    ahead = {"round": rounds["round"].to_numpy()[:-1], "labels": rounds["budget_spent"].to_numpy()[:-1]}
    for name in MEASURES:
        measure = rounds[f"val_{name}"].to_numpy(dtype=np.float64)
        ahead |= {name: measure[:-1], f"{name}_gain": mean_ahead(measure, horizon) - measure[:-1]}
    return log[["round", *inputs]].merge(pd.DataFrame(ahead), on="round", validate="many_to_one")


def returns(rows: pd.DataFrame) -> Float[np.ndarray, "rows"]:
    """The target of one pool's rows: how the measures stand, summed, in units of their spread."""
    total = sum(weight * standing(rows, name) for name, weight in MEASURES.items())
    return np.asarray(total / max(np.std(total), np.finfo(np.float32).eps))


def standing(rows: pd.DataFrame, measure: str) -> Float[np.ndarray, "rows"]:
    """The gains of one pool compared with what is usual from there on, in units of their spread.

    Usual is a least-squares plane over the logarithm of the labels and the measure, in each of STRETCHES of a budget.
    """
    gain = rows[f"{measure}_gain"].to_numpy()
    where = np.column_stack([np.ones(len(rows)), np.log(rows["labels"]), rows[measure]])
    better = np.empty(len(rows))
    order, stretches = np.argsort(rows["labels"].to_numpy(), kind="stable"), min(STRETCHES, len(rows) // LEAST_ROWS)
    for stretch in np.array_split(order, max(stretches, 1)):
        plane, *_ = np.linalg.lstsq(where[stretch], gain[stretch])
        residual = gain[stretch] - where[stretch] @ plane
        better[stretch] = residual / max(residual.std(), np.finfo(np.float32).eps)
    return better


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The booster, the rows that it learned from, and its inputs' shares of the gain of all splits and of mean |SHAP|.

    importance, shap : by input, in its order; they sum to 1, or are all 0 where nothing was learned
    """

    booster: xgboost.Booster
    rows: int
    importance: dict[str, float]
    shap: dict[str, float]


def learn(pools: Sequence[Sequence[StoredRun]], inputs: Sequence[str]) -> Learned:
    """Fit to the runs of some pools, each pool with the same weight. Raises CacheMismatchError for damaged logs."""
    tables = [pd.concat([_rows_of(run, inputs) for run in runs], ignore_index=True) for runs in pools]
    rows = pd.concat(tables, ignore_index=True)
    weight = np.concatenate([np.full(len(table), len(rows) / len(tables) / len(table)) for table in tables])
    target = np.concatenate([returns(table) for table in tables])
    names = list(inputs)
    data = xgboost.DMatrix(rows[names].astype(np.float32), target, weight=weight, feature_names=names)
    booster = xgboost.train(POLICY, data, POLICY_TREES)
    scores = booster.get_score(importance_type="total_gain")
    gains = np.array([np.sum(scores.get(name, 0.0)) for name in names])
    importance, shap = (
        dict(zip(names, (parts / max(parts.sum(), np.finfo(float).tiny)).tolist(), strict=True))
        for parts in (gains, contributions(booster, data))
    )
    return Learned(booster=booster, rows=len(rows), importance=importance, shap=shap)


def contributions(booster: xgboost.Booster, data: xgboost.DMatrix) -> Float[np.ndarray, "inputs"]:
    """Mean |SHAP| of every input: how far it moves a prediction, in units of the target.

    The mean is over SHAP_ROWS rows drawn at random, always the same ones, by their weights. Unlike the gain of splits
    it tells what predictions rest on, not what the loss fell by. Lundberg et al. 2020, as XGBoost computes it.
    """
    drawn = np.sort(np.random.default_rng(0).permutation(data.num_row())[:SHAP_ROWS])
    shap = np.abs(booster.predict(data.slice(drawn), pred_contribs=True)[:, :-1], dtype=np.float64)
    return np.average(shap, axis=0, weights=data.get_weight()[drawn])


def _rows_of(run: StoredRun, inputs: Sequence[str]) -> pd.DataFrame:
    try:
        log = pd.read_parquet(io.BytesIO((run.path / "candidates.parquet").read_bytes()))
        return return_rows(run.rounds(), log, inputs)
    except (OSError, ValueError, KeyError) as error:
        raise CacheMismatchError(
            f"the log of {run.path} is damaged: delete that folder and run the same command again"
        ) from error


def save(learned: Learned, train_seeds: Sequence[int], about: dict[str, Any], model_format: int, folder: Path) -> None:
    """Write model-0.ubj, then the manifest that the strategy `surrogate` reads.

    model_format : of those who read it
    """
    file = folder / "model-0.ubj"
    write_whole(file, partial(Path.write_bytes, data=bytes(learned.booster.save_raw("ubj"))))
    manifest = {
        "format": model_format,
        "inputs": list(learned.importance),
        "importance": {name: round(share, 4) for name, share in learned.importance.items()},
        "shap": {name: round(share, 4) for name, share in learned.shap.items()},
        "target": f"return over {HORIZON} rounds: {' and '.join(MEASURES)}",
        "train_seeds": list(train_seeds),
        "rows": learned.rows,
        "trees": [learned.booster.num_boosted_rounds()],
        "about": about,
        "parameters": POLICY,
        "versions": {"xgboost": version("xgboost")},
        "models": [file.name],
        "model_digest": digest_files([file]),
    }
    write_json(folder / "manifest.json", manifest)
