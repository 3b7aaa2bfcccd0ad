"""What runs share beside the features, through the command line: damage is refused, deleting it is the way out."""

import json
from pathlib import Path

import numpy as np
import pytest

import pipeline.task
from pipeline.cli import main
from tests.files import photos

EMBED = ["--backbone", "simclr:width=4:steps=3:batch_size=16"]
SMALL = ["--pca", "4", "--initial-size", "4", "--budget", "9", "--log-seeds", "1", "--log-every", "3"]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A data root with features and two runs."""
    root = tmp_path_factory.mktemp("data")
    where = ["--dataset", f"folder:{photos(root / 'photos')}", "--data-root", str(root)]
    assert main(["embed", *where, *EMBED]) == 0
    assert al(where, 0) == 0
    return where


def al(where: list[str], seed: int, workers: int = 1) -> int:
    seeds = ["--seeds", f"{seed}-{seed}", "--workers", str(workers)]
    return main(["al", *where, *SMALL, "--strategy", "typiclust,coreset", *seeds])


def one(where: list[str], name: str) -> Path:
    return next(Path(where[-1]).glob(f"derived/*/*/{name}-*.npy"))


def test_every_array_has_a_record(where: list[str]) -> None:
    root = Path(where[-1])
    recorded = set()
    for path in root.glob("derived/*/*/records/*.json"):
        digest = path.stem.rpartition("-")[2]
        recorded |= {f"{name}-{digest}.npy" for name in json.loads(path.read_text())["arrays"]}
    assert {path.name for path in root.glob("derived/*/*/*")} - {"records"} == recorded
    names = {name.rpartition("-")[0] for name in recorded}
    prepared, made = {"pool", "validation", "test", "labels"}, {"clusters", "neighbours", "neighbour-distances", "unit"}
    assert names == prepared | made | {"posterior-seeing-labels"}


@pytest.mark.parametrize("name", ["pool", "labels", "test", "clusters"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_flipped_bit_is_one_sentence(
    name: str, workers: int, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, seed = one(where, name), 10 * workers + len(name)
    whole = path.read_bytes()
    path.unlink()  # what earlier runs of this process have mapped stays as it was
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert al(where, seed, workers) == 2
    said = capsys.readouterr().err
    assert f"{path} is not what was written: delete it and run again" in said and "Traceback" not in said
    path.unlink()
    assert al(where, seed, workers) == 0
    assert path.read_bytes() == whole


def test_they_are_prepared_once(where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.task, "project", None)
    assert al(where, 1) == 0
    pool, labels = np.load(one(where, "pool")), np.load(one(where, "labels"))
    assert pool.shape[2] == 4 and len(labels) > pool.shape[1]
