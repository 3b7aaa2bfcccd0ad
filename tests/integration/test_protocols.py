"""Initial sets, percentages, pool variants and `alcove runs` through the command line, on a small folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cache.location import Location
from cache.runs import RunStore
from pipeline.cli import main
from pipeline.grid import LOG_FORMAT
from stages.al.initial import INITIAL_SETS
from tests.files import photos, tree
from tests.unit.test_report import put_grid

EMBED = ["--backbone", "simclr:width=4:steps=3:batch_size=16"]
SMALL = ["--pca", "4", "--initial-size", "4", "--budget", "9", "--log-seeds", "2", "--log-every", "3", "--workers", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def embedded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
    return root


@pytest.fixture
def root(embedded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded, tmp_path / "data"))


def al(folder: Path, root: Path, *more: str) -> int:
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root)]
    return main(["al", *where, *SMALL, "--strategy", "random,margin", "--seeds", "2", *more])


def records(root: Path) -> list[dict]:
    return [run.record for run in RunStore(root / "runs")]


def test_candidate_logs_of_another_format_are_made_anew(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("pipeline.grid.LOG_FORMAT", 1)
        assert al(folder, root, "--seeds", "3") == 0
    assert al(folder, root, "--seeds", "3") == 0
    assert al(folder, root, "--seeds", "3") == 0
    said = capsys.readouterr().out
    assert [f"{new} new runs" in said for new in (6, 4, 0)] == [True] * 3, "the third seed logs nothing"
    assert {record["candidate_log"]["format"] for record in records(root) if record["candidate_log"]} == {LOG_FORMAT}


def test_every_initial_set_from_the_command_line(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in INITIAL_SETS:
        assert al(folder, root, "--initial", name) == 0
    assert capsys.readouterr().out.count("4 new runs, 0 reused") == len(INITIAL_SETS)
    starts: dict[tuple[str, int], set[tuple[str, ...]]] = {}
    for run in RunStore(root / "runs"):
        about = run.record["run"]
        key = (about["protocol"].get("initial", "random"), about["seed"])
        starts.setdefault(key, set()).add(tuple(run.rounds()["queried"][0]))
    assert len(starts) == 2 * len(INITIAL_SETS)
    assert {len(sets) for sets in starts.values()} == {1}
    assert al(folder, root, "--initial", "kmean") == 2
    assert "did you mean 'kmeans'" in capsys.readouterr().err
    assert al(folder, root, "--initial", "one_per_class", "--initial-size", "2") == 2
    assert "initial_size=2 is less than the 3 classes" in capsys.readouterr().err


def test_percentages_are_recorded_as_numbers_and_are_the_same_runs(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert al(folder, root) == 0
    (n_pool,) = {record["n_pool"] for record in records(root)}
    assert al(folder, root, "--budget", f"{100 * 9 / n_pool:.6f}%") == 0
    assert "0 new runs, 4 reused" in capsys.readouterr().out
    assert {record["run"]["protocol"]["budget"] for record in records(root)} == {9}
    assert al(folder, root, "--budget", "1%") == 2
    assert "do not go together" in capsys.readouterr().err


def test_the_variants_of_a_pool(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("whole", "longtail:4", "redundant:3:10", "subset:50%")
    for pool in asked:
        assert al(folder, root, "--pool", pool) == 0
        assert "4 new runs, 0 reused" in capsys.readouterr().out
    by_pool = {record["run"].get("pool", "whole"): record for record in records(root)}
    n_pool = by_pool["whole"]["n_pool"]
    assert set(by_pool) == {"whole", "longtail:4", "redundant:3:10", f"subset:{round(n_pool / 2)}"}
    assert {(record["n_validation"], record["n_test"]) for record in by_pool.values()} == {
        (by_pool["whole"]["n_validation"], by_pool["whole"]["n_test"])
    }
    assert len(list(root.glob("features/*/*/*/manifest.json"))) == 1, "nothing is embedded again"

    found = []
    for basis in root.glob("derived/*/*"):
        views, labels = np.load(next(basis.glob("pool-*"))), np.load(next(basis.glob("labels-*")))
        sizes = [len(np.load(next(basis.glob(f"{name}-*")))[0]) for name in ("pool", "validation", "test")]
        assert sum(sizes) == len(labels)
        found.append((sizes[0], labels[sizes[0] :].tolist()))
        if sizes[0] == 30:
            assert (views[:, :10] == views[:, 10:20]).all() and (views[:, :10] == views[:, 20:]).all()
            assert (labels[:10] == labels[10:20]).all() and (labels[:10] == labels[20:30]).all()
    assert len(found) == 4 and all(rest == found[0][1] for _, rest in found), "validation and test are untouched"

    assert al(folder, root, "--pool", "imbalanced:4") == 0
    imbalanced = next(record for record in records(root) if record["run"].get("pool") == "imbalanced:4")
    assert imbalanced["n_pool"] == by_pool["longtail:4"]["n_pool"]
    assert imbalanced["n_test"] < by_pool["whole"]["n_test"], "its test images are imbalanced too"
    by_pool["imbalanced:4"] = imbalanced

    assert main(["report", "--data-root", str(root)]) == 0
    table = pd.read_csv(root / "reports" / "report.csv")
    assert table.groupby("group").size().tolist() == [2, 2, 2, 2, 2]
    assert set(table["pool"].dropna()) == set(by_pool) - {"whole"}
    assert "pool longtail:4" in (root / "reports" / "report.html").read_text()


def test_the_surrogate_learns_from_its_own_pool_only(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for pool in ("whole", "redundant:2:20"):
        assert al(folder, root, "--pool", pool, "--seeds", "4") == 0
    surrogate = [
        "surrogate",
        "--recipe",
        "gains",
        "--dataset",
        f"folder:{folder}",
        "--pca",
        "4",
        "--workers",
        "1",
        "--data-root",
        str(root),
    ]
    for pool in ("whole", "redundant:2:20"):
        assert main([*surrogate, "--pool", pool]) == 0
    manifests = [json.loads(path.read_text()) for path in root.glob("surrogates/*/*/*/gains/manifest.json")]
    assert [manifest["about"]["logs"] for manifest in manifests] == [4, 4]
    capsys.readouterr()
    assert main([*surrogate, "--pool", "redundant:2:21"]) == 2
    assert "copies of one image" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pool", ["longtail", "longtail:0", "subset:1000", "redundant:2", "redundant:2:999", "lontail:5"]
)
def test_an_impossible_pool_is_one_sentence(
    pool: str, folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    assert al(folder, root, "--pool", pool) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: ") and said.count("\n") == 1
    assert tree(root) == before


def test_runs_are_listed_and_shown(place: Location, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder and in an object store."""
    data = ["--data-root", str(place)]
    assert main(["runs", *data]) == 2
    assert "run `make al` first" in capsys.readouterr().err
    put_grid(place)
    put_grid(place, dataset="cifar10", backbone="dinov2")
    assert main(["runs", *data]) == 0
    shared, (header, *lines) = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert shared == ["head      ridge", "protocol  10 to 30 by 1, PCA 50"]
    assert header.split()[:2] == ["data", "set"] and len(lines) == 8
    (margin,) = [line for line in lines if "digits" in line and "margin" in line]
    aubc = [
        run.record["summary"]["aubc"]
        for run in RunStore(place / "runs")
        if "digits/simclr-net.w1/ridge-margin" in str(run.path)
    ]
    error = np.std(aubc, ddof=1) / len(aubc) ** 0.5
    assert f"0–4    {np.mean(aubc):.4f} ± {error:.4f}" in margin

    assert main(["runs", "--dataset", "cifar10", "--backbone", "dinov2", "--strategy", "margin,random", *data]) == 0
    assert len(capsys.readouterr().out.split("\n\n")[1].splitlines()) == 3
    assert main(["runs", "--strategy", "marign", *data]) == 2
    assert "strategy='marign'" in capsys.readouterr().err

    run_id = next(run_id for run_id in RunStore(place / "runs").ids() if "random-s3" in run_id)
    assert main(["runs", "show", "--key", run_id, *data]) == 0
    shown = capsys.readouterr().out
    for said in (
        run_id,
        "alcove al --seeds 5",
        "numpy 2.0",
        "not recorded",
        '"budget":30',
        "21, test accuracy",
        "at 30",
    ):
        assert said in shown
    assert main(["runs", "show", *data]) == 2
    assert "show wants one run" in capsys.readouterr().err
    assert main(["runs", "show", "--key", "nothing", *data]) == 2
    assert "no run with key 'nothing'" in capsys.readouterr().err

    (place / "runs" / run_id / "run.json").write_bytes(b"[]")
    assert main(["runs", *data]) == 0
    said = capsys.readouterr()
    assert run_id in said.err and "damaged" in said.err and len(said.out.split("\n\n")[1].splitlines()) == 9
    assert main(["runs", "show", "--key", run_id, *data]) == 2
    assert said.err.count("\n") == 1
    other = next(name for name in RunStore(place / "runs").ids() if "random-s4" in name)
    (place / "runs" / other / "rounds.parquet").write_bytes(b"x")
    assert main(["runs", "show", "--key", other, *data]) == 2
    assert f"the damaged run {place / 'runs' / other}" in capsys.readouterr().err


def test_real_runs_are_shown(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert al(folder, root, "--pool", "longtail:3", "--initial", "kcenter") == 0
    capsys.readouterr()
    assert main(["runs", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "protocol  4 to 9 by 1, pool longtail:3, initial set kcenter, PCA 4\n" in out
    key = out.splitlines()[-1].split()[-1]
    assert main(["runs", "show", "--key", key, "--data-root", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "pool            longtail:3" in shown and "time      fit" in shown
