"""Stage one beside the bare forward pass of its network and beside the loop one would write, on the same images.

    make bench-embed

Images: JPEGs of photos at 224 pixels (../shared/data/imagenette where it is there, otherwise made here) through
ResNet-18 with random weights, and scikit-learn's digits through the small SimCLR network, also untrained.
"""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cache.features import FeatureWriter, Identity, Listing
from cache.reuse import EarlierFeatures
from stages.embed.backbones import BACKBONES
from stages.embed.backbones.base import FrozenBackbone
from stages.embed.engine import Engine
from stages.embed.extract import write_shards
from stages.embed.images import DATASETS
from stages.embed.images.base import ImageSet
from stages.embed.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 3


def photos(folder: Path, n: int) -> str:
    """A folder of JPEGs, 224 pixels: smooth noise, whose files are about as large as a photo's."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return f"folder:{folder}"


class Decoded(Dataset):  # type: ignore[type-arg]
    """What the plain loop reads: one image decoded and preprocessed at a time."""

    def __init__(self, images: ImageSet, n: int, frozen: FrozenBackbone) -> None:
        self._images, self._n, self._preprocessing = images, n, frozen.preprocessing

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.from_numpy(self._images.load(index)).permute(2, 0, 1)[None]
        return self._preprocessing(image)[0]


def ours(images: ImageSet, n: int, frozen: FrozenBackbone, folder: Path, batch: int) -> None:
    """Stage one: decode, network, cache."""
    identity = Identity(
        dataset="bench",
        dataset_digest=images.digest,
        backbone="bench",
        parameters={},
        full_name=frozen.full_name,
        weights="random",
        weights_digest=frozen.weights_digest,
        preprocessing=frozen.preprocessing.record(),
        views=[{"name": "identity"}],
        view_seed=0,
    )
    ids, labels, split, contents = (column[:n] for column in (images.ids, images.labels, images.split, images.contents))
    listing = Listing(ids=ids, labels=labels, split=split, contents=contents, class_names=())
    root = Path(tempfile.mkdtemp(dir=folder))
    writer = FeatureWriter(root, identity, listing, frozen.dim)
    earlier = EarlierFeatures(root, identity, listing, [])
    write_shards(writer, writer.pending(), Engine(images, frozen, [VIEWS.build("identity")]), earlier)
    writer.finish()


def plain_loop(images: ImageSet, n: int, frozen: FrozenBackbone, folder: Path, batch: int) -> None:
    """DataLoader, network, np.save."""
    loader = DataLoader(Decoded(images, n, frozen), batch_size=batch, num_workers=2)
    with torch.inference_mode():
        features = [frozen.network(part).numpy() for part in loader]
    np.save(io.BytesIO(), np.concatenate(features))


def bare_forward(frozen: FrozenBackbone, n: int, side: int, batch: int) -> None:
    """The network alone, on a batch that is already there."""
    ready = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for start in range(0, n, batch):
            frozen.network(ready[: min(batch, n - start)])


def rates(work: dict[str, Callable[[], None]], n: int) -> dict[str, float]:
    """Images/s of each, the best of some interleaved repeats after one warm-up."""
    best = dict.fromkeys(work, float("inf"))
    for repeat in range(REPEATS + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: n / seconds for name, seconds in best.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, shared = Path(name), ROOT.parent / "shared" / "data" / "imagenette"
        (folder / "photos").mkdir()
        spec = f"parquet:{shared}" if shared.exists() else photos(folder / "photos", 256)
        for title, dataset, backbone, n, side, batch in (
            ("resnet18, 224 px JPEG", spec, "resnet18", 256, 224, 64),
            ("simclr, digits", "digits", "simclr", 1797, 8, 256),
        ):
            images = DATASETS.build(dataset).open()
            frozen = BACKBONES.build(backbone).load("random", images, folder, "cpu")
            work = {
                "bare forward pass": lambda: bare_forward(frozen, n, side, batch),  # noqa: B023
                "alcove": lambda: ours(images, n, frozen, folder, batch),  # noqa: B023
                "plain loop": lambda: plain_loop(images, n, frozen, folder, batch),  # noqa: B023
            }
            print(f"{title}: {n} images, batches of {batch}, {torch.get_num_threads()} threads")
            found = rates(work, n)
            for name, rate in found.items():
                print(f"  {name:<18} {rate:9.1f} images/s   alcove / this: {found['alcove'] / rate:5.2f}")


if __name__ == "__main__":
    main()
