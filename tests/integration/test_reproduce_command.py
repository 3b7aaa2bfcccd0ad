"""`alcove reproduce --recipe thesis` on small images made here."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.config import SurrogateConfig
from pipeline.papers import RECIPES, thesis_scale
from pipeline.papers.published import read_tables
from pipeline.results import Estimate, Group, Result
from pipeline.task import Task
from pipeline.thesis import STRATEGIES, Experiment, Setting
from stages.al.heads import recipes as heads
from stages.surrogate.thesis import MODELS
from tests.files import photos, tree

BACKBONES = ("simclr:steps=1:width=4", "simsiam:steps=1:width=4", "rotation:steps=1:width=4")
SEED_TEXT = Path(__file__).resolve().parents[3] / "shared" / "seeds" / "002_db0918934549ff2e.txt"
BUDGET, LATER = 12, 11
FIGURES = {
    *("5.2", "5.3", "5.4", "5.5a", "5.5b", "5.6a", "5.6b", "5.7a", "5.7b", "5.8", "5.9", "5.10a", "5.10b", "5.11a"),
    *("5.11b", "5.12a", "5.12b", "5.13a", "5.13b", "5.14", "5.15"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"), 60)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """Fewer dimensions, labels and epochs than the scale has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(heads.RECIPES, "thesis", replace(heads.RECIPES["thesis"], epochs=2))
        small = replace(thesis_scale.SCALES["small"], pca=6, wide_pca=9, batch=3)
        patch.setitem(thesis_scale.SCALES, "small", small)
        for module in ("thesis", "thesis_runs"):
            patch.setattr(f"pipeline.papers.{module}.LATER", LATER)
        patch.setattr("pipeline.papers.thesis_surrogate.run_thesis", made_up)
        yield


@pytest.fixture(scope="module")
def root(tiny: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after all exhibits, their figures made and not drawn."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.papers.page.rendered", lambda figure, kind: kind.encode())
        assert reproduce(folder, root) == 0
    return root


def made_up(config: SurrogateConfig, tasks: Mapping[str, Task], heads: Sequence[str]) -> Experiment:
    """The surrogate's experiment without its runs, which have a test of their own."""
    rng, runs, seeds = np.random.default_rng(0), {}, (5, 6)
    for label in (*STRATEGIES, *(model.name for model in MODELS)):
        accuracy = rng.random((len(seeds), 4))
        value = Estimate.of(list(accuracy.mean(axis=1)))
        settings = {"strategy": {"name": label}, "seeds": seeds, "left_out": (), "budget": np.arange(10, 14)}
        runs[label] = Result(
            label=label, accuracy=accuracy, aubc=value, final=value, gain=None, seconds=1.0, **settings
        )
    group = Group(settings={}, runs=(), results=tuple(runs.values()), shared=True)
    errors = {model.name: {"train": 1e-6 * (i + 1), "test": 2e-6 * (i + 1)} for i, model in enumerate(MODELS)}
    correlations = dict.fromkeys(("accuracy", "accuracy_gain"), 0.5)
    counts = {"rows": 1, "images": 1, "n_pool": 1, "correlations": correlations, "mse": errors, "group": group}
    return Experiment(
        settings=[Setting(backbone=name, head=head, **counts) for name in tasks for head in heads],
        new_runs=0,
        n_runs=0,
    )


def reproduce(folder: Path, root: Path, *more: str) -> int:
    where = ["--dataset", f"folder:{folder},folder:{folder}", "--data-root", str(root)]
    settings = ["--backbone", ",".join(BACKBONES), "--seeds", "2", "--budget", str(BUDGET), "--workers", "1"]
    return main(["reproduce", "--recipe", "thesis", *where, *settings, *more])


def page(root: Path) -> Path:
    return root / "reports" / "reproduce-thesis-small"


def test_every_exhibit_has_its_files(root: Path) -> None:
    names = set(tree(page(root)))
    tables = {f"table-5.{n}" for n in range(2, 13)}
    figures = {f"figure-{name}" for name in FIGURES}
    assert names == {
        *(f"{stem}.{kind}" for stem in tables for kind in ("csv", "tex")),
        *(f"{stem}.{kind}" for stem in figures for kind in ("png", "pdf")),
        *("index.html", "index.md"),
    }


def test_the_page_is_whole_and_asks_for_nothing(root: Path) -> None:
    text = (page(root) / "index.html").read_text()
    assert all(f"<h2>{name}:" in text for name in RECIPES["thesis"].exhibits)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))
    assert not re.search(r"https?://|<link|<script", text)
    assert f"<p>{len(RECIPES['thesis'].exhibits)} exhibits made again" in text
    assert all((page(root) / name).exists() for name in re.findall(r'href="([^"#]+)"', text))


@pytest.mark.parametrize("number", [f"Table 5.{n}" for n in range(2, 13)])
def test_layouts_are_the_papers(root: Path, number: str) -> None:
    """Its columns, parts and rows in order, ours named before the paper's backbone, and every published number."""
    paper = thesis_scale.PUBLISHED[number]
    section = (page(root) / "index.md").read_text().partition(f"## {number}:")[2]
    lines = [re.split(r" *\| *", line.strip("| ")) for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = lines[: 2 + len(paper.rows) + len({part for part, _ in paper.rows} - {""})]
    assert [re.sub(r".*\((.*)\)", r"\1", name) for name in header[-len(paper.columns) :]] == list(paper.columns)
    assert [row[0] for row in rows if len(row) > 1] == [name for _, name in paper.rows]
    shown = {re.sub(r".*\((.*)\)", r"\1", cell) for row in rows for cell in row[1:]}
    assert set(paper.cells.values()) <= shown


def test_numbers_are_those_of_the_runs(root: Path) -> None:
    """AUBC of tables 5.6, 5.11 and 5.12, from the Parquet files alone."""
    values: dict[tuple, list[float]] = {}
    for path in root.glob("reproduced/*/*/*/run.json"):
        record = json.loads(path.read_text())["run"]
        protocol = record["protocol"]
        if protocol["candidates"] == 10_000 and protocol["initial"] == "random" and protocol["batch_size"] == 1:
            rounds = pd.read_parquet(path.parent / "rounds.parquet")
            for start in (0, LATER, LATER + 1):
                kept = rounds["test_accuracy"][rounds["budget_spent"] >= start]
                key = (record["backbone"], record["head"]["name"], record["strategy"]["name"])
                values.setdefault((*key, protocol["initial_size"], start), []).append(float(kept.mean()))
    assert _cell(root, "5.6", "Closed-form solution (Solve)", "Typiclust", "rotation (DinoV2)") == pytest.approx(
        _mean(values["rotation", "solve", "typiclust", 10, 0])
    )
    assert _cell(root, "5.12", "simclr (ResNet18)", "Penrose Inv.", "BADGE") == pytest.approx(
        _mean(values["simclr", "pinv", "badge", 10, LATER + 1])
    )
    assert _cell(root, "5.11", None, "Coreset 10", "simsiam (ResNet50)") == pytest.approx(
        _mean(values["simsiam", "solve", "coreset", 10, LATER])
    )


def _mean(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _cell(root: Path, number: str, part: str | None, row: str, column: str) -> tuple[float, float]:
    table = pd.read_csv(page(root) / f"table-{number}.csv")
    chosen = (table["row"] == row) & (table["column"] == column)
    if part:
        chosen &= table["part"] == part
    found = table[chosen].iloc[0]
    return found["ours"], found["ours_spread"]


def test_again_only_some_and_nothing_is_run(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(folder, root, "--only", "table 5.6,5.8,5.14", "--out", str(root / "some")) == 0
    said = capsys.readouterr().out
    assert "\n0 new runs" in said
    names = set(tree(root / "some"))
    assert {"table-5.6.csv", "table-5.8.csv", "figure-5.8.png", "figure-5.14.pdf"} < names
    assert "table-5.2.csv" not in names
    for stem in ("figure-5.8", "figure-5.14"):
        assert np.asarray(Image.open(root / "some" / f"{stem}.png")).std() > 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--recipe", "theses"], "there is no recipe named 'theses': did you mean 'thesis'?"),
        (["--recipe", ""], "reproduce needs a recipe: RECIPE= one of thesis"),
        (["--only", "5.99"], "there is no exhibit '5.99'"),
        (["--backbone", "simclr"], "the thesis compares 3 backbones"),
        (["--backbone", "simclr,nosuch,rotation"], "there is no backbone named 'nosuch'"),
        (["--dataset", "a,b,c"], "DATASET= names 3 data sets"),
        (["--dataset", "digits,folder:/nowhere"], "there is no folder '/nowhere'"),
        (["--workers", "-1"], "workers=-1 must be"),
        (["--seeds", "x"], "seeds='x' is neither"),
        (["--budget", "x"], "BUDGET='x' is neither"),
        (["--budget", "11"], "BUDGET=11 ends before tables 5.11 and 5.12 begin"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    assert main(["reproduce", "--recipe", "thesis", "--data-root", str(tmp_path), *more]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_scale_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "--recipe", "thesis", "--scale", "huge", "--data-root", str(tmp_path)])
    assert stopped.value.code == 2
    assert "huge" in capsys.readouterr().err


def test_published_numbers_are_the_texts() -> None:
    if not SEED_TEXT.exists():
        pytest.skip("the thesis's text is not here")
    text = re.sub(r"\s+", " ", re.sub(r"</?\w+>|\$|\*", "", SEED_TEXT.read_text()).replace("\\pm", "±"))
    tables = read_tables("thesis.txt")
    assert list(tables) == [f"Table 5.{n}" for n in range(2, 13)]
    for number, table in tables.items():
        before = text[: text.rindex(f"{number}: ")][-6000:]
        for row in table.rows:
            line = " ".join([row[1], *(table.cells[row, column] for column in table.columns)])
            assert line in before, (number, row)
