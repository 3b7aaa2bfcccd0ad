"""The engine: features are those of each image alone, whatever the batch, the sizes, the device's memory."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import densenet121, resnet18

from cache.errors import InputError, UnreadableImageError
from cache.features import FeatureCache, FeatureWriter, Identity, Listing
from cache.reuse import EarlierFeatures
from stages.embed.backbones.base import FrozenBackbone, Preprocessing
from stages.embed.backbones.convnet import ConvNet
from stages.embed.config import EmbedConfig
from stages.embed.device import choose_devices, choose_precision
from stages.embed.engine import Engine, fused
from stages.embed.extract import embed, write_shards
from stages.embed.images.base import ImageSet
from stages.embed.views import build_views, view_seed

PREPROCESSING = Preprocessing(resize=12, crop=8, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
VIEWS = build_views(["identity", "hflip", "crop*2", "trivialaugment", "blur"])


class Pictures(ImageSet):
    """Noise of the given sizes; those of height 0 cannot be read. Keeps an eye on the images that are alive."""

    def __new__(cls, sizes):
        pictures = super().__new__(cls)
        ids = [f"{i:03d}" for i in range(len(sizes))]
        labels = np.zeros(len(sizes), dtype=np.int64)
        split = ["train"] * len(sizes)
        ImageSet.__init__(pictures, ids=ids, labels=labels, split=split, class_names=("a",), contents=ids)
        vars(pictures).update(sizes=sizes, alive=weakref.WeakSet(), most_alive=0)
        return pictures

    def __init__(self, sizes):
        pass

    def load(self, index):
        height, width = self.sizes[index]
        if not height:
            raise UnreadableImageError(f"image {self.ids[index]!r} cannot be read: on purpose")
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8).view(_Watched)
        self.alive.add(pixels)
        vars(self)["most_alive"] = max(self.most_alive, len(self.alive))
        return pixels


class _Watched(np.ndarray):
    __hash__ = object.__hash__


def frozen(network: nn.Module, preprocessing: Preprocessing = PREPROCESSING, dim: int = 16) -> FrozenBackbone:
    network = network.eval().requires_grad_(False)
    return FrozenBackbone(
        full_name="net.random", weights_digest="", preprocessing=preprocessing, dim=dim, network=network
    )


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = ConvNet(4, 8)
    with torch.no_grad():
        network(torch.randn(64, 3, 8, 8))  # running statistics of their own
    return network


def one_by_one(images: ImageSet, backbone: FrozenBackbone) -> np.ndarray:
    """What the engine computes, in the plainest way."""
    features = np.zeros((len(images), len(VIEWS), backbone.dim), dtype=np.float32)
    for row, image_id in enumerate(images.ids):
        try:
            pixels = torch.from_numpy(np.array(images.load(row))).permute(2, 0, 1)[None]
        except UnreadableImageError:
            continue
        for index, view in enumerate(VIEWS):
            viewed = view.apply(pixels, [view_seed(7, view.label, image_id)])
            features[row, index] = backbone.network(backbone.preprocessing(viewed))[0]
    return features


def run(engine: Engine, rows) -> tuple[np.ndarray, dict[int, str]]:
    parts = list(engine.features(engine.batches(rows)))
    return np.concatenate([features for features, _ in parts]), {k: v for _, why in parts for k, v in why.items()}


SIZES = {
    "one size": [(10, 14)] * 23,
    "many sizes": [(9, 20), (30, 8), (8, 8)] * 7 + [(200, 150)],
    "some unreadable": [(10, 10), (0, 0), (10, 10), (10, 11), (0, 0)] * 4,
    "none readable": [(0, 0)] * 3,
}


@pytest.mark.parametrize("batch_size", [0, 1, 5])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_features_are_those_of_each_image_alone(network, sizes, batch_size):
    images, backbone = Pictures(sizes), frozen(network)
    features, unreadable = run(Engine(images, backbone, VIEWS, view_seed=7, batch_size=batch_size), range(len(sizes)))
    np.testing.assert_allclose(features, one_by_one(images, backbone), rtol=1e-4, atol=1e-5)
    assert sorted(unreadable) == [row for row, size in enumerate(sizes) if size == (0, 0)]
    assert all(images.ids[row] in why for row, why in unreadable.items())


def test_any_rows_may_be_asked_for(network):
    images = Pictures([(9, 9), (12, 10)] * 10)
    engine = Engine(images, frozen(network), VIEWS, batch_size=4)
    whole, _ = run(engine, range(20))
    some, _ = run(engine, [3, 4, 11, 17, 19])
    np.testing.assert_allclose(some, whole[[3, 4, 11, 17, 19]], rtol=1e-4, atol=1e-5)


def test_large_photos_are_dropped_once_prepared(network):
    images = Pictures([(1200, 1700 + i) for i in range(48)])
    run(Engine(images, frozen(network), build_views(["identity"]), batch_size=48), range(48))
    assert images.most_alive <= 3 * torch.get_num_threads() + 3


@pytest.mark.parametrize("make", [resnet18, densenet121])
def test_fused_networks_give_the_same_features(make):
    torch.manual_seed(0)
    network = make().train()
    with torch.no_grad():
        network(torch.randn(16, 3, 64, 64))
    network.eval()
    with torch.no_grad():
        images = torch.randn(4, 3, 64, 64)
        torch.testing.assert_close(fused(network)(images), network(images), rtol=1e-3, atol=1e-4)


def test_a_network_that_cannot_be_traced_stays(network):
    class Branching(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    branching = Branching()
    assert fused(branching) is branching


class Narrow(nn.Module):
    """A network on a device that has room for few images."""

    def __init__(self, room):
        super().__init__()
        self.room, self.tried = room, []

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images.mean((2, 3))


def test_batches_are_halved_where_memory_runs_out_and_stay_small():
    narrow, images = Narrow(room=3), Pictures([(8, 8)] * 32)
    engine = Engine(images, frozen(narrow, dim=3), build_views(["identity"]), batch_size=16)
    engine._network = narrow  # tracing would run it
    features, _ = run(engine, range(32))
    assert features.shape == (32, 1, 3) and np.isfinite(features).all() and features.any(axis=2).all()
    assert sorted(set(narrow.tried)) == [2, 4, 8, 16] and narrow.tried.count(16) == 1


def test_no_room_for_one_image_is_one_sentence():
    narrow = Narrow(room=0)
    engine = Engine(Pictures([(8, 8)] * 4), frozen(narrow, dim=3), build_views(["identity"]))
    engine._network = narrow
    with pytest.raises(InputError, match="no room for one image: use DEVICE=cpu"):
        run(engine, range(4))


def test_half_precision_features_point_the_same_way(network):
    images, views = Pictures([(10, 10)] * 20), build_views(["identity"])
    exact, _ = run(Engine(images, frozen(network), views), range(20))
    half, _ = run(Engine(images, frozen(network), views, precision="bfloat16"), range(20))
    assert not np.array_equal(exact, half) and cosine(exact, half).min() > 0.999


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def test_precision_is_part_of_the_cache(tmp_path: Path):
    config = {"backbone": "simclr:width=4:steps=2:batch_size=8", "data_root": tmp_path, "views": ("identity",)}
    paths = {embed(EmbedConfig(precision=name, **config)).path for name in ("float32", "bfloat16", "auto")}
    assert len(paths) == 2  # on a CPU "auto" is float32


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 1, ["cuda"]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda:1", 2, ["cuda:1"]),
        ("cuda:0, cuda:2", 3, ["cuda:0", "cuda:2"]),
        ("cpu,cpu", 0, ["cpu", "cpu"]),
        ("cpu", 4, ["cpu"]),
    ],
)
def test_devices(monkeypatch, asked, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_devices(asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("cuda", "DEVICE=cuda was asked for and torch finds 0 CUDA devices"),
        ("cuda:0", "finds 0 CUDA devices"),
        ("gpu", "there is no device 'gpu'"),
        ("cpu,", "there is no device ''"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, asked, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        choose_devices(asked)


def test_precisions(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert choose_precision("auto", "cuda:1") == "bfloat16" and choose_precision("auto", "cpu") == "float32"
    assert choose_precision("float32", "cuda") == "float32"
    with pytest.raises(InputError, match="precision='half' must be one of auto, float32, bfloat16"):
        choose_precision("half", "cpu")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_float16_keeps_the_direction_of_every_feature(tmp_path: Path, scale: float) -> None:
    """What is stored against what the network said: cosine above 0.9999 for every image and view."""
    torch.manual_seed(0)
    backbone = resnet18()
    backbone.fc = nn.Identity()
    images = Pictures([(40, 40)] * 24)
    engine = Engine(images, frozen(_Scaled(backbone, scale), dim=512), build_views(["identity", "blur"]))
    identity = Identity(
        dataset="pictures",
        dataset_digest=images.digest,
        backbone="resnet18",
        parameters={},
        full_name="resnet18.random",
        weights="random",
        weights_digest="",
        preprocessing=PREPROCESSING.record(),
        views=[view.record() for view in engine.views],
        view_seed=0,
    )
    names = ("ids", "labels", "split", "contents", "class_names")
    listing = Listing(**{name: getattr(images, name) for name in names})
    writer = FeatureWriter(tmp_path, identity, listing, dim=512, shard_images=10)
    write_shards(writer, writer.pending(), engine, EarlierFeatures(tmp_path, identity, listing, []))
    writer.finish()
    stored = FeatureCache(writer.path, "").features()
    exact, _ = run(engine, range(24))
    assert stored.dtype == np.float16 and cosine(stored, exact).min() > 0.9999


class _Scaled(nn.Module):
    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, images):
        return self.network(images) * self.scale
