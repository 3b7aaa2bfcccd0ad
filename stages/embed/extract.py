"""Stage one: every readable image and view through the frozen network, into the cache, shard by shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from cache.errors import InputError, UnreadableImageError
from cache.features import FeatureWriter, Identity, Listing
from cache.files import require_writable
from stages.embed.backbones import BACKBONES
from stages.embed.config import EmbedConfig
from stages.embed.images import DATASETS
from stages.embed.views import VIEWS, View, prepare, view_seed

if TYPE_CHECKING:
    from pathlib import Path

    from stages.embed.backbones.base import FrozenBackbone
    from stages.embed.images.base import ImageSet


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A finished cache. new_images : embedded in this call; unreadable : image id -> why"""

    path: Path
    n_images: int
    n_views: int
    new_images: int
    unreadable: dict[str, str]


def embed(config: EmbedConfig, shard_images: int = 1024) -> Embedded:
    """Make or complete the cache that the configuration describes. What stands already is not computed again.

    Raises InputError, WeightsUnavailableError.
    """
    if config.batch_size < 1:
        raise InputError(f"batch_size={config.batch_size} must be at least 1")
    require_writable(config.data_root)
    dataset, backbone = DATASETS.build(config.dataset), BACKBONES.build(config.backbone)
    views = [VIEWS.build(spec) for spec in config.views or backbone.views]
    if views[0].name != "identity" or len({view.name for view in views}) < len(views):
        raise InputError(f"views={','.join(view.name for view in views)} must be distinct and begin with identity")
    device = choose_device(config.device)
    images = dataset.open()
    frozen = backbone.load(config.weights, images, config.data_root / "weights", device)
    identity = Identity(
        dataset=dataset.slug,
        dataset_digest=images.digest,
        backbone=backbone.name,
        parameters=asdict(backbone),
        full_name=frozen.full_name,
        weights_digest=frozen.weights_digest,
        preprocessing=frozen.preprocessing.record(),
        views=[{"name": view.name, **asdict(view)} for view in views],
        view_seed=config.view_seed,
    )
    listing = Listing(ids=images.ids, labels=images.labels, split=images.split, class_names=images.class_names)
    writer = FeatureWriter(config.data_root / "features", identity, listing, frozen.dim, shard_images)
    pending = [] if writer.complete else writer.pending()
    new = sum(len(writer.rows(shard)) for shard in pending)
    with tqdm(total=len(images), initial=len(images) - new, desc="embed", unit="image", disable=None) as bar:
        for shard in pending:
            rows = writer.rows(shard)
            features, unreadable = embed_rows(images, rows, frozen, views, config, device, bar)
            writer.write(shard, features, unreadable)
    if not writer.complete:
        writer.finish()
    writer.mark_current()
    return Embedded(
        path=writer.path,
        n_images=len(images),
        n_views=len(views),
        new_images=new,
        unreadable=writer.unreadable(),
    )


def embed_rows(
    images: ImageSet,
    rows: range,
    frozen: FrozenBackbone,
    views: list[View],
    config: EmbedConfig,
    device: str,
    bar: tqdm,
) -> tuple[Float[np.ndarray, "rows views dim"], dict[int, str]]:
    """Features of some images, float32, zero where an image cannot be read; and those rows with the reason."""
    import torch

    features = np.zeros((len(rows), len(views), frozen.dim), dtype=np.float32)
    unreadable: dict[int, str] = {}
    for start in range(rows.start, rows.stop, config.batch_size):
        batch, decoded = [], []
        for row in range(start, min(start + config.batch_size, rows.stop)):
            try:
                decoded.append(images.load(row))
                batch.append(row)
            except UnreadableImageError as error:
                unreadable[row] = str(error)
        if batch:
            for index, view in enumerate(views):
                seeds = [view_seed(config.view_seed, view.name, images.ids[row]) for row in batch]
                prepared = prepare(decoded, view, seeds, frozen.preprocessing).to(device)
                with torch.inference_mode():
                    output = frozen.network(prepared).float().cpu().numpy()
                features[np.array(batch) - rows.start, index] = output
        bar.update(min(config.batch_size, rows.stop - start))
    return features, unreadable


def choose_device(name: str) -> str:
    """The device that a name such as "auto" stands for. Raises InputError."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("DEVICE=cuda was asked for and torch finds no CUDA device here: use DEVICE=cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"there is no device {name!r}: use auto, cpu or cuda")
    return name
