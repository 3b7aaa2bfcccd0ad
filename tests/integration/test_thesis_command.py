"""`alcove surrogate --recipe thesis` on small images made here."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.thesis import STRATEGIES
from stages.surrogate.thesis import MODELS
from tests.files import photos, tree

BACKBONE = "simclr:width=4"
LABELS = {*STRATEGIES, *(model.name for model in MODELS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def embedded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    where = ["--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root)]
    assert main(["embed", *where, "--weights", "random"]) == 0
    return root


@pytest.fixture(scope="module")
def root(folder: Path, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after the experiment."""
    root = Path(shutil.copytree(embedded, tmp_path_factory.mktemp("done") / "data"))
    assert thesis(folder, root) == 0
    return root


def thesis(folder: Path, root: Path, *more: str) -> int:
    where = ["--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root), "--pca", "4"]
    settings = ["--head", "solve, ridge", "--budget", "13", "--seeds", "5-6", "--search", "2", "--workers", "1"]
    return main(["surrogate", "--recipe", "thesis", *where, *settings, *more])


def test_it_is_all_there(root: Path) -> None:
    table = pd.read_csv(next(root.glob("reports/thesis-*.csv")))
    assert {tuple(key) for key, _ in table.groupby(["head", "strategy", "seed"])} == {
        (head, label, seed) for head in ("solve", "ridge") for label in LABELS for seed in (5, 6)
    }
    text = next(root.glob("reports/thesis-*.md")).read_text()
    assert all(said in text for said in ("Table 5.8", "Table 5.10", "(acc", f"{BACKBONE}, solve"))
    assert len(list(root.glob("reports/thesis-*-figure-5.[69].png"))) == 4
    assert len(list(root.glob("surrogates/*/*/*/thesis/*/manifest.json"))) == 12


def test_its_numbers_are_those_of_the_runs(root: Path) -> None:
    table = pd.read_csv(next(root.glob("reports/thesis-*.csv")))
    digests = {
        (path.parents[2].name.split("-")[0], path.parent.name): json.loads(path.read_text())["model_digest"]
        for path in root.glob("surrogates/*/*/*/thesis/*/manifest.json")
    }
    found = {}
    for path in root.glob("runs/*/*/*/run.json"):
        record = json.loads(path.read_text())
        made = record["run"]
        if made["protocol"]["candidates"] == 500:
            who = made["strategy"].get("model_digest", made["strategy"]["name"])
            found[made["head"]["name"], who, made["seed"]] = record["summary"]["aubc"]
    for row in table.to_dict("records"):
        who = digests.get((row["head"], row["strategy"]), row["strategy"])
        assert row["aubc"] == pytest.approx(found[row["head"], who, row["seed"]])


def test_again_nothing_is_done_and_what_is_lost_comes_back(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("surrogates", "reports")
    before = [tree(root / kind) for kind in kinds]
    assert thesis(folder, root) == 0
    assert "\n0 new runs" in capsys.readouterr().out
    shutil.rmtree(next(root.glob("runs/*/*/solve-typiclust-s1-*")))
    shutil.rmtree(next(root.glob("runs/*/*/ridge-margin-s5-*")))
    shutil.rmtree(next(root.glob("surrogates/*/*/*/thesis/acc_asn")))
    assert thesis(folder, root) == 0
    assert "\n2 new runs" in capsys.readouterr().out
    assert [tree(root / kind) for kind in kinds] == before


def test_workers_do_not_change_it(folder: Path, root: Path, embedded: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(embedded, tmp_path / "data"))
    assert thesis(folder, other, "--head", "solve", "--workers", "2") == 0
    models = tree(other / "surrogates")
    assert len(models) == 12
    assert models == {name: content for name, content in tree(root / "surrogates").items() if name in models}
    one, two = (pd.read_csv(next(path.glob("reports/thesis-*.csv"))) for path in (root, other))
    pd.testing.assert_frame_equal(one[one["head"] == "solve"].reset_index(drop=True), two)


def test_the_logs_are_not_taken_for_candidates(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root), "--pca", "4"]
    assert main(["surrogate", "--recipe", "gains", *where]) == 2
    assert "no candidate logs" in capsys.readouterr().err


def test_seeds_of_the_training_and_empty_budgets_are_refused(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thesis(folder, root, "--seeds", "4-6") == 2
    assert "learn from seeds 0 to 4" in capsys.readouterr().err
    assert thesis(folder, root, "--budget", "10") == 2
    assert "leaves nothing to query" in capsys.readouterr().err
