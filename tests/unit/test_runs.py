"""`alcove runs`: filters, order, terminals, CSV and what reads it; and a run store that has seen accidents."""

import copy
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cache.errors import AlcoveError
from cache.runs import RunStore
from pipeline.cli import main
from pipeline.config import RunsConfig
from pipeline.gains import matching_runs
from pipeline.grid import _missing
from pipeline.reading import read_runs
from pipeline.runs import list_runs, show_run
from tests.unit.test_report import put_grid, put_run, runs_frame

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def data_root(tmp_path):
    put_grid(tmp_path)
    return tmp_path


def table(lines):
    """Rows of cells, the header first, without what stands above the table."""
    return [re.split(r" {2,}", line) for line in (lines[lines.index("") + 1 :] if "" in lines else lines)]


def test_filters_let_through_what_they_name(data_root):
    put_run(data_root, {"name": "random"}, 9, dataset="photos")
    (odd,) = (data_root / "runs" / "photos").rglob("run.json")
    record = json.loads(odd.read_text())
    record["run"] |= {"head": {"name": "solve"}, "pool": "longtail:50"}
    odd.write_text(json.dumps(record))

    def strategies(**wanted):
        return [row[0] for row in table(list_runs(RunsConfig(data_root=data_root, **wanted)))[1:]]

    assert strategies(dataset="digits") == ["surrogate", "margin", "coreset", "random"]
    assert strategies(head=("ridge",), pool="whole", sort="strategy") == ["coreset", "margin", "random", "surrogate"]
    assert strategies(strategy=("margin", "coreset")) == ["margin", "coreset"]
    assert strategies(head=("ridge",), seeds="0-2") == ["margin", "coreset", "random"]
    for wanted in ({"head": ("solve",)}, {"pool": "longtail"}, {"pool": "longtail:50"}, {"seeds": "9-9"}):
        (line,) = table(list_runs(RunsConfig(data_root=data_root, **wanted)))[1:]
        assert line[:2] == ["random", "9"]
    with pytest.raises(AlcoveError, match=r"has head='svm', seeds='3': `make runs` alone lists all$"):
        list_runs(RunsConfig(data_root=data_root, head=("svm",), seeds="3"))


def test_the_order_is_within_a_setting(data_root):
    put_run(data_root, {"name": "random"}, 0, dataset="cifar10")
    rows = table(list_runs(RunsConfig(data_root=data_root, sort="seconds")))
    place = rows[0].index("seconds")
    assert [row[0] for row in rows[1:]] == ["cifar10"] + 4 * ["digits"]
    seconds = [float(row[place]) for row in rows[2:]]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(data_root, monkeypatch, width):
    strategy = {"name": "surrogate", "model_digest": "ab" * 32, "train_seeds": list(range(1000, 1030))}
    for dataset, backbone in (("parquet-tinyimagenet32-c64bf0be", "convnet-w32.simclr-s400"), ("photos", "resnet18")):
        put_run(data_root, strategy, 0, dataset=dataset, backbone=backbone, full_name=f"{backbone}-29290fd7")
    whole = list_runs(RunsConfig(data_root=data_root))
    assert max(map(len, whole)) > 120
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = list_runs(RunsConfig(data_root=data_root))
    assert len(lines) == len(whole) and width - 15 < max(map(len, lines)) <= width
    assert [line.split()[-1] for line in lines[-6:]] == [line.split()[-1] for line in whole[-6:]]


def expected_curves(root):
    """Strategy, labels, and mean accuracy, read without the code under test."""
    parts = []
    for path in root.glob("runs/*/*/*/run.json"):
        rounds = pd.read_parquet(path.parent / "rounds.parquet")
        parts.append(rounds.assign(strategy=json.loads(path.read_text())["run"]["strategy"]["name"]))
    return pd.concat(parts).groupby(["strategy", "budget_spent"])["test_accuracy"].mean()


def test_the_readme_s_lines_read_the_store(tmp_path, monkeypatch, capsys):
    import duckdb
    import polars

    monkeypatch.chdir(tmp_path)
    put_grid(Path("data"))
    assert main(["runs", "--csv", "runs.csv"]) == 0
    assert capsys.readouterr().out == "17 runs: runs.csv\n"
    names = {"pd": pd, "pl": polars, "duckdb": duckdb}
    blocks = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "runs.csv" in block
    ]
    found = {}
    for block in blocks:
        assert block.count("\n") == 2
        exec(block, made := dict(names))
        rounds = made["rounds"]
        tool = type(rounds).__module__.partition(".")[0]
        frame = rounds if tool == "pandas" else (rounds.to_pandas if tool == "polars" else rounds.df)()
        found[tool.lstrip("_")] = frame.groupby(["strategy", "budget_spent"])["test_accuracy"].mean()
    assert len(found) == 3, found.keys()
    expected = expected_curves(Path("data"))
    for curves in found.values():
        assert curves.index.tolist() == expected.index.tolist()
        np.testing.assert_allclose(curves, expected, rtol=0, atol=1e-12)
    assert "avg(test_accuracy)" in capsys.readouterr().out


def test_the_csv_has_every_run_s_settings_and_results(data_root, tmp_path):
    assert main(["runs", "--csv", str(tmp_path / "runs.csv"), "--data-root", str(data_root)]) == 0
    rows = pd.read_csv(tmp_path / "runs.csv").sort_values(["strategy", "seed"])
    frame = runs_frame(data_root).sort_values(["strategy", "seed"])
    assert rows["strategy"].tolist() == frame["strategy"].tolist() and rows["seed"].tolist() == frame["seed"].tolist()
    np.testing.assert_allclose(rows["aubc"], frame["aubc"])
    np.testing.assert_allclose(rows["final_accuracy"], frame["final"])
    assert set(rows["initial_size"]) == {10} and set(rows["pca"]) == {50} and set(rows["pool"]) == {"whole"}
    assert all(Path(file).is_file() for file in rows["file"])
    assert json.loads(rows["head_settings"].iloc[0]) == {"name": "ridge", "penalty": 10.0}


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


def as_folder(path):
    path.unlink()
    path.mkdir()


ACCIDENTS = {
    "no record": ("run.json", Path.unlink, "half-written"),
    "record is a folder": ("run.json", as_folder, "half-written"),
    "empty record": ("run.json", lambda path: path.write_bytes(b""), "run.json is not valid JSON"),
    "record of something else": ("run.json", lambda path: path.write_text('{"a": 1}'), "not the record of a run"),
    "record of wrong types": (
        "run.json",
        lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": "0"')),
        "seed is of type str",
    ),
    "no rounds": ("rounds.parquet", Path.unlink, "rounds.parquet: No such file"),
    "truncated rounds": ("rounds.parquet", truncate, "Parquet magic bytes not found"),
    "rounds of something else": (
        "rounds.parquet",
        lambda path: pd.DataFrame({"a": range(21)}).to_parquet(path),
        "rounds.parquet has no budget_spent and no test_accuracy",
    ),
    "rounds as text": (
        "rounds.parquet",
        lambda path: pd.read_parquet(path).astype({"test_accuracy": str}).assign(test_accuracy="x").to_parquet(path),
        "could not convert",
    ),
}


@pytest.mark.parametrize("kind", ACCIDENTS)
def test_an_accident_to_a_run_is_named_and_the_rest_shown(data_root, capsys, kind):
    file, happens, reason = ACCIDENTS[kind]
    before = list_runs(RunsConfig(data_root=data_root))
    run = put_run(data_root, {"name": "entropy"}, 0)
    happens(run / file)
    assert list_runs(RunsConfig(data_root=data_root)) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and run.name in said and reason in said and "`make al`" in said
    assert main(["runs", "show", "--key", run.name, "--data-root", str(data_root)]) == 2
    assert reason in (said := capsys.readouterr().err) and said.count("\n") == 1

    run_id = "/".join(run.parts[-3:])
    store = RunStore(data_root / "runs")
    if kind != "record is a folder":
        assert _missing(store, SimpleNamespace(run_id=run_id, logging=None))
        assert capsys.readouterr().err.count("is done again\n") == (reason != "half-written")
    else:
        shutil.rmtree(run)
    task = SimpleNamespace(about={"dataset": "digits", "full_name": "simclr-net.w1", "features": "other"}, n_classes=2)
    assert matching_runs(store, task, "ridge") == []
    assert (run.name in capsys.readouterr().err) == run.exists()


def test_what_is_no_run_is_named_and_passed_over(data_root, capsys):
    before = list_runs(RunsConfig(data_root=data_root))
    store = data_root / "runs"
    (run,) = store.glob("*/*/ridge-margin-s0-*")
    for name in ("notes.txt", "digits/.DS_Store", "digits/simclr-net.w1/run.json", "photos/a/1.png", "photos/b/2.png"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("{}")
    (run / "paper.pdf").write_text("x")
    (store / "empty").mkdir()
    (store / "pipe").symlink_to(store / "nowhere")
    assert list_runs(RunsConfig(data_root=data_root)) == before
    assert capsys.readouterr().err == (
        f"alcove: passed over what is no run in {store}: digits/.DS_Store, {run.relative_to(store)}/paper.pdf, "
        f"digits/simclr-net.w1/run.json, notes.txt, photos/: move it elsewhere\n"
    )
    for i in range(4):
        (store / f"z{i}").write_text("")
    list_runs(RunsConfig(data_root=data_root))
    assert ", photos/ and 4 more: move it" in capsys.readouterr().err


def test_what_a_killed_writer_leaves_is_named(data_root, capsys):
    half = data_root / "runs" / "digits" / "simclr-net.w1" / "ridge-entropy-s0-0123456789"
    (finished,) = data_root.glob("runs/*/*/ridge-margin-s0-*")
    half.mkdir()
    for folder in (half, finished):
        (folder / ".run.json.0123.partial").write_text("{")
    (half / "rounds.parquet").write_text("")
    assert len(table(list_runs(RunsConfig(data_root=data_root)))) == 5
    place = finished.relative_to(data_root / "runs")
    assert capsys.readouterr().err == (
        f"alcove: left out what is half-written, or being written, in {data_root / 'runs'}: "
        f"{place.parent / half.name}, {place}/.run.json.0123.partial: `make al` finishes it, or remove it\n"
    )


def test_what_may_not_be_read_is_named_and_the_rest_shown(data_root, capsys, monkeypatch):
    """Root may read everything: the refusals are made here."""
    folder = put_run(data_root, {"name": "entropy"}, 0, dataset="private").parent
    record = put_run(data_root, {"name": "entropy"}, 1) / "run.json"
    scandir, read_bytes = os.scandir, Path.read_bytes

    def refuse(path):
        if Path(path) in (folder, record):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) or scandir(path))
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) or read_bytes(path))
    assert len(list_runs(RunsConfig(data_root=data_root))) == 10
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"alcove: passed over {folder} (Permission denied)"
    assert f"{record.parent} (run.json: Permission denied)" in said[1] and len(said) == 2


def leaves(value, path=()):
    """Paths to everything in a JSON value."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from leaves(value[name], (*path, name))


def test_no_record_is_a_defect_of_ours(tmp_path, capsys):
    """Everything in a run.json replaced by everything else: shown, or named, never a traceback."""
    run = put_run(tmp_path, {"name": "surrogate", "model_digest": "ab", "train_seeds": [1]}, 0, commit="0123")
    put_run(tmp_path, {"name": "surrogate", "model_digest": "cd", "train_seeds": [2]}, 1)
    record = json.loads((run / "run.json").read_text())
    for path in list(leaves(record))[1:]:
        for wrong in (None, -1, 1e400, "x", ["x", 1]):
            changed = copy.deepcopy(record)
            place = changed
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = wrong
            (run / "run.json").write_text(json.dumps(changed))
            lines = table(list_runs(RunsConfig(data_root=tmp_path)))
            damaged = capsys.readouterr().err.count("\n")
            assert len(lines) + damaged == 3, (path, wrong)
            if not damaged:
                show_run(RunsConfig(data_root=tmp_path, key=run.name))


def test_no_flipped_bit_is_a_defect_of_ours(tmp_path, capsys, rng):
    run = put_run(tmp_path, {"name": "margin"}, 0)
    put_run(tmp_path, {"name": "random"}, 0)
    whole = (run / "rounds.parquet").read_bytes()
    for place in rng.choice(len(whole), 80, replace=False):
        content = bytearray(whole)
        content[place] ^= 1 << rng.integers(8)
        (run / "rounds.parquet").write_bytes(content)
        runs, problems = read_runs(RunStore(tmp_path / "runs"))
        assert len(runs) + len(problems) == 2
        if len(runs) == 2:
            try:
                show_run(RunsConfig(data_root=tmp_path, key=run.name))
            except AlcoveError as error:
                assert run.name in str(error)
