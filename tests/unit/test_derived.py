"""Derived arrays: computed once, never served unless they are what was written."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import cache.derived
from cache.derived import DerivedStore
from cache.errors import CacheMismatchError

K = {"k": 3}
GRAPH = {"indices": np.arange(12, dtype=np.int32).reshape(4, 3), "distances": np.linspace(0, 1, 12, dtype=np.float32)}
OTHER = {name: values + 1 for name, values in GRAPH.items()}


@pytest.fixture
def store(tmp_path: Path) -> DerivedStore:
    return DerivedStore(tmp_path / "key", "basis")


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets what this process has verified."""

    def forget() -> None:
        monkeypatch.setattr(cache.derived, "_verified", {})

    forget()
    return forget


def never() -> Mapping[str, np.ndarray]:
    raise AssertionError("computed again")


def graph(store: DerivedStore, compute: Callable = lambda: GRAPH, name: str = "graph") -> dict[str, np.ndarray]:
    return store.get_all(name, K, compute)


def assert_graph(found: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(GRAPH)
    for name, values in GRAPH.items():
        assert isinstance(found[name].base, np.memmap) and found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def arrays(store: DerivedStore) -> list[Path]:
    return sorted(store.root.rglob("*.npy"))


def record(store: DerivedStore) -> Path:
    (path,) = store.root.rglob("*.json")
    return path


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_arrays_are_computed_once_and_mapped(store: DerivedStore) -> None:
    assert not store.has("graph", K)
    assert_graph(graph(store))
    assert store.has("graph", K) and not store.has("graph", {"k": 4})
    assert_graph(graph(store, never))
    assert_graph(graph(DerivedStore(store.root, store.basis), never))


def test_one_array(store: DerivedStore) -> None:
    for empty in ((0,), (3, 0)):
        found = store.get("nothing", {"shape": empty}, lambda shape=empty: np.empty(shape, dtype=np.int32))
        assert found.shape == empty and found.dtype == np.int32
    assert store.get("one", {}, lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert store.get("one", {}, never).tolist() == [0, 1, 2]


def test_what_the_record_says(store: DerivedStore) -> None:
    graph(store)
    said = json.loads(record(store).read_text())
    assert said["format"] == cache.derived.FORMAT and said["of"] == ["key", "basis", "graph", K]
    assert said["arrays"]["indices"]["shape"] == [4, 3] and said["arrays"]["indices"]["dtype"] == "<i4"
    assert len(said["arrays"]["indices"]["digest"]) == len(said["digest"]) == 64


def test_a_file_is_read_in_full_once_a_process(
    store: DerivedStore, monkeypatch: pytest.MonkeyPatch, new_process: Callable[[], None]
) -> None:
    read: list[Path] = []
    digest = cache.derived.digest_file
    graph(store)
    monkeypatch.setattr(cache.derived, "digest_file", lambda path: read.append(path) or digest(path))
    graph(store, never)
    assert read == []
    os.utime(arrays(store)[0])
    assert_graph(graph(store, never))
    assert read == arrays(store)[:1]
    new_process()
    assert_graph(graph(store, never))
    assert read[1:] == arrays(store)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["first byte", "last byte", "truncated", "empty", "foreign", "longer"])
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_a_damaged_array_is_refused_and_deleting_it_is_the_way_out(
    store: DerivedStore, which: int, damage: str, seen: bool, new_process: Callable[[], None]
) -> None:
    graph(store)
    path = arrays(store)[which]
    content = path.read_bytes()
    match damage:
        case "first byte":
            flip(path, 0)
        case "last byte":
            flip(path, -1)
        case "truncated":
            path.write_bytes(content[:-4])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.write_bytes(arrays(store)[1 - which].read_bytes())
        case "longer":
            path.write_bytes(content + b"0")
    if not seen:
        new_process()
    for _ in range(2):
        with pytest.raises(CacheMismatchError) as refused:
            graph(store, never)
        assert str(refused.value) == f"{path} is not what was written: delete it and run again"
    path.unlink()
    assert not store.has("graph", K)
    assert_graph(graph(store))


def test_every_damaged_byte_of_a_record_is_refused(store: DerivedStore) -> None:
    graph(store)
    path, content = record(store), record(store).read_bytes()
    for position in range(len(content)):
        flip(path, position)
        if json_or_none(path) != json.loads(content):  # white space says nothing
            with pytest.raises(CacheMismatchError, match="delete it and run again"):
                graph(store, never)
        path.write_bytes(content)
    path.write_bytes(content[:-5])
    with pytest.raises(CacheMismatchError, match=path.name):
        store.has("graph", K)
    path.unlink()
    assert_graph(graph(store))


def json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


@pytest.mark.parametrize("other", [("other key", "basis", K), ("key", "other", K), ("key", "basis", {"k": 4})])
def test_files_of_another_store_or_computation_are_refused(
    store: DerivedStore, other: tuple, new_process: Callable[[], None]
) -> None:
    """Arrays and records are exchanged together, so that they agree with each other."""
    key, basis, parameters = other
    stranger = DerivedStore(store.root.with_name(key), basis)
    graph(store)
    stranger.get_all("graph", parameters, lambda: OTHER)
    new_process()
    for ours, theirs in zip(
        [store._record("graph", K), *(store._file(name, K) for name in GRAPH)],
        [stranger._record("graph", parameters), *(stranger._file(name, parameters) for name in GRAPH)],
        strict=True,
    ):
        theirs.replace(ours)
    with pytest.raises(CacheMismatchError, match="is not what was written"):
        graph(store, never)
    store._record("graph", K).unlink()
    assert_graph(graph(store))


def test_without_a_record_or_of_another_format_is_computed_again(
    store: DerivedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph(store, lambda: OTHER)
    record(store).unlink()
    assert not store.has("graph", K)
    assert_graph(graph(store))
    monkeypatch.setattr(cache.derived, "FORMAT", cache.derived.FORMAT + 1)
    assert not store.has("graph", K)
    assert graph(store, lambda: OTHER)["indices"].tolist() == OTHER["indices"].tolist()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("instant", range(6))
@pytest.mark.parametrize("before", ["nothing", "other format"])
def test_a_kill_between_any_two_renames_leaves_nothing_usable(
    store: DerivedStore, before: str, instant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arrays and the record: killed before and after each takes its name, over older files or none."""
    if before == "other format":
        with monkeypatch.context() as older:
            older.setattr(cache.derived, "FORMAT", 0)
            graph(store, lambda: OTHER)
    replace, done = Path.replace, []

    def killed(path: Path, target: Path) -> None:
        if instant % 2:
            replace(path, target)
        done.append(target)
        if len(done) > instant // 2:
            raise Killed
        if not instant % 2:
            replace(path, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "replace", killed)
        graph(store)
    assert store.has("graph", K) == (instant == 5)
    assert_graph(graph(store, never if instant == 5 else lambda: GRAPH))


def test_what_a_kill_left_half_written_is_cleared(store: DerivedStore) -> None:
    graph(store)
    path = arrays(store)[0]
    left = path.with_name(f".{path.name}.0123.partial")
    left.write_bytes(b"half")
    path.unlink()
    assert_graph(graph(store))
    assert not left.exists()


def test_a_failed_computation_leaves_nothing(store: DerivedStore) -> None:
    with pytest.raises(ZeroDivisionError):
        graph(store, lambda: 1 / 0)
    assert not store.has("graph", K)
    assert_graph(graph(store))


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    yield context


def compute_slowly(log: Path, name: str, seconds: float) -> dict[str, np.ndarray]:
    with log.open("a") as file:
        file.write(f"{name}\n")
    time.sleep(seconds)
    return GRAPH


def ask(root: Path, log: Path, names: list[str], seconds: float) -> None:
    """Asks for the first name, whose computation asks for the second, and so on."""
    store = DerivedStore(root, "basis")

    def compute() -> dict[str, np.ndarray]:
        if names[1:]:
            ask(root, log, names[1:], seconds)
        values = compute_slowly(log, names[0], seconds)
        return {f"{names[0]}-{name}": array for name, array in values.items()}

    found = store.get_all(names[0], K, compute)
    np.testing.assert_array_equal(found[f"{names[0]}-indices"], GRAPH["indices"])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_three_processes_compute_once(processes, tmp_path: Path) -> None:
    """Also where a computation asks for another one that the others want too."""
    log, asked = tmp_path / "log", [["outer", "inner"], ["outer", "inner"], ["inner"]]
    started = [processes.Process(target=ask, args=(tmp_path / "key", log, names, 0.3)) for names in asked]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert sorted(log.read_text().split()) == ["inner", "outer"]


def test_the_next_one_computes_after_kill_9(processes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    victim = processes.Process(target=ask, args=(tmp_path / "key", log, ["graph"], 600))
    victim.start()
    wait_for(log)
    waiting = processes.Process(target=ask, args=(tmp_path / "key", log, ["graph"], 0))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and log.read_text().split() == ["graph"], "it waits for the one that computes"
    victim.kill()
    waiting.join(60)
    assert waiting.exitcode == 0 and log.read_text().split() == ["graph", "graph"]
    victim.join()
