"""A data set that has changed: only what is new goes through the network, the rest is copied from earlier features."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cache.catalog import list_caches
from cache.features import FeatureCache, FeatureWriter
from pipeline.cli import main
from stages.embed.backbones.simclr import SimCLR
from stages.embed.config import EmbedConfig
from stages.embed.extract import Embedded, embed
from tests.files import photos, tree
from tests.integration.test_stages import AL

BACKBONE = "simclr:width=4:steps=3:batch_size=16"
VIEWS = ("identity", "crop")
SHARD_IMAGES = 12
ROUNDING = {"rtol": 1e-3, "atol": 1e-6}
"""One unit in the last place of float16: what another batch of images may change."""


class Watched(torch.nn.Module):
    """A network that counts what goes through it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.images += len(batch)
        return self.network(batch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in a file, so that the network stays the same whatever the images."""
    root = tmp_path_factory.mktemp("pretrained")
    pretrain = ["pretrain", "--method", "simclr:width=4:batch_size=16", "--steps", "3", "--data-root", str(root)]
    assert main([*pretrain, "--dataset", f"folder:{photos(root / 'photos')}"]) == 0
    return next((root / "weights").glob("*.safetensors"))


class Run:
    """Embeds with those weights, and tells how many views of images went through the network."""

    def __init__(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights, self.views_seen = str(weights), 0
        load = SimCLR.load

        def watched(*args):
            self.network = Watched((frozen := load(*args)).network)
            return replace(frozen, network=self.network)

        monkeypatch.setattr(SimCLR, "load", watched)

    def __call__(self, images: Path | str, root: Path, **changes) -> Embedded:
        spec = images if isinstance(images, str) else f"folder:{images}"
        settings = {"dataset": spec, "backbone": BACKBONE, "views": VIEWS, "weights": self.weights, "data_root": root}
        done = embed(EmbedConfig(**settings | changes), shard_images=SHARD_IMAGES)
        assert self.network.images % len(VIEWS) == 0
        self.seen = self.network.images // len(VIEWS)
        return done


@pytest.fixture
def run(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(weights, monkeypatch)


def features_by_id(path: Path) -> dict[str, np.ndarray]:
    cache = FeatureCache(path, "")
    return dict(zip(cache.ids, cache.features(), strict=True))


def add(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(100 + seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def assert_as_anew(run: Run, done: Embedded, images: Path | str, root: Path, **changes) -> None:
    """Equal to embedding everything into an empty root: every byte but features of other batches, equal to rounding."""
    anew = run(images, root, **changes)
    assert (anew.copied_images, anew.new_images) == (0, anew.n_images)
    one, other = FeatureCache(done.path, ""), FeatureCache(anew.path, "")
    assert done.path.name == anew.path.name and one.unreadable == other.unreadable
    np.testing.assert_allclose(one.features(), other.features(), **ROUNDING)
    parts = [
        {name: data for name, data in tree(cache.path).items() if name.split("/")[0] in ("ids", "contents", "labels")}
        for cache in (one, other)
    ]
    assert parts[0] == parts[1]


def test_appending_embeds_only_the_new_images(run: Run, folder: Path, tmp_path: Path) -> None:
    before = run(folder, tmp_path / "data")
    assert (before.new_images, before.copied_images, run.seen) == (90, 0, 90)
    add(folder, "red/000a.png", "red/zzz.png", "blue/050.png", "new class/1.png", "grün/0.png")
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen, done.n_images) == (5, 90, 5, 95)
    old, new = features_by_id(before.path), features_by_id(done.path)
    assert all(np.array_equal(new[image_id], features) for image_id, features in old.items())
    assert_as_anew(run, done, folder, tmp_path / "anew")
    assert run(folder, tmp_path / "data").copied_images == run.seen == 0


def test_copying_leaves_the_bytes_of_embedding_anew(run: Run, folder: Path, tmp_path: Path) -> None:
    """Batches of one image, so that no batch differs."""
    run(folder, tmp_path / "data", batch_size=1)
    add(folder, "red/000a.png", "blue/050.png")
    (folder / "red" / "broken.png").write_bytes(b"")
    done, anew = (run(folder, tmp_path / root, batch_size=1) for root in ("data", "anew"))
    assert (done.new_images, done.copied_images, done.unreadable) == (3, 90, anew.unreadable)
    assert tree(done.path) == tree(anew.path)


def test_a_changed_image_is_embedded_again(run: Run, folder: Path, tmp_path: Path) -> None:
    before = run(folder, tmp_path / "data")
    shutil.copy(folder / "red/003.png", folder / "red/000.png")
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (1, 89, 1)
    old, new = features_by_id(before.path), features_by_id(done.path)
    assert [image_id for image_id in new if not np.array_equal(new[image_id], old[image_id])] == ["red/000.png"]
    assert_as_anew(run, done, folder, tmp_path / "anew")


def test_removing_images_or_moving_the_folder_embeds_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "data")
    (folder / "red/000.png").unlink()
    (folder / "grün/089.png").unlink()
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (0, 88, 0)
    assert_as_anew(run, done, folder, tmp_path / "anew")
    moved = run(folder.rename(tmp_path / "elsewhere"), tmp_path / "data")
    assert (moved.new_images, moved.copied_images, run.seen) == (0, 88, 0)
    assert moved.path.parent.parent != done.path.parent.parent


@pytest.mark.parametrize("target", ["red/renamed.png", "blue/000.png"])
def test_a_renamed_image_is_a_new_one(run: Run, folder: Path, tmp_path: Path, target: str) -> None:
    """Its random views are others. So is one that moves to another class folder, as the folder is part of its id."""
    before = run(folder, tmp_path / "data")
    (folder / "red/000.png").rename(folder / target)
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (1, 89, 1)
    old, new = features_by_id(before.path)["red/000.png"], features_by_id(done.path)[target]
    np.testing.assert_allclose(old[0], new[0], **ROUNDING)
    assert not np.allclose(old[1], new[1], **ROUNDING)
    assert_as_anew(run, done, folder, tmp_path / "anew")


def write_parquet(file: Path, labels: list[int]) -> None:
    buffers = [io.BytesIO() for _ in labels]
    for seed, buffer in enumerate(buffers):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [buffer.getvalue() for buffer in buffers], "label": labels}), file)


def test_relabeled_rows_are_copied(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, [0, 1] * 15)
    before = run(f"parquet:{file}", tmp_path / "data")
    write_parquet(file, [1, 0] * 15)
    done = run(f"parquet:{file}", tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (0, 30, 0) and done.path != before.path
    assert FeatureCache(done.path, "").labels.tolist() == [1, 0] * 15
    write_parquet(file, [1, 0] * 16)
    assert run(f"parquet:{file}", tmp_path / "data").copied_images == 30 and run.seen == 2


def test_an_image_that_could_not_be_read_is_tried_again(run: Run, folder: Path, tmp_path: Path) -> None:
    bad = folder / "red" / "000.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    assert run(folder, tmp_path / "data").unreadable.keys() == {"red/000.png"}
    add(folder, "red/new.png")
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (2, 89, 2)  # the unreadable one as a black square
    bad.write_bytes(whole)
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen, done.unreadable) == (1, 90, 1, {})


def test_several_caches_contribute(run: Run, folder: Path, tmp_path: Path) -> None:
    for kind in ("red", "blue"):
        shutil.copytree(folder / kind, tmp_path / "part" / kind)
        run(tmp_path / "part", tmp_path / "data")
        shutil.rmtree(tmp_path / "part")
    done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (30, 60, 30)
    assert_as_anew(run, done, folder, tmp_path / "anew")


@pytest.mark.parametrize("change", [{"views": ("identity", "blur")}, {"view_seed": 1}, {"weights": "random"}])
def test_features_made_otherwise_are_not_copied(run: Run, folder: Path, tmp_path: Path, change: dict) -> None:
    run(folder, tmp_path / "data")
    assert (run(folder, tmp_path / "data", **change).copied_images, run.seen) == (0, 90)


def test_a_damaged_shard_is_computed_and_its_cache_named(run: Run, folder: Path, tmp_path: Path) -> None:
    before = run(folder, tmp_path / "data")
    add(folder, "red/new.png")
    chunk = before.path / "features" / "c" / "2" / "0" / "0"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    chunk.write_bytes(damaged)
    with pytest.warns(UserWarning, match=f"{before.path} are damaged"):
        done = run(folder, tmp_path / "data")
    assert (done.new_images, done.copied_images, run.seen) == (13, 78, 13)
    assert_as_anew(run, done, folder, tmp_path / "anew")


def test_an_append_that_was_stopped_goes_on(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path / "data")
    add(folder, "red/000a.png", "blue/050.png", "grün/new.png")
    shutil.copytree(tmp_path / "data", tmp_path / "whole")
    whole, write = run(folder, tmp_path / "whole"), FeatureWriter.write

    def stopped(writer, shard, *args):
        if len(list(writer.path.glob("records/*.json"))) == 4:
            raise KeyboardInterrupt
        write(writer, shard, *args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FeatureWriter, "write", stopped)
        run(folder, tmp_path / "data")
    done = run(folder, tmp_path / "data")
    assert 0 < done.new_images + done.copied_images < 93 and run.seen == done.new_images <= 3
    assert tree(done.path) == tree(whole.path)


def test_workers_copy_their_own_shards(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "data")
    add(folder, "blue/000.png", "red/zzz.png")
    shutil.copytree(tmp_path / "data", tmp_path / "one")
    one = run(folder, tmp_path / "one")
    done = [run(folder, tmp_path / "data", shard=part) for part in ("1/2", "2/2")]
    assert [part.new_images + part.copied_images for part in done] == [48, 44]
    assert sum(part.new_images for part in done) == 2 and done[0].missing_images == 44 and not done[1].missing_images
    assert tree(done[1].path) == tree(one.path)


def test_the_command_says_what_was_copied_and_al_takes_the_newest(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--dataset", f"folder:{folder}", "--data-root", str(tmp_path / "data"), "--backbone", BACKBONE]
    command = ["embed", *where, "--weights", str(weights)]
    assert main(command) == 0
    capsys.readouterr()
    add(folder, "red/new.png", "blue/new.png")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("embedded 2 images x 3 views in ") and ", copied 90 from earlier features: " in said
    newest = Path(said.strip().rpartition(": ")[2])
    assert main(["al", *where, *AL[2:], "--strategy", "random", "--seeds", "1", "--workers", "1"]) == 0
    assert f"features {newest.name} " in capsys.readouterr().out
    (folder / "red/new.png").unlink()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("copied 91 images x 3 views from earlier features: ")
    assert len(list_caches(tmp_path / "data" / "features")) == 3


def test_pretraining_anew_names_the_weights_of_before(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    command = ["embed", "--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root)]
    assert main(command) == 0
    assert main([*command[:-1], str(tmp_path / "other")]) == 0
    assert "WEIGHTS=" not in capsys.readouterr().out
    (kept,) = root.glob("weights/*.safetensors")
    for name in ("red/new.png", "blue/new.png"):
        add(folder, name)
        shutil.copytree(root, tmp_path / name)
        assert main([*command[:-1], str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        hint = f"WEIGHTS={tmp_path / name / 'weights' / kept.name} keeps the weights of before"
        assert hint in said and "copied" not in said
        assert main([*command, "--weights", str(kept)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("embedded 1 images x 3 views in ") and ", copied 9" in said
        assert main(["al", *command[1:], *AL[2:], "--strategy", "random", "--seeds", "1", "--workers", "1"]) == 0
        assert f"features {Path(said.strip().rpartition(': ')[2]).name} " in capsys.readouterr().out
    digests = {json.loads(file.read_text())["weights_digest"] for file in root.glob("features/*/*/*/identity.json")}
    assert len(digests) == 1
    assert main([*command[:-1], str(root), "--views", "identity"]) == 0
    assert "WEIGHTS=" not in capsys.readouterr().out
