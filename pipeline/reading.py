"""From the run store to runs that can be relied on; what cannot be read is told in one sentence each."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from cache.errors import CacheMismatchError
from cache.files import digest_json
from cache.location import Location
from cache.runs import RunStore, StoredRun, Survey
from stages.al.metrics import aubc
from stages.al.protocol import Protocol

REMEDY = "`make al` does it again, or remove it"
NAMED = 5
"""Things named in one sentence; of more, their number."""

RECORD: dict[str, Any] = {
    "run": {
        **dict.fromkeys(("dataset", "backbone", "full_name", "features"), str),
        "parameters?": {},
        "pool?": str,
        "pca?": int,
        "head": {"name": str},
        "strategy": {"name": str, "model_digest?": str, "train_seeds?": [int]},
        "protocol": {"initial_size": int, "batch_size": int, "budget": int},
        "seed": int,
    },
    "summary": {"seconds": int | float},
    **dict.fromkeys(("n_pool", "n_validation", "n_test"), int),
    "classes?": [str],
    "candidate_log?": {},
    "versions?": {},
    "commit?": str,
    "command?": str,
}
"""What a run.json must hold: objects by name, lists by their items' type; what ends in ? may be missing or null."""

COLUMNS = ("budget_spent", "test_accuracy")
"""What rounds.parquet must hold."""

_DAMAGE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, pa.ArrowException)
"""What json, Parquet and our own checks raise of bytes that are not those of a finished run."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stored run that could be read. accuracy : test accuracy after each round; budget : labels spent by then"""

    stored: StoredRun
    budget: Int[np.ndarray, "rounds"]
    accuracy: Float[np.ndarray, "rounds"]
    aubc: float
    seconds: float

    @property
    def record(self) -> dict[str, Any]:
        return self.stored.record

    @property
    def strategy(self) -> dict[str, Any]:
        return dict(self.record["run"]["strategy"])

    @property
    def seed(self) -> int:
        return int(self.record["run"]["seed"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything but strategy and seed, and how many images there were."""
        settings = {name: value for name, value in self.record["run"].items() if name not in ("strategy", "seed")}
        return settings | {name: self.record[name] for name in ("n_pool", "n_validation", "n_test")}

    @cached_property
    def digest(self) -> str:
        """Of all that two runs must share to be the same one."""
        return digest_json([self.settings, self.strategy, self.seed])


def read_runs(store: RunStore, ids: Iterable[str] | None = None, place: str = "") -> tuple[list[Run], list[str]]:
    """The runs of a store, and sentences for all that had to be left out: damaged runs, older ones of a
    configuration, and without `ids` half-written runs and what is none.

    ids : of the runs to read; None reads all
    place : of those all, only the ones in this folder of the store, such as `digits`
    """
    problems: list[str] = []
    if ids is None:
        survey = store.survey(place)
        ids, problems = survey.finished, strays(store.root, survey)
    runs: dict[str, Run] = {}
    replaced = []
    for run_id in ids:
        try:
            run = find_run(store, run_id)
        except CacheMismatchError as error:
            problems.append(f"left out {error}: {REMEDY}")
            continue
        if run is None:
            continue
        if run.digest in runs:
            older, run = sorted((runs[run.digest], run), key=written)
            replaced.append(str(older.stored.path))
        runs[run.digest] = run
    if replaced:
        problems.append(f"left out {_some(replaced)}: each has a newer run of the same configuration")
    return list(runs.values()), problems


def sound_runs(store: RunStore, ids: Iterable[str] | None = None, place: str = "") -> list[Run]:
    """The runs that can be read; what had to be left out is named on stderr. As `read_runs` otherwise."""
    runs, problems = read_runs(store, ids, place)
    for problem in problems:
        print(f"alcove: {problem}", file=sys.stderr)
    return runs


def find_run(store: RunStore, run_id: str, with_log: bool = False) -> Run | None:
    """The finished run of that id, or None. Raises CacheMismatchError, `the damaged run PATH (why)`.

    with_log : its candidate log, where it has one, must be whole too
    """
    with damage_named(store.root / run_id):
        stored = store.get(run_id)
        if stored and with_log and stored.candidates_path:
            pq.read_metadata(pa.BufferReader(stored.candidates_path.read_bytes()))
        return read_run(stored) if stored else None


@contextmanager
def damage_named(path: Location) -> Iterator[None]:
    """Around all reading of a run: raises CacheMismatchError where it is not what a finished run wrote."""
    try:
        yield
    except _DAMAGE as error:
        raise CacheMismatchError(f"the damaged run {path} ({_reason(error)})") from error


def read_run(stored: StoredRun) -> Run:
    """Raises one of many errors where record or rounds are not those of a finished run: see `find_run`."""
    _require(stored.record, RECORD, "run.json")
    about = stored.record["run"]
    rounds = stored.columns(COLUMNS)
    if absent := set(COLUMNS) - set(rounds.column_names):
        raise ValueError(f"rounds.parquet has no {' and no '.join(sorted(absent))}")
    expected = Protocol(**about["protocol"]).n_rounds(stored.record["n_pool"])
    if len(rounds) != expected:
        raise ValueError(f"rounds.parquet has {len(rounds)} rounds instead of {expected}")
    budget = rounds["budget_spent"].to_numpy()
    accuracy = rounds["test_accuracy"].to_numpy().astype(float)
    if budget.dtype.kind != "i" or not (np.diff(budget) > 0).all() or about["seed"] < 0:
        raise ValueError("labels that do not grow, or a negative seed")
    run = Run(
        stored=stored,
        budget=budget,
        accuracy=accuracy,
        aubc=aubc(accuracy),
        seconds=float(stored.record["summary"]["seconds"]),
    )
    assert run.digest  # raises ValueError where a setting is not a number
    return run


def _require(value: Any, shape: Any, where: str) -> None:
    """Raises KeyError or TypeError where a JSON value is not of the shape that RECORD explains."""
    if not isinstance(value, type(shape) if isinstance(shape, dict | list) else shape) or isinstance(value, bool):
        raise TypeError(f"{where} is of type {type(value).__name__}")
    if isinstance(value, list):
        for item in value:
            _require(item, shape[0], where)
    if isinstance(value, dict):
        for name, part in shape.items():
            optional, name = name.endswith("?"), name.removesuffix("?")
            if not optional or value.get(name) is not None:
                _require(value[name], part, f"{where}: {name}")


def strays(root: Location, survey: Survey) -> list[str]:
    """One sentence for each kind of thing in a run store that is no finished run."""
    said = [f"passed over {error.filename} ({error.strerror})" for error in survey.unreadable]
    if survey.half_written:
        said.append(
            f"left out what is half-written, or being written, in {root}: {_some(survey.half_written)}: "
            f"`make al` finishes it, or remove it"
        )
    if survey.foreign:
        said.append(f"passed over what is no run in {root}: {_some(survey.foreign)}: move it elsewhere")
    return said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _reason(error: Exception) -> str:
    if isinstance(error, CacheMismatchError):
        return "run.json is not valid JSON" if error.__cause__ else "run.json is not the record of a run"
    if isinstance(error, OSError) and error.strerror:
        return f"{str(error.filename).rpartition('/')[2]}: {error.strerror}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error).partition("\n")[0].partition(". ")[0]


def written(run: Run) -> int:
    """When its run.json was, in ns."""
    return int((run.stored.path / "run.json").stat().st_mtime_ns)
