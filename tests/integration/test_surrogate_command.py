"""`alcove surrogate` as it comes, the recipe returns, and `al --strategy surrogate`, on small images made here."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.surrogate import INPUTS
from stages.al.models import MODEL_FORMAT
from stages.al.signals import RANKS, ROUND
from stages.al.strategies.surrogate import SHIPPED
from tests.files import photos, tree

BACKBONE = ["--backbone", "simclr:width=4"]
FEW = ["--explore", "3", "--turns", "1", "--own", "2", "--budget", "14"]
SEEDS = ["--seeds", "2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two data sets."""
    return [photos(tmp_path_factory.mktemp("photos") / name, n) for name, n in (("many", 90), ("some", 70))]


@pytest.fixture(scope="module")
def embedded(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embedded") / "data"
    for folder in folders:
        where = ["--dataset", f"folder:{folder}", *BACKBONE, "--data-root", str(root)]
        assert main(["embed", *where, "--weights", "random"]) == 0
    return root


@pytest.fixture
def root(embedded: Path, tmp_path: Path) -> Path:
    """A data root after `embed`."""
    return Path(shutil.copytree(embedded, tmp_path / "data"))


@pytest.fixture(scope="module")
def learned(folders: list[Path], embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after `surrogate` on the first data set."""
    root = Path(shutil.copytree(embedded, tmp_path_factory.mktemp("learned") / "data"))
    assert surrogate(folders[:1], root) == 0
    return root


@pytest.fixture
def again(learned: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that."""
    yield Path(shutil.copytree(learned, tmp_path / "again"))


def where(folders: list[Path], root: Path) -> list[str]:
    names = ", ".join(f"folder:{folder}" for folder in folders)
    return ["--dataset", names, *BACKBONE, "--pca", "4", "--workers", "1", "--data-root", str(root)]


def surrogate(folders: list[Path], root: Path, *more: str) -> int:
    return main(["surrogate", *where(folders, root), *FEW, *SEEDS, *more])


def al(folder: Path, root: Path, strategy: str, *more: str) -> int:
    return main(["al", *where([folder], root), "--strategy", strategy, "--budget", "14", *SEEDS, *more])


def kept(root: Path) -> dict[str, bytes]:
    """All that is learned and run."""
    return {name: content for name, content in tree(root).items() if name.split("/")[0] in ("explored", "runs")} | tree(
        root / "surrogates"
    )


def runs(root: Path, store: str = "runs") -> list[dict]:
    return [json.loads(path.read_text())["run"] for path in sorted(root.glob(f"{store}/*/*/*/run.json"))]


def the_model(root: Path) -> Path:
    [manifest] = root.glob("surrogates/*/*/*/returns/manifest.json")
    return manifest.parent


def test_it_explores_learns_runs_itself_learns_again_and_is_compared(learned: Path) -> None:
    explored = runs(learned, "explored")
    by_name = {name: [run for run in explored if run["strategy"]["name"] == name] for name in ("explore", "surrogate")}
    draws, seeds = zip(*sorted((run["strategy"]["draw"], run["seed"]) for run in by_name["explore"]), strict=True)
    assert (np.diff(draws) == 1).all() and seeds == (1000, 1001, 1002)
    assert sorted(run["seed"] for run in by_name["surrogate"]) == [1003, 1004]
    model = the_model(learned)
    first, last = (json.loads((folder / "manifest.json").read_text()) for folder in (model / "turn-0", model))
    assert {run["strategy"]["model_digest"] for run in by_name["surrogate"]} == {first["model_digest"]}
    assert (first["train_seeds"], first["rows"]) == ([1000, 1001, 1002], 3 * 4)
    assert (last["train_seeds"], last["rows"]) == ([1000, 1001, 1002, 1003, 1004], 5 * 4)
    assert last["inputs"] == list(INPUTS)
    compared = {(run["strategy"]["name"], run["seed"], run["protocol"]["budget"]) for run in runs(learned)}
    assert compared == {(name, seed, 14) for name in ("random", "surrogate") for seed in (0, 1)}
    digests = {run["strategy"].get("model_digest") for run in runs(learned)}
    assert digests == {None, last["model_digest"]}


def test_the_logs_have_every_input_of_every_query(learned: Path) -> None:
    logs = [path.parent for path in learned.glob("explored/*/*/*/candidates.parquet")]
    assert len(logs) == 5
    for folder in logs:
        log, rounds = pd.read_parquet(folder / "candidates.parquet"), pd.read_parquet(folder / "rounds.parquet")
        assert log["round"].tolist() == [0, 1, 2, 3]
        assert rounds["budget_spent"].tolist() == [10, 11, 12, 13, 14]
        assert np.isfinite(log[list(RANKS + ROUND)]).all(axis=None)
        assert log[list(RANKS)].gt(0).all(axis=None) and log[list(RANKS)].lt(1).all(axis=None)


def test_what_it_looks_at_and_where_it_stands_are_drawn(
    folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same again from what is stored; every way of querying that was run is in the picture of its pool."""
    before = tree(again / "reports")
    assert len(before) == 2 and "surrogate-importance.png" in before
    assert all(re.fullmatch(r"surrogate-(importance|folder-many-.*)\.png", name) for name in before)
    assert all(content.startswith(b"\x89PNG") for content in before.values())
    shutil.rmtree(again / "reports")
    assert surrogate(folders[:1], again) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        str(again / "reports" / name) for name in sorted(before, key=lambda name: name != "surrogate-importance.png")
    ]
    assert tree(again / "reports") == before
    assert al(folders[0], again, "true_gain,margin") == 0
    assert surrogate(folders[:1], again) == 0
    after = tree(again / "reports")
    assert [name for name in before if after[name] == before[name]] == ["surrogate-importance.png"]


def test_without_random_on_its_seeds_there_is_no_picture_of_a_pool(
    folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(again / "runs")
    shutil.rmtree(again / "reports")
    assert al(folders[0], again, "margin") == 0
    assert surrogate(folders[:1], again) == 0
    said = capsys.readouterr().out
    assert "no picture of folder-many" in said and "no surrogate and random have runs on the same seeds" in said
    assert list(tree(again / "reports")) == ["surrogate-importance.png"]


def test_again_everything_is_reused(folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept(again)
    assert surrogate(folders[:1], again) == 0
    said = capsys.readouterr().out
    assert "reused the surrogate: 20 queries" in said
    assert "what it looks at: nothing" in said
    assert "0 new runs, 4 reused" in said
    assert kept(again) == before


def test_what_is_lost_comes_back(folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = the_model(again)
    before = tree(model)
    shutil.rmtree(next(again.glob("explored/*/*/ridge-explore-s1001-*")))
    shutil.rmtree(model)
    assert surrogate(folders[:1], again) == 0
    said = capsys.readouterr().out
    assert "learned the surrogate" in said
    assert "0 new runs, 4 reused" in said
    assert tree(model) == before


def test_it_is_compared_on_the_protocols_and_seeds_of_earlier_runs(
    folders: list[Path], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert al(folders[0], root, "margin", "--budget", "12", "--seeds", "4-6") == 0
    assert al(folders[0], root, "margin", "--batch-size", "3", "--budget", "16", "--seeds", "1") == 0
    command = ["surrogate", *where(folders[:1], root), *FEW]
    assert main(command) == 0
    assert "4 new runs, 4 reused" in capsys.readouterr().out
    mine = [run for run in runs(root) if run["strategy"]["name"] == "surrogate"]
    assert sorted((run["protocol"]["budget"], run["seed"]) for run in mine) == [(12, 4), (12, 5), (12, 6), (16, 0)]
    assert main(command) == 0
    assert "0 new runs, 8 reused" in capsys.readouterr().out


def test_two_data_sets_are_learned_from_together(
    folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those explored before are reused; what was learned of one alone stays."""
    alone = tree(the_model(again))
    assert surrogate(folders, again) == 0
    said = capsys.readouterr().out
    assert "learned the surrogate: 40 queries" in said
    [model] = again.glob("surrogates/of-2-pools-*")
    manifest = json.loads((model / "manifest.json").read_text())
    datasets = {pool["dataset"] for pool in manifest["about"]["pools"]}
    assert len(datasets) == 2
    ran = [run for run in runs(again) if run["strategy"].get("model_digest") == manifest["model_digest"]]
    assert {(run["dataset"], run["seed"]) for run in ran} == {(name, seed) for name in datasets for seed in (0, 1)}
    explored = [run for run in runs(again, "explored") if run["strategy"]["name"] == "explore"]
    names = [run["dataset"] for run in explored]
    assert {name: names.count(name) for name in datasets} == dict.fromkeys(datasets, 3)
    assert len({run["strategy"]["draw"] for run in explored}) == 6, "each by mixtures of its own"
    assert tree(the_model(again)) == alone
    before = kept(again)
    capsys.readouterr()
    assert surrogate(folders, again) == 0
    assert "reused the surrogate: 40 queries" in capsys.readouterr().out
    assert kept(again) == before
    assert surrogate(folders, again, "--head", "solve") == 0
    assert len(list(again.glob("surrogates/of-2-pools-*"))) == 2
    assert before.items() <= kept(again).items()


def test_several_shapes_of_a_pool_are_learned_from_and_the_first_is_compared(
    folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be made of it is named; a shape that does not exist is refused before anything runs."""
    before = kept(again)
    assert surrogate(folders[:1], again, "--pool", "whole,imbalanced:2,imbalanced:1000,subset:14") == 0
    said = capsys.readouterr().out
    name = f"folder:{folders[0]}"
    assert f"left out imbalanced:1000 of {name}: a long tail of factor 1000 leaves" in said
    assert f"left out subset:14 of {name}: its 14 images would all be labeled" in said
    assert "learned the surrogate: 40 queries" in said
    [model] = again.glob("surrogates/of-2-pools-*")
    manifest = json.loads((model / "manifest.json").read_text())
    assert [pool.get("pool") for pool in manifest["about"]["pools"]] == [None, "imbalanced:2"]
    ran = [run for run in runs(again) if run["strategy"].get("model_digest") == manifest["model_digest"]]
    assert [run.get("pool") for run in ran] == [None, None]
    assert before.items() <= kept(again).items()
    after = kept(again)
    assert surrogate(folders[:1], again, "--pool", "whole,imbalancd:2") == 2
    assert "there is no pool named 'imbalancd'" in capsys.readouterr().err
    assert kept(again) == after


def test_al_takes_the_model_of_that_pool(folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert al(folders[0], again, "surrogate", "--log-seeds", "0") == 0
    assert "0 new runs, 2 reused" in capsys.readouterr().out


def test_al_without_a_model_of_that_pool_takes_the_shipped_one(
    folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = al(folders[1], again, "surrogate")
    if (SHIPPED / "manifest.json").exists():
        digest = json.loads((SHIPPED / "manifest.json").read_text())["model_digest"]
        ran = [run for run in runs(again) if run["strategy"].get("model_digest") == digest]
        assert done == 0
        assert [run["seed"] for run in ran] == [0, 1]
    else:
        assert done == 2
        assert "run `make surrogate` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--explore", "1"], "explore=1 must be at least 2"),
        (["--turns", "-1"], "turns=-1"),
        (["--own", "-2"], "own=-2"),
        (["--seeds", "none"], "seeds='none'"),
        (["--budget", "10"], "budget=10 leaves nothing to query"),
        (["--budget", "9"], "budget=9"),
        (["--head", "linear"], "'linear' has no closed form"),
        (["--head", "rigde"], "did you mean 'ridge'"),
        (["--dataset", "folder:nowhere-at-all"], "nowhere-at-all"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    changes: list[str], said: str, folders: list[Path], embedded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert surrogate(folders[:1], embedded, *changes) == 2
    error = capsys.readouterr().err
    assert error.startswith("alcove: ") and error.count("\n") == 1
    assert said in error
    assert not any((embedded / made).exists() for made in ("explored", "runs", "surrogates"))


@pytest.mark.parametrize("damage", ["format", "inputs", "bytes", "manifest", "no manifest"])
def test_a_model_that_is_not_what_it_should_be_is_refused(
    damage: str, folders: list[Path], again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = the_model(again)
    file = model / "manifest.json"
    whole = file.read_bytes()
    manifest = json.loads(whole)
    said = "run `make surrogate` again"
    match damage:
        case "format":
            file.write_text(json.dumps(manifest | {"format": MODEL_FORMAT - 1}))
            said = f"it has format {MODEL_FORMAT - 1}, not {MODEL_FORMAT}"
        case "inputs":
            file.write_text(json.dumps(manifest | {"inputs": ["norm_rank", "horoscope_rank"]}))
            said = "inputs unknown here: horoscope_rank"
        case "bytes":
            (model / "model-0.ubj").write_bytes((model / "model-0.ubj").read_bytes() + b" ")
            said = "its models are not those it names"
        case "manifest":
            file.write_text("{}")
        case "no manifest":
            file.unlink()
            said = "there is no trained surrogate"
    capsys.readouterr()
    before = tree(again / "runs")
    assert al(folders[0], again, f"surrogate:{model}", "--seeds", "7-7") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("alcove: ") and error.count("\n") == 1
    assert tree(again / "runs") == before
    if damage != "inputs":
        assert surrogate(folders[:1], again) == 0
        assert file.read_bytes() == whole
