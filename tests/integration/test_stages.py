"""The four stages through the command line, on small images made here; kills, workers and bad input included."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.cli import main
from tests.files import photos, tree

ROOT = Path(__file__).resolve().parents[2]
EMBED = ["--backbone", "simclr:width=4:steps=3:batch_size=16"]
AL = [
    "--backbone",
    "simclr",
    "--pca",
    "4",
    "--initial-size",
    "4",
    "--budget",
    "14",
    "--log-seeds",
    "2",
    "--log-every",
    "3",
]
STRATEGIES = "random,margin,coreset,typiclust"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def embedded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after `embed`."""
    root = tmp_path_factory.mktemp("data")
    assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
    return root


@pytest.fixture
def root(embedded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded, tmp_path / "data"))


def al(folder: Path, root: Path, *more: str) -> int:
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root)]
    return main(["al", *where, *AL, "--strategy", STRATEGIES, "--seeds", "4", "--workers", "1", *more])


def queries(root: Path) -> dict[str, list]:
    return {
        file.parent.name: [list(ids) for ids in pd.read_parquet(file)["queried"]]
        for file in sorted(root.glob("runs/*/*/*/rounds.parquet"))
    }


def test_all_stages_and_again(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root)]
    surrogate = ["surrogate", "--recipe", "gains", *where, "--backbone", "simclr", "--pca", "4", "--workers", "1"]
    assert al(folder, root) == 0
    assert main(surrogate) == 0
    assert main(["report", *where, "--backbone", "simclr"]) == 0
    first = capsys.readouterr().out
    assert "16 new runs, 0 reused" in first
    assert "trained the surrogate of cross_entropy" in first
    assert "2 new runs, 0 reused" in first
    assert "AUBC on folder-" in first
    assert "surrogate 0." in first
    page = next(root.glob("reports/report.html")).read_text()
    assert all(name in page for name in (*STRATEGIES.split(","), "surrogate"))

    before = tree(root / "runs") | tree(root / "surrogates")
    assert al(folder, root) == 0
    assert main(surrogate) == 0
    again = capsys.readouterr().out
    assert "0 new runs, 16 reused" in again
    assert "reused the surrogate" in again
    assert tree(root / "runs") | tree(root / "surrogates") == before


def test_logs_hold_what_they_say(folder: Path, root: Path) -> None:
    assert al(folder, root) == 0
    for file in root.glob("runs/*/*/*/run.json"):
        record, rounds = json.loads(file.read_text()), pd.read_parquet(file.parent / "rounds.parquet")
        spent = [len(ids) for ids in rounds["queried"]]
        assert rounds["budget_spent"].tolist() == np.cumsum(spent).tolist() == list(range(4, 15))
        assert len({image for ids in rounds["queried"] for image in ids}) == 14
        assert record["summary"]["aubc"] == pytest.approx(rounds["test_accuracy"].mean())
        logged = file.parent / "candidates.parquet"
        assert logged.exists() == (record["run"]["seed"] < 2)
        if logged.exists():
            candidates = pd.read_parquet(logged)
            assert candidates.groupby("round").size().to_dict() == {r: record["n_pool"] - 4 - r for r in (0, 3, 6, 9)}
            assert candidates.groupby("round")["queried"].sum().eq(1).all()
            assert np.isfinite(candidates.select_dtypes("number")).all(axis=None)


def test_the_initial_set_is_the_same_for_every_strategy(folder: Path, root: Path) -> None:
    assert al(folder, root) == 0
    starts = {(name.split("-s")[1].split("-")[0], tuple(rounds[0])) for name, rounds in queries(root).items()}
    assert len(starts) == 4


def test_workers_do_not_change_queries(folder: Path, root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    assert al(folder, root) == 0
    assert al(folder, other, "--workers", "2") == 0
    assert queries(root) == queries(other)
    assert len(queries(root)) == 16


def test_an_interrupted_grid_goes_on(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert al(folder, root, "--seeds", "1") == 0
    (root / "runs" / "x").mkdir()
    before = queries(root)
    shutil.rmtree(next(root.glob("runs/*/*/ridge-margin-*")))
    truncated = next(root.glob("runs/*/*/ridge-random-*/rounds.parquet"))
    truncated.write_bytes(truncated.read_bytes()[:-9])
    capsys.readouterr()
    assert al(folder, root, "--seeds", "1") == 0
    said = capsys.readouterr()
    assert "2 new runs, 2 reused" in said.out
    assert f"alcove: the damaged run {truncated.parent} (" in said.err and "is done again" in said.err
    assert queries(root) == before


PART_EMBED = """
import sys
from pathlib import Path
from stages.embed.config import EmbedConfig
from stages.embed.extract import embed
root, part = Path(sys.argv[3]), sys.argv[4]
embed(EmbedConfig(dataset=sys.argv[1], backbone=sys.argv[2], data_root=root, shard=part), shard_images=12)
"""


@pytest.mark.filterwarnings("ignore:pretraining leaves out")
def test_an_unreadable_image_is_reported_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = photos(tmp_path / "photos"), tmp_path / "data"
    bad = folder / "red" / "033.png"
    bad.write_bytes(bad.read_bytes()[:90])
    (folder / "red" / "broken.jpg").write_bytes(b"")
    command = ["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]
    for _ in range(2):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "red/033.png" in said
        assert "red/broken.jpg" in said
        assert "2 of 91 images could not be read" in said
        assert "Traceback" not in said
    manifest = json.loads(next(root.glob("features/*/*/*/manifest.json")).read_text())
    assert sorted("033.png" in why or "broken.jpg" in why for why in manifest["unreadable"].values()) == [True, True]
    assert al(folder, root, "--seeds", "1") == 0
    assert "2 unreadable images left out" in capsys.readouterr().out
    assert not any("033.png" in str(rounds) for rounds in queries(root).values())

    Image.new("RGB", (10, 10)).save(bad)
    (folder / "red" / "broken.jpg").unlink()
    assert main(command) == 0


CASES = (
    *("empty folder", "missing folder", "wrong backbone", "wrong data set", "wrong parameter", "wrong view"),
    *(
        "wrong kernel",
        "wrong device",
        "unwritable root",
        "no features yet",
        "wrong seeds",
        "impossible protocol",
        "no runs",
    ),
    *("nameless strategy", "wrong strategy", "wrong strategy parameter", "wrong head", "wrong penalty"),
    *("endless penalty", "classes by hand", "wrong workers", "wrong log", "too many seeds", "surrogate seeds"),
    *("wrong part", "wrong batch size", "no weights"),
)


def bad_inputs(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "empty").mkdir(parents=True)
    (tmp_path / "file").write_text("not a folder")
    data = ["--data-root", str(tmp_path / "data")]
    return {
        "empty folder": (["embed", "--dataset", f"folder:{tmp_path / 'empty'}", *data], "no image"),
        "missing folder": (["embed", "--dataset", f"folder:{tmp_path / 'nowhere'}", *data], "nowhere"),
        "wrong backbone": (["embed", "--backbone", "dinov3", *data], "did you mean 'dinov2'"),
        "wrong data set": (["embed", "--dataset", "digit", *data], "did you mean 'digits'"),
        "wrong parameter": (["embed", "--backbone", "simclr:widht=3", *data], "no parameter 'widht'"),
        "wrong view": (["embed", "--views", "identity,flip", *data], "did you mean 'hflip'"),
        "wrong kernel": (["embed", "--views", "identity,blur:kernel=4", *data], "kernel=4 odd"),
        "wrong device": (["embed", "--device", "tpu", *data], "use auto, cpu, cuda"),
        "unwritable root": (["embed", "--data-root", str(tmp_path / "file" / "data")], "cannot be written"),
        "no features yet": (["al", "--backbone", "dinov2", *data], "run `make embed BACKBONE=dinov2 DATA_ROOT="),
        "wrong seeds": (["al", "--seeds", "many", *data], "seeds='many'"),
        "impossible protocol": (["al", "--budget", "3", *data], "initial_size"),
        "no runs": (["report", *data], "run `make al` first"),
        "nameless strategy": (["al", "--strategy", "", *data], "STRATEGY="),
        "wrong strategy": (["al", "--strategy", "marign", *data], "did you mean 'margin'"),
        "wrong strategy parameter": (["al", "--strategy", "typiclust:max_clusters=0", *data], "at least 1"),
        "wrong head": (["al", "--head", "rigde", *data], "did you mean 'ridge'"),
        "wrong penalty": (["al", "--head", "ridge:penalty=-1", *data], "must be positive"),
        "endless penalty": (["al", "--head", "ridge:penalty=inf", *data], "not a valid float"),
        "classes by hand": (["al", "--head", "solve:n_classes=3", *data], "leave it out"),
        "wrong workers": (["al", "--workers", "-5", *data], "workers=-5"),
        "wrong log": (["al", "--log-every", "0", *data], "log_every=0"),
        "too many seeds": (["al", "--seeds", "99999999999999999999", *data], "seeds='9999"),
        "surrogate seeds": (["surrogate", "--seeds", "x", *data], "seeds='x'"),
        "wrong part": (["embed", "--shard", "3/2", *data], "shard='3/2'"),
        "wrong batch size": (["embed", "--batch-size", "-1", *data], "batch_size=-1"),
        "no weights": (["embed", "--backbone", "resnet18", "--weights", str(tmp_path / "w.pth"), *data], "w.pth"),
    }


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_exit_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, expected = bad_inputs(tmp_path)[case]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: ")
    assert said.count("\n") == 1
    assert expected in said
    assert len(bad_inputs(tmp_path / "again")) == len(CASES)
    assert not list(tmp_path.glob("data/features/**/*"))


def test_an_edited_manifest_is_refused_and_mended_by_embed(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = next(root.glob("features/*/*/*/manifest.json"))
    whole = manifest.read_bytes()
    manifest.write_text(whole.decode().replace('"red"', '"rot"'))
    assert al(folder, root) == 2
    said = capsys.readouterr().err
    assert "manifest was changed" in said
    assert f"make embed DATASET=folder:{folder}" in said
    assert not (root / "runs").exists()
    assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
    assert manifest.read_bytes() == whole


def test_a_damaged_shard_is_refused_and_mended_by_embed(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root / "features")
    shard = next(file for file in sorted(root.glob("features/*/*/*/features/c/**/*")) if file.is_file())
    shard.write_bytes(bytes(100) + shard.read_bytes()[100:])
    assert al(folder, root) == 2
    assert f"make embed DATASET=folder:{folder}" in capsys.readouterr().err
    assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
    assert tree(root / "features") == before
    assert al(folder, root, "--seeds", "1") == 0


def test_a_changed_folder_is_embedded_again_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the backbone is pretrained on the images, so that its weights change with them."""
    folder, root = photos(tmp_path / "photos"), tmp_path / "data"
    pools = []
    for _ in range(2):
        assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
        assert al(folder, root, "--seeds", "1", "--strategy", "random") == 0
        pools.append(int(re.search(r"pool (\d+),", capsys.readouterr().out)[1]))
        for file in folder.glob("red/0[0-3]*.png"):
            file.unlink()
    assert pools[1] < pools[0]


def test_own_validation_images_are_drawn_evenly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = tmp_path / "photos", tmp_path / "data"
    for split, n in (("train", 40), ("val", 30), ("test", 20)):
        photos(folder / split, n)
    assert main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]) == 0
    assert al(folder, root, "--seeds", "1", "--validation-size", "12") == 0
    assert "pool 40, validation 12, test 20" in capsys.readouterr().out
    labels = np.load(next(root.glob("derived/*/*/labels-*.npy")))[40:52]
    assert len(set(labels.tolist())) == 3
    for size in ("0", "-1", "31"):
        assert al(folder, root, "--validation-size", size) == 2
        assert f"validation_size={size} of 30 images is impossible" in capsys.readouterr().err


def test_own_weights_that_are_damaged_or_lost(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", str(root)]
    weights = next(root.glob("weights/*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert main(command) == 2
    assert "delete both to pretrain again" in capsys.readouterr().err
    weights.unlink()
    assert main(command) == 0
    assert weights.read_bytes() == whole


def test_the_cache_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data-root", str(root)]
    assert main(["cache", *data]) == 0
    key = capsys.readouterr().out.split()[0]
    assert main(["cache", "verify", *data]) == 0
    assert "as written" in capsys.readouterr().out
    assert main(["cache", "rm", *data]) == 2
    assert f"one of {key}" in capsys.readouterr().err
    assert main(["cache", "rm", "--key", key[:5], *data]) == 0
    assert main(["cache", *data]) == 2


def test_two_workers_embed_one_cache(folder: Path, embedded: Path, tmp_path: Path) -> None:
    """Each half by its own process at once, and a third asked for all of it: the same bytes as one worker's."""
    root = tmp_path / "data"
    shutil.copytree(embedded / "weights", root / "weights")
    shutil.copytree(embedded / "weights", tmp_path / "one" / "weights")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PART_EMBED, f"folder:{folder}", EMBED[1]]
    subprocess.run([*command, str(tmp_path / "one"), "1/1"], check=True, env=environment, capture_output=True)
    workers = [
        subprocess.Popen([*command, str(root), part], env=environment, stdout=subprocess.DEVNULL)
        for part in ("1/2", "2/2", "1/1")
    ]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert tree(root / "features") == tree(tmp_path / "one" / "features")


def test_a_repeated_strategy_runs_once(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert al(folder, root, "--seeds", "2", "--strategy", "random, random") == 0
    assert "2 new runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("run.json", "run.json is not the record of a run"),
        ("candidates.parquet", "candidates.parquet is damaged"),
    ],
)
def test_a_damaged_run_is_named(
    folder: Path, root: Path, damage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert al(folder, root, "--seeds", "2", "--strategy", "random") == 0
    next(root.glob(f"runs/*/*/*/{damage}")).write_bytes(b"[]")
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root), "--pca", "4"]
    assert main(["surrogate", "--recipe", "gains", *where, "--workers", "1"]) == 2
    assert said in capsys.readouterr().err


def test_unlabeled_images_are_embedded_and_refused_by_al(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in photos(tmp_path / "photos", 30).rglob("*.png"):
        shutil.copy(file, flat)
    assert main(["embed", "--dataset", f"folder:{flat}", *EMBED, "--data-root", str(tmp_path / "data")]) == 0
    assert al(flat, tmp_path / "data") == 2
    assert "no labeled training images" in capsys.readouterr().err


def test_all_seeds_seen_by_the_surrogate_is_said(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert al(folder, root, "--seeds", "2") == 0
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root), "--backbone", "simclr", "--pca", "4"]
    assert main(["surrogate", "--recipe", "gains", *where, "--workers", "1"]) == 0
    assert "every seed of these runs trained the surrogate" in capsys.readouterr().out
    assert al(folder, root, "--strategy", "gain_surrogate", "--seeds", "2") == 0
    assert "trained on seeds [0, 1]" in capsys.readouterr().out
