"""The grid runner: every head x strategy x seed on one feature cache, many at once, resumable."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cache.errors import CacheMismatchError, InputError
from cache.files import digest_json, require_writable
from cache.location import Location
from cache.runs import RunStore, StoredRun
from pipeline.engines import build_engine
from pipeline.reading import find_run
from pipeline.task import Task, load_data, model_folder
from stages.al.heads import HEADS, build_head
from stages.al.loop import Cell, RunLog, run_active_learning
from stages.al.metrics import aubc
from stages.al.protocol import CandidateLog, Protocol
from stages.al.strategies import STRATEGIES, Strategy
from stages.al.view import unmet

RUN_FORMAT = 3
"""Part of every run's id: raise it when the loop's results change, so that old runs are not taken for new ones."""
LOG_FORMAT = 3
"""Part of what a candidate log says of itself: raise it when its columns change, so that old ones are made anew."""

TRAINED = {"surrogate": "returns", "gain_surrogate": "gains"}
"""Strategies with a model, and the recipe that makes it."""

MOST_TOGETHER = 10
"""Runs that one worker does at once, where the head trains many in one go. A killed worker loses as many."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell of the grid: picklable, and all that a worker needs beside the task."""

    head: str
    strategy: str
    protocol: Protocol
    seed: int
    candidate_log: CandidateLog | None
    run_id: str
    record: Mapping[str, Any]

    @property
    def logging(self) -> dict[str, int] | None:
        """How this run logs candidates."""
        log = self.candidate_log
        if log is None:
            return None
        return {
            "format": LOG_FORMAT,
            "every": log.log_every,
            "candidates": log.log_candidates,
            "images": log.log_images,
            "later": log.log_later,
        }


def expand(strategies: Sequence[str], heads: Sequence[str], n_views: int) -> tuple[list[str], list[str]]:
    """With `all` replaced by every strategy without a trained model; those that heads or views do not suit apart."""
    every = [name for name in STRATEGIES if not hasattr(STRATEGIES.get(name), "argument")]
    left_out = [name for name in every if any(_unmet(name, head, n_views) for head in heads)]
    suited = [name for name in every if name not in left_out]
    expanded = [name for said in strategies for name in (suited if said == "all" else [said])]
    return expanded, left_out if "all" in strategies else []


def _unmet(strategy: str, head: str, n_views: int | None = None) -> str | None:
    """Why a strategy does not go with a head and so many views."""
    kind: type[Strategy] = STRATEGIES.get(strategy.partition(":")[0])
    return unmet(kind.requires, HEADS.parse(head)[0], n_views)


def check_grid(heads: Sequence[str], strategies: Sequence[str], workers: int, engine: str = "processes") -> None:
    """Raises InputError for names, parameters and numbers that no data could make right, before anything is read."""
    if not (heads and strategies):
        raise InputError("a grid needs at least one head and one strategy: HEAD= and STRATEGY= take names, not nothing")
    if workers < 0:
        raise InputError(f"workers={workers} must be 0 (one per core) or more")
    build_engine(engine)
    for head in heads:
        build_head(head, 2)
    for strategy in strategies:
        if strategy == "all":
            continue
        if strategy not in TRAINED:
            STRATEGIES.build(strategy)
        require_met(strategy, heads)


def require_met(strategy: str, heads: Sequence[str], n_views: int | None = None) -> None:
    """Raises InputError where a strategy needs what a head, or so many views, do not have."""
    for head in heads:
        if why := _unmet(strategy, head, n_views):
            raise InputError(f"strategy {strategy!r}: {why}")


def spec_of(strategy: str, task: Task, head: str, data_root: Location) -> str:
    """With the folder of its model where it is a surrogate: the one trained on this task, or else the shipped one."""
    if strategy not in TRAINED:
        return strategy
    folder = model_folder(data_root, task, head, TRAINED[strategy])
    shipped = strategy == "surrogate" and not (folder / "manifest.json").exists()
    return f"{strategy}:{'shipped' if shipped else folder}"


def plan(
    task: Task,
    heads: Sequence[str],
    strategies: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol,
    data_root: Location,
    candidate_log: CandidateLog | None = None,
) -> list[Run]:
    """The cells of a grid, each once, seeds outermost so that an interrupted grid has whole comparisons.

    Raises InputError for unknown names and parameters, CacheMissError where the surrogate is not trained.
    """
    for strategy in strategies:
        require_met(strategy, heads, task.n_views)
    runs: dict[str, Run] = {}
    for seed in seeds:
        for head in heads:
            for strategy in strategies:
                made = build_head(head, task.n_classes)
                if made.get_params().get("dims_per_label") and not task.about["pca"]:
                    raise InputError(f"head {head!r} takes the leading dimensions of a PCA: give PCA= more than 0")
                spec = spec_of(strategy, task, head, data_root)
                component = STRATEGIES.build(spec)
                record = {
                    **task.about,
                    "head": {"name": made.name, **made.get_params()},
                    "strategy": component.record(),
                    "protocol": protocol.record(),
                    "seed": seed,
                }
                digest = digest_json([RUN_FORMAT, task.derived.basis, record])[:10]
                run_id = f"{record['dataset']}/{record['full_name']}/{made.name}-{component.name}-s{seed}-{digest}"
                runs[run_id] = Run(
                    head=head,
                    strategy=spec,
                    protocol=protocol,
                    seed=seed,
                    candidate_log=candidate_log if _logs_candidates(candidate_log, made, protocol, seed) else None,
                    run_id=run_id,
                    record=record,
                )
    return list(runs.values())


def _logs_candidates(candidate_log: CandidateLog | None, head: Any, protocol: Protocol, seed: int) -> bool:
    """Whether a run is one for the surrogate to learn from: its head must know what labeling a candidate changes.

    With all views as rows it does not: they move it by more than one term. A log of the queried images alone does not
    ask.
    """
    if candidate_log is None or seed >= candidate_log.log_seeds:
        return False
    knows = hasattr(head, "influence") and protocol.train_views == "first"
    return knows or candidate_log.log_candidates == 0


def run_grid(
    task: Task, runs: Sequence[Run], store: RunStore, workers: int, engine: str = "processes"
) -> tuple[list[StoredRun], int]:
    """Do the runs that are missing; every finished one is stored at once. Returns all of them, and how many are new.

    Each process computes with one thread: the small products here lose more than they gain from several.
    """
    require_writable(store.root)
    todo = [run for run in runs if _missing(store, run)]
    if todo:
        command = shlex.join(["alcove", *sys.argv[1:]])
        about = {"versions": _versions(), "commit": _commit(), "command": command}
        jobs = [
            Job(task=task, runs=runs_together, store=store, about=about)
            for runs_together in split(todo, workers or os.cpu_count() or 1)
        ]
        with (
            closing(build_engine(engine).finish(jobs, workers, task.derived.root)) as finished,
            tqdm(total=len(todo), desc="al", unit="run", disable=None) as progress,
        ):
            for job in finished:
                progress.update(len(job.runs))
    return [found for run in runs if (found := store.get(run.run_id))], len(todo)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Runs of one head and protocol, from memory-mapped features to the store, on one thread."""

    task: Task
    runs: Sequence[Run]
    store: RunStore
    about: Mapping[str, Any]

    def __call__(self) -> None:
        started, task = time.perf_counter(), self.task
        with threadpool_limits(1):
            pool, validation, test = load_data(task.derived, task.n_classes, task.sizes)
            head = build_head(self.runs[0].head, task.n_classes)
            cells = [
                Cell(strategy=STRATEGIES.build(run.strategy), seed=run.seed, candidate_log=run.candidate_log)
                for run in self.runs
            ]
            logs = run_active_learning(pool, validation, test, head, self.runs[0].protocol, cells)
        seconds = (time.perf_counter() - started) / len(self.runs)
        for run, log in zip(self.runs, logs, strict=True):
            _store(task, run, log, seconds, self.store, self.about)


def _store(task: Task, run: Run, log: RunLog, seconds: float, store: RunStore, about: Mapping[str, Any]) -> None:
    accuracy = np.array([row["test_accuracy"] for row in log.rounds])
    n_pool, n_validation, n_test = task.sizes
    record = {
        "run": dict(run.record),
        "summary": {"aubc": aubc(accuracy), "final_accuracy": float(accuracy[-1]), "seconds": seconds},
        "n_pool": n_pool,
        "n_validation": n_validation,
        "n_test": n_test,
        "classes": list(task.class_names),
        "candidate_log": run.logging,
        **about,
    }
    store.put(run.run_id, record, _rounds_table(log, task.ids), _candidates_table(log))


def split(runs: Sequence[Run], workers: int) -> list[list[Run]]:
    """What a worker does in one go: one run, or where the head trains many at once, an equal share of its runs."""
    parts: list[list[Run]] = []
    together: dict[tuple[str, Protocol], list[Run]] = {}
    for run in runs:
        if hasattr(HEADS.parse(run.head)[0], "fit_many"):
            together.setdefault((run.head, run.protocol), []).append(run)
        else:
            parts.append([run])
    for alike in together.values():
        size = min(-(-len(alike) // workers), MOST_TOGETHER)
        parts += [alike[start : start + size] for start in range(0, len(alike), size)]
    return parts


def parse_seeds(text: str) -> list[int]:
    """ "10" is 0 .. 9, "5-9" is 5 .. 9. Raises InputError."""
    if match := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
        seeds = list(range(int(match[1]), int(match[2]) + 1))
    else:
        seeds = list(range(int(text))) if re.fullmatch(r"\d{1,6}", text) else []
    if not seeds:
        raise InputError(f"seeds={text!r} is neither a number of seeds such as 10 nor a range such as 5-9")
    return seeds


def _missing(store: RunStore, run: Run) -> bool:
    """Not stored, or damaged, which is said, or stored without the candidate log that is asked for."""
    try:
        found = find_run(store, run.run_id, with_log=run.logging is not None)
    except CacheMismatchError as error:
        print(f"alcove: {error} is done again", file=sys.stderr)
        return True
    return found is None or (run.logging is not None and found.record.get("candidate_log") != run.logging)


def _rounds_table(log: RunLog, ids: np.ndarray) -> pa.Table:
    rows = [{**row, "queried": ids[row["queried"]].tolist()} for row in log.rounds]
    return pa.Table.from_pylist(rows)


def _candidates_table(log: RunLog) -> pa.Table | None:
    if not log.candidates:
        return None
    return pa.table({name: np.concatenate([block[name] for block in log.candidates]) for name in log.candidates[0]})


def _versions() -> dict[str, str]:
    return {"python": sys.version.split()[0]} | {name: version(name) for name in ("numpy", "scikit-learn", "xgboost")}


def code_versions() -> dict[str, str]:
    """For a page: the versions that computed it, and the commit where it ran from a checkout."""
    return {"commit": _commit() or "not from a checkout", **_versions()}


def _commit() -> str | None:
    """The commit of the code, where it runs from a checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
