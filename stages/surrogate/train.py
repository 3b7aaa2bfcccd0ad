"""XGBoost on the candidate table (thesis seed 002, sections 4.7 and 5.6)."""

from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from tqdm import tqdm

from cache.errors import InputError
from cache.files import digest_files, write_json, write_whole
from stages.surrogate.config import TrainConfig
from stages.surrogate.table import Table

TRAIN_FORMAT = 1
"""Raise it when training changes, so that old models are made again."""
BOOST_ROUNDS, PATIENCE = 50_000, 50
"""The thesis's early stopping (5.6)."""
PARAMETERS = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_depth": 6,
    "eta": 0.1,
    "subsample": 0.8,
    "min_child_weight": 20,
    "seed": 0,
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One booster per fold, each cut at its best round, and how well they do on the held-out seed."""

    boosters: list[xgboost.Booster]
    train_seeds: list[int]
    stopping_seed: int
    rows: int
    rmse: float
    quality: pd.DataFrame


def train(table: Table, threads: int, folds: int = 2) -> Trained:
    """Fit on all seeds but the last, stop early on the last one (thesis seed 002, 5.6), crossed over images.

    An image's typicality and variation over views hardly change from run to run, so trees can tell images apart and
    learn by heart what labeling each of them did, that is, its label. A model therefore scores only images that it
    did not learn from: model k scores those with pool index k modulo `folds` and learns from the others, and its early
    stopping too is on images and a seed that it has not seen. The thesis has no such care: `folds` 1.

    Raises InputError when the logs hold a single seed.
    """
    seeds = sorted(set(table.seed.tolist()))
    if len(seeds) < 2:
        raise InputError(f"the candidate logs hold one seed ({seeds[0]}), two are needed: run `make al LOG_SEEDS=5`")
    held_out = table.where(table.seed == seeds[-1])
    fitted = table.where(table.seed != seeds[-1])
    predicted = np.empty(len(held_out))
    boosters = []
    with tqdm(desc="surrogate", unit="tree", delay=2, disable=None) as bar:
        for fold in range(folds):
            own = held_out.candidate % folds == fold
            learned = fitted.where(fitted.candidate % folds != fold) if folds > 1 else fitted
            booster = _fit(learned, held_out.where(own), threads, bar)
            predicted[own] = booster.inplace_predict(held_out.inputs[own])
            boosters.append(booster)
    return Trained(
        boosters=boosters,
        train_seeds=seeds,
        stopping_seed=seeds[-1],
        rows=len(fitted),
        rmse=float(np.sqrt(np.mean((predicted - held_out.gain) ** 2))),
        quality=ranking_quality(held_out, predicted),
    )


def _fit(fitted: Table, stopping: Table, threads: int, bar: tqdm) -> xgboost.Booster:
    matrices = [xgboost.DMatrix(part.inputs, part.gain, feature_names=list(part.names)) for part in (fitted, stopping)]
    booster = xgboost.train(
        {**PARAMETERS, "nthread": threads},
        matrices[0],
        num_boost_round=BOOST_ROUNDS,
        evals=[(matrices[1], "stopping")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
        callbacks=[_Progress(bar)],
    )
    return booster[: booster.best_iteration + 1]


def ranking_quality(table: Table, predicted: np.ndarray) -> pd.DataFrame:
    """How well the prediction, and each input alone, orders a round's candidates by their true gain.

    rank_correlation : Spearman's, mean over rounds, of a single input in its better direction
    top_pick : mean percentile, within the round, of the true gain of the candidate ranked first (0.5 is random);
        of candidates tied for the first place the mean
    """
    columns = {"surrogate": predicted} | dict(zip(table.names, table.inputs.T, strict=True))
    frame = pd.DataFrame(columns).assign(gain=table.gain)
    ranks = frame.groupby(table.round).rank(pct=True)
    by_round = ranks.groupby(table.round)
    rows = []
    for name in columns:
        correlation = float(by_round.apply(lambda part, name=name: _correlation(part[name], part["gain"])).mean())
        direction = -1.0 if correlation < 0 and name != "surrogate" else 1.0
        directed = direction * ranks[name]
        first = directed == directed.groupby(table.round).transform("max")
        top_pick = ranks["gain"][first].groupby(table.round[first]).mean()
        rows.append((name, direction * correlation, float(top_pick.mean())))
    order = pd.DataFrame(rows, columns=["ranked_by", "rank_correlation", "top_pick"])
    return order.sort_values("rank_correlation", ascending=False, ignore_index=True)


def save(trained: Trained, config: TrainConfig, about: dict[str, Any], model_format: int, folder: Path) -> None:
    """Write model-0.ubj, model-1.ubj, ..., then their manifest; a reader believes them only with it.

    about : what the logs were made of (data set, backbone, features, head); model_format : of those who read it
    """
    files = [folder / f"model-{fold}.ubj" for fold in range(len(trained.boosters))]
    for file, booster in zip(files, trained.boosters, strict=True):
        write_whole(file, partial(_write_booster, booster))
    rounded = trained.quality.round(3)
    learned = "did not learn" if config.folds > 1 else "learned"
    manifest = {
        "format": model_format,
        "inputs": list(trained.boosters[0].feature_names or []),
        "target": config.target,
        "relative": config.relative,
        "train_seeds": trained.train_seeds,
        "stopping_seed": trained.stopping_seed,
        "rows": trained.rows,
        "trees": [booster.num_boosted_rounds() for booster in trained.boosters],
        "rmse": trained.rmse,
        "quality": {
            "columns": list(rounded.columns),
            "rows": rounded.to_numpy().tolist(),
            "caption": f"How well each ranks a round's candidates by their true gain, on seed {trained.stopping_seed}, "
            f"on images that the scoring model {learned} from: mean rank correlation, and percentile of the first "
            "choice (0.5 is random)",
        },
        "about": about,
        "parameters": PARAMETERS,
        "versions": {"xgboost": version("xgboost")},
        "models": [file.name for file in files],
        "model_digest": digest_files(files),
    }
    write_json(folder / "manifest.json", manifest)


def _write_booster(booster: xgboost.Booster, path: Path) -> None:
    path.write_bytes(bytes(booster.save_raw("ubj")))


def _correlation(a: pd.Series, b: pd.Series) -> float:
    """Pearson's correlation, 0 where either is constant."""
    if a.nunique() < 2 or b.nunique() < 2:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


class _Progress(xgboost.callback.TrainingCallback):
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        del model, epoch, evals_log
        self._bar.update()
        return False
