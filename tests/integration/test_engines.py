"""The engines of a grid: the same runs on each, and what is left when something is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import psutil
import pytest

import pipeline.engines
from cache.errors import AlcoveError
from pipeline.cli import main
from pipeline.engines import Dask, Processes, build_engine
from tests.files import photos
from tests.integration.jobs import die_first, leave

ROOT = Path(__file__).resolve().parents[2]
EMBED = ["--backbone", "simclr:width=4", "--weights", "random"]
AL = ["--backbone", "simclr", "--pca", "4", "--initial-size", "4", "--budget", "24"]
AL += ["--strategy", "random,margin", "--seeds", "2"]
ENGINES = pytest.mark.parametrize("engine", [Processes(), Dask()], ids=["processes", "dask"])


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words that name a data set, and a data root with its features."""
    folder, root = photos(tmp_path_factory.mktemp("photos")), tmp_path_factory.mktemp("data")
    dataset = ["--dataset", f"folder:{folder}"]
    assert main(["embed", *dataset, *EMBED, "--data-root", str(root)]) == 0
    return dataset, root


@pytest.fixture
def al(embedded: tuple[list[str], Path], tmp_path: Path) -> Callable[..., list[str]]:
    """An `al` command on a data root of that name."""

    def command(name: str, *more: str) -> list[str]:
        dataset, root = embedded
        if not (tmp_path / name).exists():
            shutil.copytree(root, tmp_path / name)
        return ["al", *dataset, "--data-root", str(tmp_path / name), *AL, *more]

    return command


def curves(root: Path) -> dict[str, pd.DataFrame]:
    """What the runs did, without how long it took."""
    return {
        file.parent.name: pd.read_parquet(file).filter(regex="^(?!seconds)")
        for file in sorted(root.glob("runs/*/*/*/rounds.parquet"))
    }


def assert_same_curves(a: Path, b: Path) -> None:
    assert curves(a).keys() == curves(b).keys()
    for name, rounds in curves(a).items():
        pd.testing.assert_frame_equal(rounds, curves(b)[name], check_exact=True)


def children() -> set[int]:
    """Processes that were started here, but for Python's trackers of shared resources."""
    found = {child.pid: " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)}
    return {pid for pid, command in found.items() if "resource_tracker" not in command}


def test_every_engine_does_the_same_runs(
    al: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one worker, on a dask cluster of this machine, and on one that was there before; on two processes below."""
    from distributed import LocalCluster

    assert main(al("one", "--workers", "1")) == 0
    before = children()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(al("dask", "--workers", "2", "--engine", "dask")) == 0
    assert not list(Path().iterdir())
    there = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": ":0"}
    with LocalCluster(
        n_workers=1, threads_per_worker=2, **there, silence_logs=50, local_directory=tmp_path / "dask's"
    ) as cluster:
        monkeypatch.chdir(tmp_path)
        joined = al("joined", "--engine", f"dask:{cluster.scheduler_address}")
        joined[joined.index("--data-root") + 1] = "joined"
        assert main(joined) == 0
    assert capsys.readouterr().out.count("4 new runs, 0 reused") == 3
    assert len(curves(tmp_path / "one")) == 4
    for other in ("dask", "joined"):
        assert_same_curves(tmp_path / "one", tmp_path / other)
    assert children() == before


def test_a_grid_that_was_stopped_goes_on(
    al: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers go with the main process, whether the terminal sends Ctrl-C to all or it alone is killed."""
    command = [sys.executable, "-m", "pipeline", *al("stopped", "--workers", "2", "--seeds", "6")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    kept: dict[Path, int] = {}
    for sent in (signal.SIGINT, signal.SIGKILL):
        started = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while len(found := list(tmp_path.glob("stopped/runs/*/*/*/run.json"))) <= len(kept):
            assert started.poll() is None
            time.sleep(0.005)
        kept = kept | {file: file.stat().st_mtime_ns for file in found}
        workers = psutil.Process(started.pid).children(recursive=True)
        if sent == signal.SIGINT:
            os.killpg(started.pid, sent)
            said = b"alcove: stopped; what is finished is kept, run the same command again to go on\n"
            assert started.communicate(timeout=10)[1] == said
            assert started.returncode == 130
        else:
            started.kill()
            started.communicate(timeout=10)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
    capsys.readouterr()
    assert main(al("stopped", "--workers", "1", "--seeds", "6")) == 0
    assert "12 new runs" not in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert main(al("whole", "--workers", "1", "--seeds", "6")) == 0
    assert_same_curves(tmp_path / "stopped", tmp_path / "whole")


@ENGINES
def test_a_killed_worker_costs_only_what_it_was_at(engine: Processes | Dask, tmp_path: Path) -> None:
    jobs: list[partial[None]] = [partial(die_first, "killed", tmp_path, 1)]
    jobs += [partial(leave, f"job {i}", tmp_path) for i in range(6)]
    before = children()
    with pytest.warns(UserWarning, match=r"a worker process was killed.*1 killed so far|dask lost the worker"):
        done = list(engine.finish(jobs, 2, tmp_path))
    assert sorted(map(id, done)) == sorted(map(id, jobs))
    said = {name: (tmp_path / name).read_text().split() for name in ["killed", *(f"job {i}" for i in range(6))]}
    assert {threads for _, threads in map(tuple, said.values())} == {"1"}
    assert (tmp_path / "killed.deaths").read_text() == "xx"
    assert children() == before


@ENGINES
@pytest.mark.filterwarnings("ignore:a worker process was killed", "ignore:dask lost the worker")
def test_a_job_that_kills_every_worker_is_given_up(engine: Processes | Dask, tmp_path: Path) -> None:
    """All others are done before; with dask those it never shared a worker with."""
    jobs: list[partial[None]] = [partial(die_first, "deadly", tmp_path, 99), partial(leave, "good", tmp_path)]
    before = children()
    with pytest.raises(AlcoveError, match=r"killed.*want of memory.*WORKERS=1.*PCA=.*finished is kept"):
        list(engine.finish(jobs, 2, tmp_path))
    assert (tmp_path / "good").exists()
    assert 3 <= len((tmp_path / "deadly.deaths").read_text()) <= 4
    assert children() == before


@ENGINES
def test_what_a_job_raises_is_raised(engine: Processes | Dask, tmp_path: Path) -> None:
    before = children()
    with pytest.raises(NotADirectoryError):
        list(engine.finish([partial(leave, "x", tmp_path / __file__), partial(leave, "y", tmp_path)], 2, tmp_path))
    assert children() == before


def test_a_dask_worker_must_see_the_data_root(tmp_path: Path) -> None:
    engine = Dask()
    with pytest.raises(AlcoveError, match=r"does not see .*nowhere: its machine needs the data root"):
        list(engine.finish([partial(leave, "x", tmp_path)], 1, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("dsk", "did you mean 'dask'? Known: dask, processes"),
        ("processes:2", "processes takes nothing after a colon"),
        ("dask:host", "write dask:tcp://HOST:8786"),
        ("dask:tcp://127.0.0.1:1", "no dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_an_impossible_engine_is_one_sentence(
    al: Callable[..., list[str]],
    engine: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pipeline.engines, "PATIENCE", 0.5)
    assert main(al("data", "--engine", engine)) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found


def test_dask_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.engines, "find_spec", lambda name: None if name == "distributed" else find_spec(name))
    with pytest.raises(AlcoveError, match=r"pip install 'alcove\[dask\]'"):
        build_engine("dask")
