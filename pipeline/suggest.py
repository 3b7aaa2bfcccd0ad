"""Which images to label next: the strategy that is asked, what it answers, and how to go on."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from cache.derived import DerivedStore
from cache.errors import InputError
from cache.features import FeatureCache
from cache.files import digest_json, require_writable, write_whole
from cache.location import local_folder
from pipeline.config import SuggestConfig
from pipeline.grid import check_grid, require_met
from pipeline.suggest_page import Row, page, write_list
from pipeline.task import TASK_FORMAT, find_features
from pipeline.thumbnails import data_uri
from stages.al.heads import HEADS, build_head
from stages.al.heads.closed_form import softmax
from stages.al.pool import Pool
from stages.al.projection import project
from stages.al.signals import left_out_accuracy
from stages.al.strategies import STRATEGIES
from stages.al.suggest import require_real, suggest
from stages.al.view import Needs, unmet
from stages.embed.images import DATASETS, ImageSet
from stages.embed.images.folder import Folder

FEW = 10
"""Labels below which a head says too little: what the shipped surrogate's runs began with."""
SHOWN = 5
"""Images named in the terminal."""
SIDE = 192
"""Pixels of the page's images."""


@dataclass(frozen=True, kw_only=True)
class Unlabeled:
    """The images that a data set offers for labeling, beside those that have labels.

    rows : of the pool's images in the cache, which are all readable training images
    test, test_labels : labeled images of the test split, which the head does not learn from
    """

    cache: FeatureCache
    pool: Pool
    rows: Int[np.ndarray, "pool"]
    test: Float[np.ndarray, "test dim"]
    test_labels: Int[np.ndarray, "test"]

    @property
    def labels(self) -> Int[np.ndarray, "labeled"]:
        """Of those that have one."""
        return self.pool.labels[self.pool.labels >= 0]

    @property
    def counts(self) -> dict[str, int]:
        """Labeled images that the head learns from, by class."""
        found = np.bincount(self.labels, minlength=len(self.cache.class_names))
        return dict(zip(self.cache.class_names, found.tolist(), strict=True))


def make_suggestion(config: SuggestConfig) -> list[str]:
    """Write the list and the page; what to say of them.

    Raises CacheMissError (not embedded), InputError (nothing to suggest, more than there is, a strategy that does not
    suit, images that have changed since they were embedded).
    """
    _check(config)
    cache = find_features(config.dataset, config.backbone, config.key, config.data_root)
    rows = pool_rows(cache, config)
    spec, why = choose_strategy(config, cache.labels[rows])
    images = _same_images(config, cache)
    about = cache.identity
    out = local_folder(config.data_root) / "reports" / f"suggest-{about['dataset']}-{about['backbone']}"
    require_writable(out)
    with threadpool_limits(1):
        found = open_pool(cache, rows, config)
        queried, head = _ask(found, spec, config)
        suggested = _rows(found, queried, head)
        lines = _about(found, spec, why, _quality(found, head))
    todo = _how_to_go_on(config, found, suggested)
    uris = [data_uri(images.load(int(rows[place])), SIDE) for place in queried]
    html = page(lines, todo, found.counts, list(zip(suggested, uris, strict=True)))
    write_whole(out / "next.csv", lambda path: write_list(path, suggested))
    write_whole(out / "next.html", lambda path: path.write_text(html, "utf-8"))
    return [*lines, *_first(suggested), str(out / "next.csv"), str(out / "next.html"), *todo]


def _first(suggested: Sequence[Row]) -> list[str]:
    lines = [f"  {row.rank}. {row.image}{f'  ({row.said}?)' if row.said else ''}" for row in suggested[:SHOWN]]
    return lines + [f"  and {len(suggested) - SHOWN} more"] * (len(suggested) > SHOWN)


def _check(config: SuggestConfig) -> None:
    """Raises InputError for what no data could make right, before anything is read."""
    if config.batch_size < 1 or config.seed < 0:
        raise InputError(f"batch_size={config.batch_size} must be at least 1, seed={config.seed} at least 0")
    build_head(config.head, 2)
    if config.strategy:
        require_real(STRATEGIES.get(config.strategy.partition(":")[0]))
        check_grid([config.head], [config.strategy], workers=0)


def pool_rows(cache: FeatureCache, config: SuggestConfig) -> Int[np.ndarray, "pool"]:
    """Rows of the readable training images. Raises InputError where none, or too few, are left to label."""
    rows = np.flatnonzero(cache.readable & (cache.split == "train"))
    unlabeled = int((cache.labels[rows] < 0).sum())
    if not unlabeled:
        raise InputError(
            f"all {len(rows)} training images of {config.dataset!r} have a label, nothing is left to suggest: add "
            f"images without one and run `{cache.fix}`"
        )
    if config.batch_size > unlabeled:
        raise InputError(
            f"batch_size={config.batch_size} is more than the {unlabeled} images without a label: lower BATCH="
        )
    return rows


def choose_strategy(config: SuggestConfig, labels: Int[np.ndarray, "pool"]) -> tuple[str, str]:
    """The strategy to ask, and why it.

    labels : of the pool, negative where unknown
    Raises InputError where the one asked for needs labels that there are not.
    """
    known = labels[labels >= 0]
    classes = len(np.unique(known))
    said = f"{len(known)} label{'' if len(known) == 1 else 's'} of {classes} class{'' if classes == 1 else 'es'}"
    if config.strategy:
        kind = STRATEGIES.get(config.strategy.partition(":")[0])
        if classes < 2 and not kind.cold_start:  # type: ignore[attr-defined]
            raise InputError(
                f"strategy {config.strategy!r} needs images of at least two classes to begin with, there are {said}: "
                f"leave STRATEGY= out"
            )
        return _with_model(config.strategy), "as asked"
    if len(known) < FEW or classes < 2:
        return (
            "typiclust",
            f"which needs no labels, because {f'{said} say too little' if classes else 'there are none yet'}",
        )
    if unmet(frozenset({Needs.CLOSED_FORM}), HEADS.parse(config.head)[0]):
        return "margin", f"because the head {config.head!r} has no closed form for surrogate to ask"
    return _with_model("surrogate"), "the best or nearly so on most data sets once there are labels (README)"


def _with_model(strategy: str) -> str:
    return "surrogate:shipped" if strategy == "surrogate" else strategy


def _same_images(config: SuggestConfig, cache: FeatureCache) -> ImageSet:
    """The images themselves. Raises InputError where they are no longer those that were embedded."""
    images: ImageSet = DATASETS.build(config.dataset).open(local_folder(config.data_root) / "datasets")
    if images.digest != cache.identity["dataset_digest"]:
        raise InputError(
            f"the images of {config.dataset!r} or their labels have changed since they were embedded: run "
            f"`{_embed_line(config, cache)}`"
        )
    return images


def open_pool(cache: FeatureCache, rows: Int[np.ndarray, "pool"], config: SuggestConfig) -> Unlabeled:
    """Project the features of all training images, labeled or not, once. Raises InputError (PCA)."""
    test = np.flatnonzero(cache.readable & (cache.split == "test") & (cache.labels >= 0))
    basis = digest_json([TASK_FORMAT, "suggest", config.pca, rows.tolist(), test.tolist()])[:16]
    derived = DerivedStore(local_folder(config.data_root) / "derived" / cache.key, basis)

    def compute() -> Mapping[str, np.ndarray]:
        views = project(cache.features(), rows, config.pca)
        return {"pool": np.ascontiguousarray(views[:, rows]), "test": np.ascontiguousarray(views[0, test])}

    stored = derived.get_all("suggest", {}, compute)
    n_classes = max(1, len(cache.class_names))
    return Unlabeled(
        cache=cache,
        pool=Pool(views=stored["pool"], labels=cache.labels[rows], n_classes=n_classes, derived=derived),
        rows=rows,
        test=stored["test"],
        test_labels=cache.labels[test],
    )


def _ask(found: Unlabeled, spec: str, config: SuggestConfig) -> tuple[Int[np.ndarray, "batch"], Any]:
    """What the strategy queries, and the fitted head, None where there are not yet two classes to tell apart."""
    require_met(spec, [config.head], len(found.pool.views))
    head = build_head(config.head, found.pool.n_classes)
    queried, fitted = suggest(found.pool, head, STRATEGIES.build(spec), config.batch_size, config.seed)
    return queried, fitted if len(np.unique(found.labels)) > 1 else None


def _rows(found: Unlabeled, queried: Int[np.ndarray, "batch"], head: Any) -> list[Row]:
    ids = [str(image) for image in found.cache.ids[found.rows[queried]]]
    if head is None:
        return [Row(rank=rank, image=image, guess="", probability=None) for rank, image in enumerate(ids, 1)]
    proba = _proba(found, queried, head)
    names = [found.cache.class_names[place] for place in proba.argmax(axis=1)]
    said = zip(ids, names, proba.max(axis=1).tolist(), strict=True)
    return [Row(rank=rank, image=image, guess=name, probability=p) for rank, (image, name, p) in enumerate(said, 1)]


def _proba(found: Unlabeled, images: Int[np.ndarray, "n"], head: Any) -> Float[np.ndarray, "n classes"]:
    """The head's probabilities; where it has a closed form, as confident as it is right about labeled images."""
    features = found.pool.features
    if not hasattr(head, "calibrated_temperature"):
        return np.asarray(head.predict_proba(features[images]))
    temperature = head.calibrated_temperature(features[found.pool.labels >= 0], found.labels)
    return softmax(head.raw_logits(features[images].astype(np.float64)) / temperature)


def _quality(found: Unlabeled, head: Any) -> list[str]:
    """How good the head is, as far as labels can tell."""
    if head is None:
        return []
    said = []
    if hasattr(head, "inverse"):
        features = found.pool.features[found.pool.labels >= 0].astype(np.float64)
        accuracy = left_out_accuracy(head, head.inverse()[0], features, found.labels)
        said.append(f"{accuracy:.0%} of the {len(found.labels)} labeled images, each predicted from the others")
    if len(found.test):
        accuracy = float((head.predict(found.test) == found.test_labels).mean())
        said.append(f"{accuracy:.0%} of the {len(found.test)} test image{'s' * (len(found.test) > 1)}")
    return said


def _about(found: Unlabeled, spec: str, why: str, quality: Sequence[str]) -> list[str]:
    cache, labeled = found.cache, len(found.labels)
    unreadable = f", {len(cache.unreadable)} unreadable images left out" if cache.unreadable else ""
    lines = [
        f"{len(found.rows) - labeled:,} images without a label, {labeled:,} with one to learn from, "
        f"{len(found.test):,} for the test{unreadable}",
        f"asked {spec.partition(':')[0]}, {why}",
    ]
    return lines + [f"the head gets right {', and '.join(quality)}"] * bool(quality)


def _how_to_go_on(config: SuggestConfig, found: Unlabeled, suggested: Sequence[Row]) -> list[str]:
    """What to do with the suggested images, in sentences."""
    data, cache = DATASETS.build(config.dataset), found.cache
    again = f"Then run `{_embed_line(config, cache)}` and this command again"
    if not isinstance(data, Folder):
        return ["Write their classes into the data set's label column.", f"{again}."]
    parent = PurePosixPath(suggested[0].image).parent
    place = Path(data.path) / parent
    named = " or ".join(f"{place / name}/" for name in cache.class_names[:2] or ["CLASS"])
    lines = [
        f"Move each image into the folder of its class, such as {named}, made where it is missing.",
        f"{again}: only images that were moved go through the network.",
    ]
    if not parent.name and len(found.test):
        lines.append(
            f"A fifth of all class folders is for the test; move all to {place / 'train'}/ to learn from it too."
        )
    return lines


def _embed_line(config: SuggestConfig, cache: FeatureCache) -> str:
    """What embeds images that are new. It names weights pretrained on the images as they were, to keep them."""
    name = cache.identity["weights"] or f"{cache.identity['full_name']}.safetensors"
    kept = local_folder(config.data_root) / "weights" / name
    said = f" WEIGHTS={shlex.quote(str(kept))}"
    return re.sub(r" WEIGHTS=\S+|$", lambda _: said, cache.fix, count=1) if kept.exists() else cache.fix
