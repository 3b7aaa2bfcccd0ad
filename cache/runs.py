"""The run store: one folder per active-learning run, in Parquet and JSON.

<root>/<data set>/<backbone's full name>/<run>/
    rounds.parquet       one row per round
    candidates.parquet   one row per candidate of the logged rounds, when asked for
    run.json             configuration, summary, versions; written last: its existence says that the run is there
Each file is written whole. A run is replaced by removing its run.json first.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import CacheMismatchError
from cache.files import PARTIAL, remove, write_json, write_whole
from cache.location import Location, files_under

FILES = ("run.json", "rounds.parquet", "candidates.parquet")


@dataclass(frozen=True)
class StoredRun:
    """A finished run. record : run.json"""

    path: Location
    record: dict[str, Any]

    def rounds(self) -> pd.DataFrame:
        """One row per round: round, budget_spent, queried, test_* and val_* metrics, seconds_*."""
        return self.columns(None).to_pandas()

    def columns(self, names: Sequence[str] | None) -> pa.Table:
        """Those columns of `rounds` that are there, in a tenth of the time; None takes all."""
        file = pq.ParquetFile(pa.BufferReader((self.path / "rounds.parquet").read_bytes()))
        return file.read(names, use_threads=False)

    @property
    def candidates_path(self) -> Location | None:
        path = self.path / "candidates.parquet"
        return path if path.exists() else None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a run store, as relative paths, each kind sorted.

    finished : ids of runs with a run.json
    half_written : ids of runs without, and files elsewhere that a writer at work, or a killed one, has not put in place
    foreign : files that alcove did not write there; a folder that has only such files stands for them, with a slash
    unreadable : what the system did not let us look at
    """

    finished: tuple[str, ...]
    half_written: tuple[str, ...]
    foreign: tuple[str, ...]
    unreadable: tuple[OSError, ...]


@dataclass(frozen=True)
class RunStore:
    root: Location

    def get(self, run_id: str) -> StoredRun | None:
        """The finished run of that id (a relative path), or None. Raises CacheMismatchError where it is damaged."""
        path = self.root / run_id
        try:
            record = json.loads((path / "run.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CacheMismatchError(f"{path / 'run.json'} is not valid JSON: delete {path} and run again") from error
        if not isinstance(record, dict) or "run" not in record:
            raise CacheMismatchError(f"{path / 'run.json'} is not the record of a run: delete {path} and run again")
        return StoredRun(path, record)

    def put(
        self, run_id: str, record: Mapping[str, Any], rounds: pa.Table, candidates: pa.Table | None = None
    ) -> StoredRun:
        """Store a run, replacing one of the same id."""
        path = self.root / run_id
        remove(path / "run.json")
        remove(path / "candidates.parquet")
        for name, table in (("rounds", rounds), ("candidates", candidates)):
            if table is not None:
                write_whole(
                    path / f"{name}.parquet", partial(pq.write_table, table, compression="zstd", use_dictionary=False)
                )
        write_json(path / "run.json", record)
        return StoredRun(path, dict(record))

    def survey(self, place: str = "") -> Survey:
        """Everything in the store, or in a folder of it, none of it opened."""
        unreadable: list[OSError] = []
        runs: dict[str, set[str]] = {}
        partial, others = set(), []
        for found in files_under(self.root / place, unreadable.append):
            name = f"{place}/{found}" if place else found
            folder, _, file = name.rpartition("/")
            if file.endswith(PARTIAL):
                partial.add(name)
            elif folder.count("/") == 2 and file in FILES:
                runs.setdefault(folder, set()).add(file)
            else:
                others.append(name)
        finished = {run_id for run_id, files in runs.items() if "run.json" in files}
        half = runs.keys() - finished
        places = {"/".join(run_id.split("/")[:depth]) for run_id in runs for depth in (1, 2, 3)}
        return Survey(
            finished=tuple(sorted(finished)),
            half_written=tuple(sorted(half | {name for name in partial if name.rpartition("/")[0] not in half})),
            foreign=tuple(sorted({_outermost(name, places) for name in others})),
            unreadable=tuple(error for error in unreadable if not isinstance(error, FileNotFoundError)),
        )

    def ids(self) -> list[str]:
        """Ids of all finished runs, sorted."""
        return list(self.survey().finished)

    def __iter__(self) -> Iterator[StoredRun]:
        """All finished runs, by id."""
        for run_id in self.ids():
            if run := self.get(run_id):
                yield run


def _outermost(name: str, places: Collection[str]) -> str:
    """The first folder on the way to a file that no run lies in, with a slash; without one, the file."""
    parts = name.split("/")
    folders = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return next((f"{folder}/" for folder in folders if folder not in places), name)
