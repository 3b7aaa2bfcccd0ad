"""What the run store must keep, in a folder and in an object store."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache import runs
from cache.errors import CacheMismatchError
from cache.location import Location, files_under
from cache.runs import RunStore

RUN_ID = "photos/net-w8.random/ridge-margin-s0-0123456789"
ROUNDS = pa.table({"round": [0, 1], "queried": [["a", "b"], ["ä"]]})
CANDIDATES = pa.table({"round": [0, 0], "margin": [0.5, 0.25]})


@pytest.fixture
def store(place: Location) -> RunStore:
    return RunStore(place / "runs")


def test_reads_back_what_was_written(store: RunStore) -> None:
    assert store.ids() == []
    assert store.get(RUN_ID) is None
    store.put(RUN_ID, {"run": {"seed": 0}}, ROUNDS, CANDIDATES)
    assert store.ids() == [RUN_ID]
    (run,) = store
    assert run.record == {"run": {"seed": 0}}
    assert [list(ids) for ids in run.rounds()["queried"]] == [["a", "b"], ["ä"]]
    assert run.candidates_path is not None
    assert pq.read_table(pa.BufferReader(run.candidates_path.read_bytes())).equals(CANDIDATES)


def test_a_replaced_run_keeps_nothing_of_the_old_one(store: RunStore) -> None:
    store.put(RUN_ID, {"run": {"seed": 0}}, ROUNDS, CANDIDATES)
    run = store.put(RUN_ID, {"run": {"seed": 1}}, ROUNDS.slice(1))
    assert run.candidates_path is None
    assert len(run.rounds()) == 1
    assert sorted(files_under(run.path)) == ["rounds.parquet", "run.json"]
    assert [found.record for found in store] == [{"run": {"seed": 1}}]


@pytest.mark.parametrize("file", ["rounds.parquet", "candidates.parquet", "run.json"])
@pytest.mark.parametrize("stood_before", [False, True])
def test_a_writer_that_is_killed_leaves_no_run(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, file: str, stood_before: bool
) -> None:
    if stood_before:
        store.put(RUN_ID, {"run": {"seed": 0}}, ROUNDS, CANDIDATES)
    for name in ("write_whole", "write_json"):
        monkeypatch.setattr(runs, name, killed_at(file, getattr(runs, name)))
    with pytest.raises(KeyboardInterrupt):
        store.put(RUN_ID, {"run": {"seed": 1}}, ROUNDS, CANDIDATES)
    assert store.get(RUN_ID) is None
    assert store.ids() == []
    monkeypatch.undo()


def killed_at(file: str, write: object) -> object:
    def writing(path: Location, content: object) -> None:
        if path.name == file:
            raise KeyboardInterrupt
        write(path, content)  # type: ignore[operator]

    return writing


@pytest.mark.parametrize("content", [b"[]", b"{", b"{}"])
def test_a_damaged_record_is_named(store: RunStore, content: bytes) -> None:
    run = store.put(RUN_ID, {"run": {"seed": 0}}, ROUNDS)
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(CacheMismatchError, match="delete .* and run again"):
        store.get(RUN_ID)
