"""From a feature cache to arrays that runs can share: split, project, store, map."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.catalog import find_cache
from cache.derived import DerivedStore
from cache.errors import InputError
from cache.features import FeatureCache
from cache.files import digest_json
from cache.location import Location, local_folder
from stages.al.heads import build_head
from stages.al.loop import Evaluation
from stages.al.pool import Pool
from stages.al.projection import project
from stages.al.variants import Variant, evaluated_rows, variant_rows
from stages.embed.backbones import BACKBONES
from stages.embed.images import DATASETS
from stages.embed.views import specs_of

LARGEST_VALIDATION = 1000
TASK_FORMAT = 1
"""Part of every prepared array's name: raise it when the preparation changes."""
TASK = "task"
"""The computation of a task's arrays: pool, validation and test (views, images, dim), and the labels of all three."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Features made ready for runs: projected, split, written where every worker maps them.

    basis : names this preparation; n_unlabeled : training images without a label, which a simulation cannot use
    """

    derived: DerivedStore
    n_classes: int
    about: Mapping[str, Any]
    class_names: Sequence[str]
    ids: np.ndarray
    sizes: tuple[int, int, int]
    n_unlabeled: int

    @property
    def n_views(self) -> int:
        """Views of every image."""
        return len(self.derived.get_all(TASK, {}, _never)["pool"])


def find_features(dataset: str, backbone: str, key: str, data_root: Location) -> FeatureCache:
    """The feature cache that a data set, backbone and key name. Its errors say which `make embed` line to run."""
    data = DATASETS.build(dataset)
    component, parameters = BACKBONES.parse(backbone)
    name = component.name  # type: ignore[attr-defined]
    fix = partial(embed_command, dataset, backbone, data_root)
    return find_cache(data_root / "features", data.slug, name, parameters, key, fix)


def embed_command(dataset: str, backbone: str, data_root: Location, identity: Mapping[str, Any] | None) -> str:
    """The `make embed` line of some features; of identity None, of those that data set and backbone alone describe."""
    words = {
        "DATASET": (dataset, "digits"),
        "BACKBONE": (backbone, "simclr"),
        "DATA_ROOT": (str(data_root), "data"),
    }
    if identity:
        default_views = BACKBONES.parse(backbone)[0].views  # type: ignore[attr-defined]
        words["BACKBONE"] = (_spec_of(backbone, identity.get("parameters", {})), "simclr")
        words["VIEWS"] = (",".join(specs_of(identity.get("views", []))), ",".join(default_views))
        weights = identity.get("weights", "")
        words["WEIGHTS"] = (weights if weights in ("", "random") else f"FOLDER/{weights}", "")
        chosen = {"--view-seed": identity.get("view_seed", 0), "--precision": identity.get("precision", "float32")}
        usual = {"--view-seed": 0, "--precision": "float32"}
        more = [f"{option} {value}" for option, value in chosen.items() if value != usual[option]]
        words["ARGS"] = (" ".join(more), "")
    said = [f"{word}={shlex.quote(value)}" for word, (value, default) in words.items() if value != default]
    return " ".join(["make embed", *said])


def backbone_spec(name: str, parameters: Mapping[str, Any]) -> str:
    """The spec of a backbone from what caches and runs record of it."""
    argument = getattr(BACKBONES.get(name), "argument", None)
    return _spec_of(f"{name}:{parameters[argument]}" if argument else name, parameters)


def _spec_of(backbone: str, parameters: Mapping[str, Any]) -> str:
    """What makes a backbone of these parameters, given a spec that says some of them."""
    said = asdict(BACKBONES.build(backbone))
    more = {name: value for name, value in parameters.items() if name in said and value != said[name]}
    return backbone + "".join(f":{name}={value}" for name, value in more.items())


def prepare_task(
    cache: FeatureCache, pca: int, validation_size: int | None, data_root: Location, variant: Variant | None = None
) -> Task:
    """Split the cache's labeled images, project their features once, keep the result for all runs.

    The pool is the training split. Validation images are the cache's own, or else some of the training split, the
    same for every seed. A variant of the pool is made after they have been taken out; the projection is fitted on it.
    `imbalanced` thins validation and test images too.

    variant : None takes the whole pool
    Raises InputError where labels, test images or pool images are missing, or the variant is impossible.
    """
    labeled = cache.readable & (cache.labels >= 0)
    train, test = (np.flatnonzero(labeled & (cache.split == name)) for name in ("train", "test"))
    validation = np.flatnonzero(labeled & (cache.split == "val"))
    where = f"the data set {cache.identity['dataset']!r}"
    if not len(train):
        raise InputError(f"{where} has no labeled training images, and a simulation needs labels to reveal: {_FOLDERS}")
    if not len(test):
        raise InputError(f"{where} has no labeled test images to measure accuracy on: {_FOLDERS}")
    if len(validation):
        validation, _ = _draw(validation, len(validation) if validation_size is None else validation_size)
    else:
        size = min(len(train) // 5, LARGEST_VALIDATION) if validation_size is None else validation_size
        if size >= len(train):
            raise InputError(
                f"validation_size={size} of {len(train)} training images leaves no pool: lower VALIDATION="
            )
        validation, train = _draw(train, size)
    about_pool = {}
    if variant:
        about_pool = {"pool": variant.text(len(train))}
        labels, whole = cache.labels.astype(np.int64), train
        train = whole[variant_rows(variant, labels[whole])]
        validation, test = (
            rows[evaluated_rows(variant, labels[rows], labels[whole], labels[train])] for rows in (validation, test)
        )
    parts = {"pool": train, "validation": validation, "test": test}
    basis = digest_json([TASK_FORMAT, pca, *(part.tolist() for part in parts.values())])[:16]
    derived = DerivedStore(local_folder(data_root) / "derived" / cache.key, basis)

    def compute() -> dict[str, np.ndarray]:
        views = project(cache.features(), train, pca)
        made = {name: np.ascontiguousarray(views[:, rows]) for name, rows in parts.items()}
        return {**made, "labels": cache.labels[np.concatenate(list(parts.values()))]}

    derived.get_all(TASK, {}, compute)
    identity = cache.identity
    return Task(
        derived=derived,
        n_classes=len(cache.class_names),
        about={
            "dataset": identity["dataset"],
            "backbone": identity["backbone"],
            "parameters": identity["parameters"],
            "full_name": identity["full_name"],
            "features": cache.key,
            "pca": pca,
            "validation_size": len(validation),
            **about_pool,
        },
        class_names=cache.class_names,
        ids=cache.ids[train],
        sizes=(len(train), len(validation), len(test)),
        n_unlabeled=int((cache.readable & (cache.labels < 0) & (cache.split == "train")).sum()),
    )


def _draw(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` of the rows, the same ones for every run, and the others; both in order. Raises InputError."""
    if not 0 < size <= len(rows):
        raise InputError(
            f"validation_size={size} of {len(rows)} images is impossible: 1 to {len(rows)} with VALIDATION="
        )
    shuffled = np.random.default_rng(0).permutation(rows)
    return np.sort(shuffled[:size]), np.sort(shuffled[size:])


_FOLDERS = "put images in class folders, or in train/CLASS and test/CLASS"


@lru_cache(maxsize=2)
def load_data(
    derived: DerivedStore, n_classes: int, sizes: tuple[int, int, int]
) -> tuple[Pool, Evaluation, Evaluation]:
    """Memory-mapped arrays of a task; once per worker process."""

    stored = derived.get_all(TASK, {}, _never)
    pool_labels, validation_labels, test_labels = np.split(stored["labels"], np.cumsum(sizes)[:2])
    pool = Pool(views=stored["pool"], labels=pool_labels, n_classes=n_classes, derived=derived)
    return pool, Evaluation(stored["validation"][0], validation_labels), Evaluation(stored["test"][0], test_labels)


def _never() -> dict[str, np.ndarray]:
    raise AssertionError("prepare_task writes every array before a run starts")


def model_folder(data_root: Location, task: Task, head: str, recipe: str) -> Path:
    """Where the surrogate of a task, head and recipe lives, on this machine."""
    made = build_head(head, task.n_classes)
    digest = digest_json([dict(task.about), made.get_params()])[:10]
    about = task.about
    return (
        local_folder(data_root)
        / "surrogates"
        / about["dataset"]
        / about["full_name"]
        / f"{made.name}-{digest}"
        / recipe
    )
