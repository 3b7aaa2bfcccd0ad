"""Surrogates of one-step gains: which dense look-ahead tables they learn from, and the runs that test them."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import digest_json, require_writable
from cache.location import local_folder
from cache.runs import RunStore, StoredRun
from pipeline.config import SurrogateConfig
from pipeline.grid import plan, run_grid
from pipeline.reading import sound_runs
from pipeline.task import Task
from stages.al.heads import build_head
from stages.al.models import MODEL_FORMAT, read_manifest
from stages.al.protocol import Protocol
from stages.surrogate.table import Log, build_table
from stages.surrogate.train import TRAIN_FORMAT, save, train


def matching_runs(store: RunStore, task: Task, head: str) -> list[StoredRun]:
    """The stored runs of a task and head, whatever strategy, protocol and seed. Damaged ones are named on stderr."""
    made = build_head(head, task.n_classes)
    wanted: dict[str, Any] = {**task.about, "head": {"name": made.name, **made.get_params()}}
    runs = [run.stored for run in sound_runs(store, place="{dataset}/{full_name}".format(**task.about))]
    same_pool = [run for run in runs if run.record["run"].get("pool") == task.about.get("pool")]
    return [run for run in same_pool if wanted.items() <= run.record["run"].items()]


def train_surrogate(config: SurrogateConfig, task: Task, runs: Sequence[StoredRun], folder: Path) -> bool:
    """Train on the runs' candidate logs and save, unless that very model stands already. Returns whether it trained.

    Raises CacheMissError (no logs), InputError (a single seed).
    """
    require_writable(local_folder(config.data_root))
    runs = [run for run in runs if (run.record.get("candidate_log") or {}).get("candidates")]
    logs = [Log(path=run.candidates_path, seed=run.record["run"]["seed"]) for run in runs if run.candidates_path]
    logged = [(run.path.name, run.record["candidate_log"]) for run in runs if run.candidates_path]
    learned_from = digest_json([TRAIN_FORMAT, logged, asdict(config.training)])
    if stands(folder, learned_from):
        return False
    table = build_table(logs, config.training)
    about = {**task.about, "head": config.head, "logs": len(logs), "learned_from": learned_from}
    trained = train(table, config.workers or os.cpu_count() or 1, config.training.folds)
    save(trained, config.training, about, MODEL_FORMAT, folder)
    return True


def evaluate_surrogate(
    config: SurrogateConfig,
    task: Task,
    runs: Sequence[StoredRun],
    store: RunStore,
    seeds: Sequence[int] | None,
    trained_on: Sequence[int],
) -> tuple[list[StoredRun], int]:
    """Run the surrogate as a strategy, with the protocols of the runs.

    seeds : None takes those of the runs that training never saw
    """
    cells = []
    for protocol in {
        digest_json(run.record["run"]["protocol"]): run.record["run"]["protocol"] for run in runs
    }.values():
        seen = {run.record["run"]["seed"] for run in runs if run.record["run"]["protocol"] == protocol}
        chosen = sorted(seen - set(trained_on)) if seeds is None else seeds
        cells += plan(task, [config.head], ["gain_surrogate"], chosen, Protocol(**protocol), config.data_root)
    return run_grid(task, cells, store, config.workers, config.engine)


def stands(folder: Path, learned_from: str) -> bool:
    """Whether a folder holds the whole model of what the digest says."""
    try:
        return bool(read_manifest(folder)["about"]["learned_from"] == learned_from)
    except (CacheError, KeyError):
        return False
