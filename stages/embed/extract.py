"""Stage one: every readable image and view through the frozen network, into the cache, shard by shard."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from cache.errors import InputError, UnreadableImageError
from cache.features import SHARD_IMAGES, FeatureWriter, Identity, Listing
from cache.files import require_writable
from cache.location import Location, local_folder
from stages.embed.backbones import BACKBONES
from stages.embed.config import EmbedConfig
from stages.embed.images import DATASETS
from stages.embed.views import View, build_views, prepare, view_seed

if TYPE_CHECKING:
    from stages.embed.backbones.base import FrozenBackbone
    from stages.embed.images.base import ImageSet

BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What a call did. new_images : embedded in it; missing_images : left to other workers; unreadable : id -> why"""

    path: Location
    n_images: int
    n_views: int
    new_images: int
    missing_images: int
    unreadable: dict[str, str]


def embed(config: EmbedConfig, shard_images: int = SHARD_IMAGES) -> Embedded:
    """Make or complete the cache that the configuration describes. What stands already is not computed again.

    Raises InputError, WeightsUnavailableError.
    """
    if config.batch_size < 1:
        raise InputError(f"batch_size={config.batch_size} must be at least 1")
    part, parts = _part(config.shard)
    require_writable(config.data_root)
    dataset, backbone = DATASETS.build(config.dataset), BACKBONES.build(config.backbone)
    views = build_views(config.views or backbone.views)
    device = choose_device(config.device)
    images = dataset.open(local_folder(config.data_root) / "datasets")
    frozen = backbone.load(config.weights, images, config.data_root / "weights", device)
    identity = Identity(
        dataset=dataset.slug,
        dataset_digest=images.digest,
        backbone=backbone.name,
        parameters=asdict(backbone),
        full_name=frozen.full_name,
        weights=Path(config.weights).name,
        weights_digest=frozen.weights_digest,
        preprocessing=frozen.preprocessing.record(),
        views=[view.record() for view in views],
        view_seed=config.view_seed,
    )
    listing = Listing(ids=images.ids, labels=images.labels, split=images.split, class_names=images.class_names)
    writer = FeatureWriter(config.data_root / "features", identity, listing, frozen.dim, shard_images)
    pending = writer.pending()
    ours = [shard for shard in pending if shard % parts == part]
    new = sum(len(writer.rows(shard)) for shard in ours)
    if ours:
        _embed_shards(writer, ours, images, frozen, views, config, device)
    missing = [shard for shard in pending if not writer.has_record(shard)]
    if not missing and (pending or not writer.complete):
        writer.finish()
    writer.close()
    writer.mark_current()
    return Embedded(
        path=writer.path,
        n_images=len(images),
        n_views=len(views),
        new_images=new,
        missing_images=sum(len(writer.rows(shard)) for shard in missing),
        unreadable=writer.unreadable(),
    )


def _embed_shards(
    writer: FeatureWriter,
    shards: list[int],
    images: ImageSet,
    frozen: FrozenBackbone,
    views: list[View],
    config: EmbedConfig,
    device: str,
) -> None:
    """Decode ahead in threads, run the network here, write behind in another thread."""
    new = sum(len(writer.rows(shard)) for shard in shards)
    with (
        ThreadPoolExecutor(os.cpu_count()) as decoders,
        ThreadPoolExecutor(1) as behind,
        tqdm(total=new, desc="embed", unit="image", disable=None) as bar,
    ):
        batches = [
            (shard, range(start, min(start + config.batch_size, rows.stop)))
            for shard in shards
            for rows in [writer.rows(shard)]
            for start in range(rows.start, rows.stop, config.batch_size)
        ]
        written: Future[None] | None = None
        loaded = _load_ahead(images, [batch for _, batch in batches], decoders)
        for shard, group in groupby(zip(batches, loaded, strict=True), key=lambda item: item[0][0]):
            rows = writer.rows(shard)
            features = np.zeros((len(rows), len(views), frozen.dim), dtype=np.float32)
            unreadable: dict[int, str] = {}
            for (_, batch), decoded in group:
                readable = [i for i, image in enumerate(decoded) if not isinstance(image, str)]
                unreadable |= {batch[i]: image for i, image in enumerate(decoded) if isinstance(image, str)}
                if readable:
                    ids = [images.ids[batch[i]] for i in readable]
                    where = np.array([batch[i] - rows.start for i in readable])
                    features[where] = embed_batch([decoded[i] for i in readable], ids, frozen, views, config, device)
                bar.update(len(batch))
            if written:
                written.result()
            written = behind.submit(writer.write, shard, features, unreadable)
        if written:
            written.result()


def _load_ahead(
    images: ImageSet, batches: list[range], pool: ThreadPoolExecutor
) -> Iterator[list[UInt8[np.ndarray, "height width 3"] | str]]:
    """Decoded images batch by batch, two batches ahead of the reader; the reason in place of an unreadable image."""

    def load(row: int) -> np.ndarray | str:
        try:
            return images.load(row)
        except UnreadableImageError as error:
            return str(error)

    ahead: deque[Iterator[np.ndarray | str]] = deque()
    for batch in batches:
        ahead.append(pool.map(load, batch))
        if len(ahead) > BATCHES_AHEAD:
            yield list(ahead.popleft())
    while ahead:
        yield list(ahead.popleft())


def embed_batch(
    decoded: list[Any],
    ids: list[str],
    frozen: FrozenBackbone,
    views: list[View],
    config: EmbedConfig,
    device: str,
) -> Float[np.ndarray, "images views dim"]:
    """Features of decoded images (height, width, 3) uint8, every view of them, float32."""
    import torch

    features = np.empty((len(decoded), len(views), frozen.dim), dtype=np.float32)
    for index, view in enumerate(views):
        seeds = [view_seed(config.view_seed, view.label, image_id) for image_id in ids]
        prepared = prepare(decoded, view, seeds, frozen.preprocessing).to(device)
        with torch.inference_mode():
            output = frozen.network(prepared.contiguous(memory_format=torch.channels_last))
        features[:, index] = output.float().cpu().numpy()
    return features


def _part(text: str) -> tuple[int, int]:
    """`2/4` is part 1 of 4, counted from 0. Raises InputError."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise InputError(f"shard={text!r} is not of the form i/n with 1 <= i <= n, such as 1/2")
    return int(match[1]) - 1, int(match[2])


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
