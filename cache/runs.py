"""The run store: one folder per active-learning run, in Parquet and JSON.

<root>/<data set>/<backbone's full name>/<run>/
    rounds.parquet       one row per round
    candidates.parquet   one row per candidate of the logged rounds, when asked for
    run.json             configuration, summary, versions
The folder is made under a temporary name and renamed when whole, so a run is there completely or not at all.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import CacheMismatchError
from cache.files import PARTIAL, write_json


@dataclass(frozen=True)
class StoredRun:
    """A finished run. record : run.json"""

    path: Path
    record: dict[str, Any]

    def rounds(self) -> pd.DataFrame:
        """One row per round: round, budget_spent, queried, test_* and val_* metrics, seconds_*."""
        return pd.read_parquet(self.path / "rounds.parquet")

    @property
    def candidates_path(self) -> Path | None:
        path = self.path / "candidates.parquet"
        return path if path.exists() else None


@dataclass(frozen=True)
class RunStore:
    root: Path

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
        final = self.root / run_id
        folder = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PARTIAL}")
        folder.mkdir(parents=True)
        try:
            pq.write_table(rounds, folder / "rounds.parquet", compression="zstd")
            if candidates is not None:
                pq.write_table(candidates, folder / "candidates.parquet", compression="zstd")
            write_json(folder / "run.json", record)
            shutil.rmtree(final, ignore_errors=True)
            folder.replace(final)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return StoredRun(final, dict(record))

    def ids(self) -> list[str]:
        """Ids of all finished runs, sorted."""
        paths = (path.parent for path in self.root.glob("*/*/*/run.json") if PARTIAL not in path.parent.name)
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

    def __iter__(self) -> Iterator[StoredRun]:
        """All finished runs, by id."""
        for run_id in self.ids():
            if run := self.get(run_id):
                yield run
