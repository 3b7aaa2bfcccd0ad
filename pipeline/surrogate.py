"""Stage three beside stage two: which logs the surrogate learns from, and the runs that test it."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import digest_json, require_writable
from cache.runs import RunStore, StoredRun
from pipeline.config import SurrogateConfig
from pipeline.grid import parse_seeds, plan, run_grid
from pipeline.task import Task
from stages.al.heads import HEADS
from stages.al.protocol import Protocol
from stages.al.strategies.surrogate import read_manifest
from stages.surrogate.table import Log, build_table
from stages.surrogate.train import save, train


def matching_runs(store: RunStore, task: Task, head: str) -> list[StoredRun]:
    """The stored runs of a task and head, whatever strategy, protocol and seed."""
    made = HEADS.build(head, n_classes=task.n_classes)
    wanted: dict[str, Any] = {**task.about, "head": {"name": made.name, **made.get_params()}}
    return [run for run in store if wanted.items() <= run.record["run"].items()]


def train_surrogate(config: SurrogateConfig, task: Task, runs: Sequence[StoredRun], folder: Path) -> bool:
    """Train on the runs' candidate logs and save, unless that very model stands already. Returns whether it trained.

    Raises CacheMissError (no logs), InputError (a single seed).
    """
    require_writable(config.data_root)
    logs = [
        Log(path=run.candidates_path, strategy=run.record["run"]["strategy"]["name"], seed=run.record["run"]["seed"])
        for run in runs
        if run.candidates_path
    ]
    learned_from = digest_json([[run.path.name for run in runs if run.candidates_path], asdict(config.training)])
    if _stands(folder, learned_from):
        return False
    table = build_table(logs, config.training)
    about = {**task.about, "head": config.head, "logs": len(logs), "learned_from": learned_from}
    trained = train(table, config.workers or os.cpu_count() or 1, config.training.folds)
    save(trained, config.training, about, folder)
    return True


def evaluate_surrogate(
    config: SurrogateConfig, task: Task, runs: Sequence[StoredRun], store: RunStore, trained_on: Sequence[int]
) -> tuple[list[StoredRun], int]:
    """Run the surrogate as a strategy, on the seeds and protocols of the runs that training never saw."""
    cells = []
    for protocol in {
        digest_json(run.record["run"]["protocol"]): run.record["run"]["protocol"] for run in runs
    }.values():
        seen = {run.record["run"]["seed"] for run in runs if run.record["run"]["protocol"] == protocol}
        seeds = parse_seeds(config.seeds) if config.seeds else sorted(seen - set(trained_on))
        cells += plan(task, [config.head], ["surrogate"], seeds, Protocol(**protocol), config.data_root)
    return run_grid(task, cells, store, config.workers)


def _stands(folder: Path, learned_from: str) -> bool:
    try:
        return bool(read_manifest(folder)["about"]["learned_from"] == learned_from)
    except (CacheError, KeyError):
        return False
