"""`alcove queries` on small images made here: what it runs, what it draws, and bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main, parse
from pipeline.config import QueriesConfig
from pipeline.queries import find_queries, lay_out, score_clusters
from pipeline.query_figures import category_styles, draw_queries
from pipeline.task import Task, find_features, load_data, prepare_task
from stages.al.heads import build_head
from stages.al.loop import Cell, run_active_learning
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from tests.files import photos, tree

BACKBONE = "simclr:width=4"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name embedded photos."""
    root = tmp_path_factory.mktemp("data")
    where = ["--dataset", f"folder:{photos(root / 'photos')}", "--backbone", BACKBONE, "--data-root", str(root)]
    assert main(["embed", *where, "--weights", "random"]) == 0
    return where


def config(where: list[str], *more: str) -> QueriesConfig:
    small = ["--pca", "8", "--budget", "12", "--batch-size", "4", "--initial-size", "4", "--workers", "1"]
    found = parse(["queries", *where, *small, *more])
    assert isinstance(found, QueriesConfig)
    return found


def queries(where: list[str], *more: str) -> int:
    small = ["--pca", "8", "--budget", "12", "--batch-size", "4", "--initial-size", "4", "--workers", "1"]
    return main(["queries", *where, *small, *more])


def task(where: list[str]) -> Task:
    root = Path(where[-1])
    return prepare_task(find_features(where[1], BACKBONE, "", root), 8, None, root)


def test_two_pictures_are_printed_and_every_time_the_same(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    reports = Path(where[-1]) / "reports"
    assert queries(where) == 0
    said = capsys.readouterr().out.splitlines()
    assert "t-SNE" in said[1]
    files = [Path(line) for line in said if line.endswith(".png")]
    assert [path.stem[-8:] for path in files] == ["figure-3", "figure-4"]
    for path in files:
        with Image.open(path) as picture:
            assert min(picture.size) > 600
    before = tree(reports)
    assert queries(where) == 0
    assert tree(reports) == before
    assert queries(where, "--seed", "1") == 0
    assert len(tree(reports)) == 4


def test_what_is_drawn_is_what_al_queries(where: list[str]) -> None:
    asked = config(where, "--strategy", "random,margin", "--initial", "random", "--seed", "3", "--layout", "pca")
    found = find_queries(task(where), asked)
    assert list(found.queried) == ["random", "margin"]
    assert found.n_initial == 4
    assert found.queried["random"][:4].tolist() == found.queried["margin"][:4].tolist()
    pool, validation, test = load_data(task(where).derived, 3, task(where).sizes)
    protocol = Protocol(initial="random", initial_size=4, batch_size=4, budget=12)
    cell = Cell(strategy=STRATEGIES.build("margin"), seed=3)
    (log,) = run_active_learning(pool, validation, test, build_head("ridge", 3), protocol, [cell])
    assert found.queried["margin"].tolist() == np.concatenate([row["queried"] for row in log.rounds]).tolist()
    assert found.shown.tolist() == list(range(len(pool)))


def test_strategies_begin_on_their_own(where: list[str]) -> None:
    found = find_queries(task(where), config(where, "--layout", "pca"))
    assert found.n_initial == 0
    pool, _, _ = load_data(task(where).derived, 3, task(where).sizes)
    clusters = pool.clusters(4)
    for spec in ("typiclust", "supclust"):
        assert len(set(clusters[found.queried[spec][:4]].tolist())) == 4
    assert found.queried["typiclust"].tolist() != found.queried["supclust"].tolist()


def test_panels_share_their_axes_and_every_category_has_a_style(where: list[str]) -> None:
    found = find_queries(task(where), config(where, "--strategy", "typiclust,random,tcm,coreset", "--layout", "pca"))
    figure = draw_queries(found)
    assert [axes.get_title("left") for axes in figure.axes] == list(found.queried)
    assert len({axes.get_xlim() + axes.get_ylim() for axes in figure.axes}) == 1
    assert len(set(category_styles(found).values())) == 3


def test_a_map_holds_what_was_queried_and_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.queries.MOST_LAID_OUT", 20)
    unit = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    queried = np.array([80, 7, 33])
    shown, plane = lay_out(unit, queried, "tsne", 0)
    assert len(shown) == 23 and set(queried.tolist()) <= set(shown.tolist())
    assert plane.shape == (23, 2)
    everything, plane = lay_out(unit[:, :1], queried, "pca", 0)
    assert len(everything) == 90 and not plane[:, 1].any()


def test_a_single_cluster_has_no_sup(where: list[str]) -> None:
    pool, _, _ = load_data(task(where).derived, 3, task(where).sizes)
    assert score_clusters(pool, 1, 1.0, np.random.default_rng(0)) == []
    assert len(score_clusters(pool, 3, 1.0, np.random.default_rng(0))) == 3
    assert len(score_clusters(pool, 9, 1.0, np.random.default_rng(0))) == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--strategy", ""], "STRATEGY="),
        (["--strategy", "typicluts"], "did you mean 'typiclust'"),
        (["--strategy", "typiclust,margin"], "INITIAL_SET=random"),
        (["--initial", "margin"], "needs labels"),
        (["--temperature", "0"], "temperature=0"),
        (["--seed", "-1"], "seed=-1"),
        (["--budget", "2"], "do not go together"),
        (["--head", "rigde"], "did you mean 'ridge'"),
        (["--pool", "subset:4", "--budget", "4", "--pca", "2"], "--layout pca"),
        (["--backbone", "dinov2"], "make embed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    options: list[str], expected: str, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert queries(where, *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: ") and said.count("\n") == 1
    assert expected in said
