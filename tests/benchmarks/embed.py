"""Stage one beside the bare forward pass of its network and beside the loop one would write, on the same images.

    make bench-embed
    make bench-embed ARGS="--dataset cifar10 --backbone dinov2 --images 60000 --device cuda"

Without options: JPEGs of photos at 224 pixels (../shared/data/imagenette where it is there, otherwise made here)
through ResNet-18, and scikit-learn's digits in the views of `make embed` through the small SimCLR network, on the CPU.
All networks have random weights.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cache.features import FeatureWriter, Identity, Listing
from cache.reuse import EarlierFeatures
from stages.embed.backbones import BACKBONES
from stages.embed.backbones.base import FrozenBackbone
from stages.embed.device import autocast, choose_precision
from stages.embed.engine import Engine
from stages.embed.extract import write_shards
from stages.embed.images import DATASETS
from stages.embed.images.base import ImageSet
from stages.embed.views import View, build_views

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 5


def photos(folder: Path, n: int) -> str:
    """A folder of JPEGs, 224 pixels: smooth noise, whose files are about as large as a photo's."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return f"folder:{folder}"


class Decoded(Dataset):  # type: ignore[type-arg]
    """What the plain loop reads: the views of one image, decoded and preprocessed."""

    def __init__(self, images: ImageSet, n: int, frozen: FrozenBackbone, views: Sequence[View]) -> None:
        self._images, self._n, self._preprocessing, self._views = images, n, frozen.preprocessing, views

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.from_numpy(self._images.load(index)).permute(2, 0, 1)[None]
        return torch.cat([self._preprocessing(view.apply(image, [index])) for view in self._views])


def ours(engine: Engine, n: int, folder: Path) -> None:
    """Stage one: decode, views, network, cache."""
    images, frozen = engine.images, engine.frozen
    identity = Identity(
        dataset="bench",
        dataset_digest=images.digest,
        backbone="bench",
        parameters={},
        full_name=frozen.full_name,
        weights="random",
        weights_digest=frozen.weights_digest,
        preprocessing=frozen.preprocessing.record(),
        views=[view.record() for view in engine.views],
        view_seed=0,
    )
    ids, labels, split, contents = (column[:n] for column in (images.ids, images.labels, images.split, images.contents))
    listing = Listing(ids=ids, labels=labels, split=split, contents=contents, class_names=())
    root = Path(tempfile.mkdtemp(dir=folder))
    writer = FeatureWriter(root, identity, listing, frozen.dim)
    earlier = EarlierFeatures(root, identity, listing, [])
    write_shards(writer, writer.pending(), engine, earlier)
    writer.finish()


def plain_loop(engine: Engine, n: int, folder: Path, batch: int, device: str) -> None:
    """DataLoader, network, np.save."""
    data = Decoded(engine.images, n, engine.frozen, engine.views)
    loader = DataLoader(data, batch_size=batch, num_workers=os.cpu_count() or 1)
    network, n_views = engine.frozen.network, len(engine.views)
    with torch.inference_mode(), autocast(device, choose_precision("auto", device)):
        parts = [network(part.flatten(0, 1).to(device)).float().cpu().unflatten(0, (-1, n_views)) for part in loader]
    np.save(folder / "features.npy", torch.cat(parts).numpy())


def bare_forward(engine: Engine, n: int, batch: int, device: str) -> None:
    """The network alone, as its library builds it, on a batch that is already there, in the layout that suits it."""
    side, total = engine.frozen.preprocessing.crop, n * len(engine.views)
    ready = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device, choose_precision("auto", device)):
        for start in range(0, total, batch):
            last = engine.frozen.network(ready[: min(batch, total - start)])
        last.cpu()


def compare(title: str, dataset: str, backbone: str, specs: Sequence[str], n: int, device: str, folder: Path) -> None:
    """Print the images/s of each, medians over interleaved repeats, and the median of the ratios within a repeat."""
    images, component = DATASETS.build(dataset).open(folder), BACKBONES.build(backbone)
    n = min(n, len(images))
    frozen, views = component.load("random", images, folder, device), build_views(specs or component.views)
    engine = Engine(images, frozen, views, device=device, precision=choose_precision("auto", device))
    batch = len(engine.batches(range(n))[0])
    work = {
        "bare forward pass": partial(bare_forward, engine, n, batch, device),
        "alcove": partial(ours, engine, n, folder),
        "plain loop": partial(plain_loop, engine, n, folder, batch, device),
    }
    print(f"{title}: {n} images x {len(views)} views, batches of {batch}, {device}")
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(REPEATS + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if repeat:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    for name, taken in seconds.items():
        ratio = statistics.median(np.divide(taken, seconds["alcove"]))
        print(f"  {name:<18} {n / statistics.median(taken):9.1f} images/s   alcove / this: {ratio:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-embed", description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", help="compare on this data set instead")
    parser.add_argument("--backbone", default="simclr")
    parser.add_argument("--views", default="", help="comma-separated; by default the backbone's own")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, shared = Path(name), ROOT.parent / "shared" / "data" / "imagenette"
        if asked.dataset:
            specs = [spec for spec in asked.views.split(",") if spec]
            title = f"{asked.backbone}, {asked.dataset}"
            compare(title, asked.dataset, asked.backbone, specs, asked.images, asked.device, folder)
            return
        spec = f"parquet:{shared}" if shared.exists() else photos(folder / "photos", 256)
        compare("resnet18, 224 px JPEG", spec, "resnet18", ["identity"], 256, asked.device, folder)
        compare("simclr, digits", "digits", "simclr", (), 1797, asked.device, folder)


if __name__ == "__main__":
    main()
