"""`alcove suggest` on a folder of small images: from no labels on, files moved into class folders between two calls."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from pipeline.cli import main
from pipeline.config import SuggestConfig
from pipeline.suggest import make_suggestion, open_pool, pool_rows
from pipeline.task import find_features
from stages.al.heads import build_head
from tests.files import photos, tree

BACKBONE = "simclr:width=4:steps=3:batch_size=16"
KINDS = ("red", "blue", "grün")


def flat_photos(folder: Path) -> Path:
    """90 photos in no class folder; KINDS[i % 3] is the class of photo i."""
    for path in sorted(photos(folder).rglob("*.png")):
        path.rename(folder / path.name)
    for kind in KINDS:
        (folder / kind).rmdir()
    return folder


def listed(root: Path) -> list[dict[str, str]]:
    (file,) = root.glob("reports/suggest-*/next.csv")
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def label(folder: Path, rows: list[dict[str, str]], under: str = "") -> None:
    """Move images into class folders."""
    for row in rows:
        kind = folder / under / KINDS[int(Path(row["image"]).stem) % 3]
        kind.mkdir(parents=True, exist_ok=True)
        (folder / row["image"]).rename(kind / Path(row["image"]).name)


def options(folder: Path, root: Path) -> list[str]:
    return ["--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root)]


def embed(folder: Path, root: Path, weights: str = "random") -> None:
    assert main(["embed", *options(folder, root), "--weights", weights]) == 0


def test_from_no_labels_to_a_head_that_guesses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = flat_photos(tmp_path / "photos"), tmp_path / "data"
    embed(folder, root, weights="")
    call = ["suggest", *options(folder, root), "--batch-size", "15", "--pca", "8"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert (
        "90 images without a label, 0 with one" in said
        and "asked typiclust, which needs no labels, because there are none yet" in said
    )
    assert f"such as {folder}/CLASS/" in said
    (kept,) = re.findall(r"WEIGHTS=([^\s`]+)", said)
    first = listed(root)
    assert [row["rank"] for row in first] == [str(rank) for rank in range(1, 16)]
    assert len({row["image"] for row in first}) == 15 and {row["guess"] + row["probability"] for row in first} == {""}

    label(folder, first)
    assert main(call) == 2
    assert "or their labels have changed" in capsys.readouterr().err
    embed(folder, root, weights=kept)
    assert "embedded 15 images" in capsys.readouterr().out
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "75 images without a label" in said and "asked surrogate" in said
    second, before = listed(root), tree(root / "reports")
    assert not {Path(row["image"]).name for row in first} & {row["image"] for row in second}
    assert {row["guess"] for row in second} <= set(KINDS)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in second)
    (page,) = root.glob("reports/suggest-*/next.html")
    html = page.read_text("utf-8")
    assert html.count("data:image/") == 15 and "http" not in html
    assert [html.index(row["image"]) for row in second] == sorted(html.index(row["image"]) for row in second)
    assert main(call) == 0
    assert tree(root / "reports") == before


@pytest.fixture(scope="module")
def half_labeled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos of which 30 are in class folders under train/, 10 of those under test/, embedded."""
    root = tmp_path_factory.mktemp("half")
    folder = flat_photos(root / "photos")
    (folder / "train").mkdir()
    names = [path.name for path in sorted(folder.glob("*.png"))]
    label(folder, [{"image": name} for name in names[:30]], "train")
    label(folder, [{"image": name} for name in names[30:40]], "test")
    for name in names[40:]:
        (folder / name).rename(folder / "train" / name)
    (folder / "test" / "broken.png").write_bytes(b"no image")
    assert main(["embed", *options(folder, root), "--weights", "random"]) == 2
    return folder, root


def test_split_folders_and_what_is_known_of_the_head(
    half_labeled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, root = half_labeled
    assert main(["suggest", *options(folder, root), "--pca", "8", "--batch-size", "50"]) == 0
    said = capsys.readouterr().out
    assert "50 images without a label, 30 with one to learn from, 10 for the test, 1 unreadable" in said
    assert f"such as {folder}/train/blue/ or" in said
    assert {row["image"].count("/") for row in listed(root)} == {1}
    config = SuggestConfig(dataset=f"folder:{folder}", backbone=BACKBONE, data_root=root, pca=8)
    cache = find_features(config.dataset, BACKBONE, "", root)
    found = open_pool(cache, pool_rows(cache, config), config)
    features, head = found.pool.features[found.pool.labels >= 0], build_head("ridge", 3)
    left_out = cross_val_predict(head, features, found.labels, cv=LeaveOneOut())
    tested = head.fit(features, found.labels).predict(found.test)
    assert f"{(left_out == found.labels).mean():.0%} of the 30 labeled images" in said
    assert f"{(tested == found.test_labels).mean():.0%} of the 10 test images" in said


def test_a_head_without_a_closed_form_is_asked_by_margin(half_labeled: tuple[Path, Path]) -> None:
    folder, root = half_labeled
    config = SuggestConfig(dataset=f"folder:{folder}", backbone=BACKBONE, data_root=root, pca=8, head="svm")
    assert "asked margin, because the head 'svm'" in "\n".join(make_suggestion(config))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--batch-size", "51"], "more than the 50 images without a label"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--seed", "-1"], "seed=-1"),
        (["--strategy", "true_loss"], "is for simulations"),
        (["--strategy", "gain_surrogate"], "is for simulations"),
        (["--strategy", "margni"], "did you mean 'margin'"),
        (["--strategy", "all"], "no strategy named 'all'"),
        (["--strategy", "diff2aug_kmeans", "--head", "rigde"], "did you mean 'ridge'"),
        (["--strategy", "surrogate", "--head", "svm"], "has no closed form"),
        (["--pca", "500"], "lower PCA="),
        (["--backbone", "dinov2"], "make embed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    more: list[str], expected: str, half_labeled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", *options(*half_labeled), "--pca", "8", *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: ") and said.count("\n") == 1
    assert expected in said


def test_one_class_and_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    (folder / "train" / "cat").mkdir(parents=True)
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "train" / ("cat" if i < 12 else "") / f"{i}.png")
    call = ["suggest", *options(folder, tmp_path), "--pca", "4", "--batch-size", "12"]
    embed(folder, tmp_path)
    assert main([*call, "--strategy", "margin"]) == 2
    assert (
        "needs images of at least two classes to begin with, there are 12 labels of 1 class" in capsys.readouterr().err
    )
    assert main([*call, "--strategy", "uherding"]) == 0
    assert main(call) == 0
    assert "asked typiclust, which needs no labels, because 12 labels of 1 class" in capsys.readouterr().out
    label_all = sorted((folder / "train").glob("*.png"))
    for path in label_all:
        path.rename(folder / "train" / "cat" / path.name)
    embed(folder, tmp_path)
    assert main(call) == 2
    assert "all 24 training images" in capsys.readouterr().err
