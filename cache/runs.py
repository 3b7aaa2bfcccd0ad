"""The run store: one folder per active-learning run, in Parquet and JSON.

<root>/<data set>/<backbone's full name>/<run>/
    rounds.parquet       one row per round
    candidates.parquet   one row per candidate of the logged rounds, when asked for
    run.json             configuration, summary, versions; written last: its existence says that the run is there
Each file is written whole. A run is replaced by removing its run.json first.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import CacheMismatchError
from cache.files import PARTIAL, remove, write_json, write_whole
from cache.location import Location, files_under

FILES = ("rounds.parquet", "candidates.parquet", "run.json")


@dataclass(frozen=True)
class StoredRun:
    """A finished run. record : run.json"""

    path: Location
    record: dict[str, Any]

    def rounds(self) -> pd.DataFrame:
        """One row per round: round, budget_spent, queried, test_* and val_* metrics, seconds_*."""
        return pd.read_parquet(io.BytesIO((self.path / "rounds.parquet").read_bytes()))

    @property
    def candidates_path(self) -> Location | None:
        path = self.path / "candidates.parquet"
        return path if path.exists() else None


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

    def ids(self) -> list[str]:
        """Ids of all finished runs, sorted."""
        return self.contents()[0]

    def contents(self) -> tuple[list[str], list[str]]:
        """Ids of all finished runs, and one sentence for each file or folder that is of no finished run. Sorted."""
        names = sorted(files_under(self.root))
        finished = {name.rpartition("/")[0] for name in names if name.count("/") == 3 and name.endswith("/run.json")}
        problems = []
        for name in names:
            folder, _, file = name.rpartition("/")
            if file.endswith(PARTIAL):
                problems.append(f"left out the half-written file {self.root / name}: delete it")
            elif file in FILES and name.count("/") == 3 and folder not in finished:
                problems.append(f"left out the half-written run {self.root / folder}: it has no run.json, run it again")
            elif folder not in finished or file not in FILES:
                problems.append(f"left out the foreign file {self.root / name}: alcove did not write it")
        return sorted(finished), list(dict.fromkeys(problems))

    def __iter__(self) -> Iterator[StoredRun]:
        """All finished runs, by id."""
        for run_id in self.ids():
            if run := self.get(run_id):
                yield run
