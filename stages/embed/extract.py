"""Stage one: every readable image and view through the frozen network, into the cache, shard by shard."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from cache.errors import AlcoveError, InputError
from cache.features import SHARD_IMAGES, FeatureWriter, Identity, Listing
from cache.files import require_writable
from cache.location import Location, local_folder
from cache.reuse import EarlierFeatures, finished_identities
from stages.embed.backbones import BACKBONES
from stages.embed.config import EmbedConfig
from stages.embed.device import choose_devices, choose_precision
from stages.embed.engine import Engine
from stages.embed.images import DATASETS
from stages.embed.views import View, build_views

if TYPE_CHECKING:
    from stages.embed.backbones.base import FrozenBackbone
    from stages.embed.images.base import ImageSet


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What a call did.

    new_images : embedded in it; copied_images : taken from an earlier cache in it
    missing_images : left to other workers; unreadable : id -> why
    """

    path: Location
    n_images: int
    n_views: int
    new_images: int
    copied_images: int
    missing_images: int
    unreadable: dict[str, str]


def embed(config: EmbedConfig, shard_images: int = SHARD_IMAGES) -> Embedded:
    """Make or complete the cache that the configuration describes.

    What stands already is not computed again, neither in this cache nor in another one: see `EarlierFeatures`.
    Several devices have a process each, which share the work as `shard` would share it between machines.
    Raises InputError, WeightsUnavailableError.
    """
    if config.batch_size < 0:
        raise InputError(f"batch_size={config.batch_size} must be at least 1, or 0 for what suits the device")
    part, parts = _part(config.shard)
    devices = choose_devices(config.device)
    _views(config)
    require_writable(config.data_root)
    precisions = {choose_precision(config.precision, device) for device in devices}
    config = replace(config, precision="float32" if len(precisions) > 1 else precisions.pop())
    if len(devices) == 1:
        return _embed_on(devices[0], config, part, parts, shard_images)
    _open(config, devices[0])  # downloads and pretrains, once for all
    jobs = (
        delayed(_embed_on)(device, config, part + parts * index, parts * len(devices), shard_images)
        for index, device in enumerate(devices)
    )
    try:
        done: list[Embedded] = Parallel(n_jobs=len(devices), backend="loky")(jobs)
    except BrokenExecutor as error:
        raise AlcoveError(
            "a worker process was killed, perhaps for want of memory: run the same command again, it goes on where it "
            "stopped, or name fewer with DEVICE="
        ) from error
    last = min(done, key=lambda worker: worker.missing_images)
    new, copied = (sum(counts) for counts in zip(*((one.new_images, one.copied_images) for one in done), strict=True))
    return replace(last, new_images=new, copied_images=copied)


def _embed_on(device: str, config: EmbedConfig, part: int, parts: int, shard_images: int) -> Embedded:
    """One worker's part of what is missing: of all shards every `parts`-th, from the `part`-th on."""
    images, frozen = _open(config, device)
    listing = Listing(
        ids=images.ids,
        labels=images.labels,
        split=images.split,
        contents=images.contents,
        class_names=images.class_names,
    )
    identity = Identity(
        **_chosen(config),
        dataset_digest=images.digest,
        full_name=frozen.full_name,
        weights=Path(config.weights).name,
        weights_digest=frozen.weights_digest,
        preprocessing=frozen.preprocessing.record(),
        precision=config.precision,
    )
    root = config.data_root / "features"
    writer = FeatureWriter(root, identity, listing, frozen.dim, shard_images)
    pending = writer.pending()
    ours = [shard for shard in pending if shard % parts == part]
    rows = [row for shard in ours for row in writer.rows(shard)]
    earlier = EarlierFeatures(root, identity, listing, rows)
    if ours:
        engine = Engine(
            images,
            frozen,
            _views(config),
            device=device,
            view_seed=config.view_seed,
            precision=identity.precision,
            batch_size=config.batch_size,
        )
        write_shards(writer, ours, engine, earlier)
    missing = [shard for shard in pending if shard not in ours and not writer.stands(shard)]
    if not missing and (pending or not writer.complete):
        writer.finish()
    writer.close()
    writer.mark_current()
    new = len(earlier.missing(rows))
    return Embedded(
        path=writer.path,
        n_images=len(images),
        n_views=len(identity.views),
        new_images=new,
        copied_images=len(rows) - new,
        missing_images=sum(len(writer.rows(shard)) for shard in missing),
        unreadable=writer.unreadable(),
    )


def _views(config: EmbedConfig) -> list[View]:
    return build_views(config.views or BACKBONES.build(config.backbone).views)


def _chosen(config: EmbedConfig) -> dict[str, Any]:
    """What of a cache's identity depends neither on the images nor on the weights."""
    backbone = BACKBONES.build(config.backbone)
    return {
        "dataset": DATASETS.build(config.dataset).slug,
        "backbone": backbone.name,
        "parameters": asdict(backbone),
        "views": [view.record() for view in _views(config)],
        "view_seed": config.view_seed,
    }


def _open(config: EmbedConfig, device: str) -> tuple[ImageSet, FrozenBackbone]:
    """The images, and the network on its device; downloaded or pretrained where it is not at hand yet."""
    images = DATASETS.build(config.dataset).open(local_folder(config.data_root) / "datasets")
    backbone, weights_root = BACKBONES.build(config.backbone), config.data_root / "weights"
    to_make = None if config.weights else backbone.weights_to_make(images, weights_root)
    if to_make:
        _say_what_keeps_weights(to_make, _chosen(config), config.data_root / "features")
    return images, backbone.load(config.weights, images, weights_root, device)


def _say_what_keeps_weights(to_make: Path, chosen: Mapping[str, Any], features_root: Location) -> None:
    """Where weights are about to be made of images that have changed: the option that keeps those of before.

    to_make : their file; chosen : what of the identity does not depend on the images
    """
    names = [
        to_make.with_name(identity["weights"] or f"{identity['full_name']}{to_make.suffix}")
        for identity in finished_identities(features_root)
        if all(identity.get(name) == value for name, value in chosen.items())
    ]
    kept = next((file for file in names if file.is_file()), None)
    if kept:
        print(
            f"pretraining on the images as they are now; WEIGHTS={shlex.quote(str(kept))} keeps the weights of before "
            f"and embeds only the images that are new"
        )


def write_shards(writer: FeatureWriter, shards: Sequence[int], engine: Engine, earlier: EarlierFeatures) -> None:
    """Embed some shards of a cache, but what stands in earlier ones. Each is written by another thread meanwhile."""
    batches = {shard: engine.batches(earlier.missing(writer.rows(shard))) for shard in shards}
    total = sum(len(batch) for shard in shards for batch in batches[shard])
    with (
        ThreadPoolExecutor(1) as behind,
        tqdm(total=total, desc="embed", unit="image", disable=None) as bar,
        closing(engine.features([batch for shard in shards for batch in batches[shard]])) as stream,
    ):
        written: Future[None] | None = None
        for shard in shards:
            rows = writer.rows(shard)
            features = np.zeros((len(rows), len(engine.views), engine.frozen.dim), dtype=np.float32)
            earlier.fill(rows, features)
            unreadable: dict[int, str] = {}
            for batch in batches[shard]:
                found, reasons = next(stream)
                features[np.array(batch) - rows.start] = found
                unreadable |= reasons
                bar.update(len(batch))
            if written:
                written.result()
            written = behind.submit(writer.write, shard, features, unreadable)
        if written:
            written.result()


def _part(text: str) -> tuple[int, int]:
    """`2/4` is part 1 of 4, counted from 0. Raises InputError."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise InputError(f"shard={text!r} is not of the form i/n with 1 <= i <= n, such as 1/2")
    return int(match[1]) - 1, int(match[2])
