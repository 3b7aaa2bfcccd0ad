"""The thesis's surrogate experiment: logs of all strategies, six models, each of them as a strategy (002, 5.6, 5.8).

Every step is kept: runs in the run store, models in their folders. What is there already is not done again. As the
thesis's, a model may score images that it learned from, in runs that it did not.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cache.errors import InputError
from cache.files import digest_json, require_writable
from cache.location import local_folder
from cache.runs import RunStore, StoredRun
from pipeline.config import SurrogateConfig
from pipeline.engines import build_engine
from pipeline.gains import stands
from pipeline.grid import Run, parse_seeds, plan, run_grid
from pipeline.reading import read_run
from pipeline.results import Group, Result, result_of
from pipeline.task import Task, model_folder
from stages.al.models import MODEL_FORMAT, read_manifest
from stages.al.protocol import CandidateLog, Protocol, ProtocolConfig
from stages.surrogate.thesis import MODELS, Model, correlations, fit, query_table, save, select

STRATEGIES = ("random", "entropy", "margin", "least_confidence", "typiclust", "coreset", "badge")
"""Those of the thesis's tables 5.9 and 5.10."""
HEADS, BUDGET = "solve,ridge", "310"
LOG_SEEDS, EVALUATION_SEEDS = 5, "5-14"
"""Repetitions that the models learn from, and those that test them as strategies."""
QUERIED = CandidateLog(log_seeds=LOG_SEEDS, log_every=1, log_candidates=0)
CANDIDATES = 500
"""Images a round that the surrogates, and what they are compared with, choose from (thesis 5.6)."""
THESIS_FORMAT = 1
"""Raise it when training changes, so that old models are made again."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was measured with one backbone and head.

    rows, images : of the training table, and how many different ones they are about; n_pool : images in the pool
    correlations : of validation with test; mse : by model, then "train" and "test"
    group : the strategies and the six models on seeds that no model has seen, by their names
    """

    backbone: str
    head: str
    rows: int
    images: int
    n_pool: int
    correlations: Mapping[str, float]
    mse: Mapping[str, Mapping[str, float]]
    group: Group

    @property
    def name(self) -> str:
        return f"{self.backbone}, {self.head}"

    @property
    def results(self) -> dict[str, Result]:
        return {result.label: result for result in self.group.results}

    def best(self, labels: Sequence[str]) -> Result:
        """The one of highest AUBC."""
        return max((self.results[label] for label in labels), key=lambda result: result.aubc.mean)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """selected : the model that table 5.8 chooses, over all settings, of those that predict accuracy"""

    settings: Sequence[Setting]
    new_runs: int
    n_runs: int

    def errors(self, target: str, part: str) -> pd.DataFrame:
        """MSE, a row per setting, a column per model that predicts the target."""
        models = [model.name for model in MODELS if model.target == target]
        return pd.DataFrame({s.name: {name: s.mse[name][part] for name in models} for s in self.settings}).T

    @property
    def selected(self) -> str:
        return select(self.errors("accuracy_gain", "test"))


@dataclass(frozen=True, kw_only=True)
class Training:
    """One model to be made: picklable, stores itself."""

    table: pd.DataFrame
    model: Model
    n_settings: int
    about: Mapping[str, Any]
    folder: Path

    def __call__(self) -> None:
        seeds = sorted(set(self.table["seed"].tolist()))
        save(
            fit(self.table, self.model, self.n_settings), self.model, dict(self.about), seeds, MODEL_FORMAT, self.folder
        )


def evaluation_seeds(text: str) -> list[int]:
    """Seeds to test the models on. Raises InputError where training has seen one."""
    seeds = parse_seeds(text or EVALUATION_SEEDS)
    if seen := [seed for seed in seeds if seed < LOG_SEEDS]:
        raise InputError(f"the thesis's models learn from seeds 0 to {LOG_SEEDS - 1}, SEEDS= must not have {seen}")
    return seeds


def check_thesis(config: SurrogateConfig) -> None:
    """Raises InputError for what no data could make right."""
    evaluation_seeds(config.seeds)
    protocol_config(config).check()
    if config.search < 1:
        raise InputError(f"search={config.search} must be at least 1")


def protocol_config(config: SurrogateConfig) -> ProtocolConfig:
    """One label at a time from 10 random ones."""
    return ProtocolConfig(budget=config.budget or BUDGET)


def run_thesis(config: SurrogateConfig, tasks: Mapping[str, Task], heads: Sequence[str]) -> Experiment:
    """All of it. tasks : by backbone, as asked for"""
    require_writable(local_folder(config.data_root))
    settings: list[Setting] = []
    counts = np.zeros(2, dtype=int)
    strategies = {name: name for name in STRATEGIES}
    for backbone, task in tasks.items():
        protocol = protocol_config(config).resolve(task.sizes[0])
        protocol.require_query(task.sizes[0])
        seen, unseen = range(LOG_SEEDS), evaluation_seeds(config.seeds)
        cells = {head: _cells(config, task, head, strategies, seen, protocol, QUERIED) for head in heads}
        logs, count = _run(config, task, cells)
        counts += count
        tables = {head: query_table([run for runs in logs[head].values() for run in runs]) for head in heads}
        for head in heads:
            _train(config, task, head, tables[head], [run.run_id for runs in cells[head].values() for run in runs])
        few = replace(protocol, candidates=CANDIDATES)
        cells = {
            head: _cells(config, task, head, strategies | _models(config, task, head), unseen, few) for head in heads
        }
        tested, count = _run(config, task, cells)
        counts += count
        for head in heads:
            settings.append(_setting(config, task, backbone, head, tables[head], tested[head]))
    return Experiment(settings=settings, new_runs=int(counts[0]), n_runs=int(counts[1]))


def folder_of(config: SurrogateConfig, task: Task, head: str, model: Model) -> Path:
    """Where a model lives."""
    return model_folder(config.data_root, task, head, "thesis") / model.name


def _models(config: SurrogateConfig, task: Task, head: str) -> dict[str, str]:
    """The six models as strategies, by their names."""
    return {model.name: f"gain_surrogate:{folder_of(config, task, head, model)}" for model in MODELS}


def _cells(
    config: SurrogateConfig,
    task: Task,
    head: str,
    specs: Mapping[str, str],
    seeds: Sequence[int],
    protocol: Protocol,
    log: CandidateLog | None = None,
) -> dict[str, list[Run]]:
    """What is to be run of each strategy. Two models that came out equal share their runs."""
    return {label: plan(task, [head], [spec], seeds, protocol, config.data_root, log) for label, spec in specs.items()}


def _run(
    config: SurrogateConfig, task: Task, cells: Mapping[str, Mapping[str, list[Run]]]
) -> tuple[dict[str, dict[str, list[StoredRun]]], tuple[int, int]]:
    """The runs by head and strategy; how many are new, and how many there are."""
    distinct = {run.run_id: run for by_label in cells.values() for runs in by_label.values() for run in runs}
    store = RunStore(config.data_root / "runs")
    done, new = run_grid(task, list(distinct.values()), store, config.workers, config.engine)
    stored = dict(zip(distinct, done, strict=True))
    found = {
        head: {label: [stored[run.run_id] for run in runs] for label, runs in by_label.items()}
        for head, by_label in cells.items()
    }
    return found, (new, len(done))


def _train(config: SurrogateConfig, task: Task, head: str, table: pd.DataFrame, run_ids: Sequence[str]) -> None:
    """Make those of the six models that do not stand already."""
    learned_from = digest_json([THESIS_FORMAT, sorted(run_ids), config.search])
    about = {**task.about, "head": head, "logs": len(run_ids), "learned_from": learned_from}
    jobs = [
        Training(table=table, model=model, n_settings=config.search, about=about, folder=folder)
        for model in MODELS
        if not stands(folder := folder_of(config, task, head, model), learned_from)
    ]
    if not jobs:
        return
    with (
        closing(build_engine(config.engine).finish(jobs, config.workers, task.derived.root)) as finished,
        tqdm(total=len(jobs), desc=f"surrogates of {head}", unit="model", disable=None) as progress,
    ):
        for _ in finished:
            progress.update()


def _setting(
    config: SurrogateConfig,
    task: Task,
    backbone: str,
    head: str,
    table: pd.DataFrame,
    tested: Mapping[str, Sequence[StoredRun]],
) -> Setting:
    runs = {label: [read_run(run) for run in stored] for label, stored in tested.items()}
    by_seed = {label: {run.seed: run for run in part} for label, part in runs.items()}
    random = by_seed["random"]
    results = [result_of(label, part, set(random), random) for label, part in by_seed.items()]
    results.sort(key=lambda result: -result.aubc.mean)
    return Setting(
        backbone=backbone,
        head=head,
        rows=len(table),
        images=table["candidate"].nunique(),
        n_pool=task.sizes[0],
        correlations=correlations(table),
        mse={model.name: read_manifest(folder_of(config, task, head, model))["mse"] for model in MODELS},
        group=Group(settings=runs["random"][0].settings, runs=(), results=tuple(results), shared=True),
    )
