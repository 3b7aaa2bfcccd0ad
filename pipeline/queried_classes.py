"""Which classes the strategies of a report's group queried: counted from the stored runs and the feature cache."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import entr

from cache.errors import CacheMissError, InputError
from cache.features import FeatureCache
from cache.location import Location
from pipeline.report_tables import said_estimate
from pipeline.results import Estimate, Group, Result, Run
from pipeline.tables import Table
from pipeline.task import Task, backbone_spec, embed_command, load_data, prepare_task
from stages.al.pool import Pool
from stages.al.variants import parse_variant
from stages.embed.images import DATASETS

MOST_IN_A_ROW = 12
"""Classes that a table has columns for; its CSV has all."""
UNEQUAL = 2
"""Times as many images in the largest class as in the smallest, from which on classes stand in the order of size."""


@dataclass(frozen=True, kw_only=True)
class QueriedPool:
    """The pool that a group's runs queried. classes : that have images in it, if unequal the largest first"""

    cache: FeatureCache
    task: Task
    pool: Pool

    @cached_property
    def classes(self) -> Int[np.ndarray, "classes"]:
        counts = np.bincount(self.pool.labels)
        there = np.flatnonzero(counts)
        if counts.max() < UNEQUAL * counts[there].min():
            return there
        return there[np.argsort(-counts[there], kind="stable")]

    @cached_property
    def names(self) -> list[str]:
        return [str(self.task.class_names[label]) for label in self.classes]

    @cached_property
    def shares(self) -> Float[np.ndarray, "classes"]:
        """Of the pool's images."""
        return np.bincount(self.pool.labels)[self.classes] / len(self.pool)

    @cached_property
    def _places(self) -> "pd.Series[int]":
        """Pool index by image id; of an image that the pool repeats, the first."""
        places = pd.Series(np.arange(len(self.task.ids)), index=self.task.ids)
        return places[~places.index.duplicated()]

    def queried(self, run: Run) -> Int[np.ndarray, "queried"]:
        """Pool indices that a run labeled, in order. Raises InputError where they are not of this pool."""
        ids = np.concatenate(run.stored.rounds()["queried"].to_numpy())
        places = self._places.index.get_indexer(ids)
        if places.min() < 0 or len(places) != run.budget[-1]:
            raise InputError(f"the queries in {run.stored.path} are not images of its features: run it again")
        return self._places.to_numpy()[places]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Which classes a strategy's labels went to, over its seeds.

    share : of the labels so far, mean over seeds; final : at the end, of each seed
    balance : see `balance_of`
    """

    label: str
    budget: Int[np.ndarray, "rounds"]
    share: Float[np.ndarray, "rounds classes"]
    final: Float[np.ndarray, "seeds classes"]
    balance: Float[np.ndarray, "seeds rounds"]


def data_spec(group: Group, dataset: str = "") -> str | None:
    """What `DATASET=` took for the images of a group: as the user says now, or as a command that made the runs says.

    A path in it is one of this machine, seen from this folder: None where no candidate names the group's data set.
    """
    commands = sorted({run.record.get("command") or "" for run in group.runs})
    words = [word for command in commands for word in _words(command)]
    candidates = dict.fromkeys([dataset, group.settings["dataset"], *words])
    return next((spec for spec in candidates if _slug(spec) == group.settings["dataset"]), None)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:  # an older record, which did not quote
        words = command.split()
    return [part for word in words for part in word.removeprefix("--dataset=").split(",")]


def _slug(spec: str) -> str | None:
    """The folder name of a data set; None of what names none."""
    if spec.partition(":")[0] not in set(DATASETS):
        return None
    try:
        return str(DATASETS.build(spec).slug)
    except InputError:
        return None


def open_pool(group: Group, spec: str | None, data_root: Location) -> QueriedPool:
    """Features and labels that the runs of a group saw. Raises AlcoveError, saying which `make embed` makes them."""
    settings = group.settings
    kind = settings["dataset"].partition("-")[0]
    said = spec or (f"{kind}:PATH" if kind in set(DATASETS) - {settings["dataset"]} else settings["dataset"])
    backbone = backbone_spec(settings["backbone"], settings.get("parameters", {}))
    fix = embed_command(said, backbone, data_root, None)
    path = data_root / "features" / settings["dataset"] / settings["full_name"] / settings["features"]
    if not (path / "identity.json").exists():
        raise CacheMissError(f"the features {settings['features']} of these runs are gone: run `{fix}`")
    cache = FeatureCache(path, fix)
    variant = parse_variant(settings["pool"]) if settings.get("pool") else None
    task = prepare_task(cache, settings["pca"], settings["validation_size"], data_root, variant)
    if task.sizes[0] != settings["n_pool"]:
        raise InputError(
            f"the features {cache.key} now give a pool of {task.sizes[0]} images, not of {settings['n_pool']} as before"
        )
    return QueriedPool(cache=cache, task=task, pool=load_data(task.derived, task.n_classes, task.sizes)[0])


def runs_of(group: Group, result: Result) -> list[Run]:
    """The runs that count of a strategy, by seed."""
    runs = {run.seed: run for run in group.runs if run.strategy == result.strategy}
    return [runs[seed] for seed in result.seeds]


def counts_over(
    labels: Int[np.ndarray, "queried"], budget: Int[np.ndarray, "rounds"], classes: Int[np.ndarray, "classes"]
) -> Int[np.ndarray, "rounds classes"]:
    """Labels of each class after each round. labels : of the images in the order they were queried"""
    return np.cumsum(labels[:, None] == classes, axis=0)[budget - 1]


def balance_of(counts: Float[np.ndarray, "*rounds classes"]) -> Float[np.ndarray, "*rounds"]:
    """Entropy of the classes' shares, over its largest value: 1 where all are alike, 0 where there is but one.

    counts : of all classes of the pool, or in proportion to them; n labels reach log n / log classes at most
    """
    if counts.shape[-1] == 1:
        return np.ones(counts.shape[:-1])
    share = counts / counts.sum(axis=-1, keepdims=True)
    return entr(share).sum(axis=-1) / np.log(counts.shape[-1])


def spent_of(result: Result, runs: Sequence[Run], pool: QueriedPool) -> Spent:
    """Raises InputError where a run's queries are not images of the pool."""
    counts = [counts_over(pool.pool.labels[pool.queried(run)], run.budget, pool.classes) for run in runs]
    return Spent(
        label=result.label,
        budget=result.budget,
        share=np.mean([count / result.budget[:, None] for count in counts], axis=0),
        final=np.stack([count[-1] / result.budget[-1] for count in counts]),
        balance=np.stack([balance_of(count) for count in counts]),
    )


def balance_table(group: Group, spent: Sequence[Spent], pool: QueriedPool) -> Table:
    """Balance of the labels at the end of the budget, and how many classes have one."""
    rows, said = [], {}
    for one in spent:
        balance, seen = Estimate.of(one.balance[:, -1].tolist()), Estimate.of((one.final > 0).sum(axis=1).tolist())
        rows.append((one.label, balance.mean, balance.error, seen.mean, seen.error))
        said[one.label] = (said_estimate(balance), said_estimate(seen, 1))
    whole = float(balance_of(pool.shares))
    rows.append(("the pool", whole, None, len(pool.classes), None))
    said["the pool"] = (f"{whole:.3f}", str(len(pool.classes)))
    columns = ["balance_mean", "balance_error", "classes_seen_mean", "classes_seen_error"]
    return Table(
        stem=f"{group.stem}/balance",
        caption=f"Balance of the classes of the labeled images after {spent[0].budget[-1]} labels: the entropy of "
        "their shares over its largest value, 1 where all are alike, 0 where there is but one. Classes seen: those "
        "with at least one label. Mean ± standard error over seeds.",
        said=_frame(said, ["Balance", "Classes seen"]),
        numbers=pd.DataFrame(rows, columns=["strategy", *columns]),
    )


def classes_table(group: Group, spent: Sequence[Spent], pool: QueriedPool) -> Table:
    """The classes' shares of the labels at the end of the budget."""
    shown = slice(MOST_IN_A_ROW)
    rows = [
        (one.label, name, (estimate := Estimate.of(one.final[:, place].tolist())).mean, estimate.error, share)
        for one in spent
        for place, (name, share) in enumerate(zip(pool.names, pool.shares.tolist(), strict=True))
    ]
    said = {one.label: [f"{share:.1%}" for share in one.final.mean(axis=0)[shown]] for one in spent}
    said["the pool"] = [f"{share:.1%}" for share in pool.shares[shown]]
    some = f" The {MOST_IN_A_ROW} first of {len(pool.classes)} classes; the CSV has all." * (
        len(pool.classes) > MOST_IN_A_ROW
    )
    return Table(
        stem=f"{group.stem}/classes",
        caption=f"Share of each class among the first {spent[0].budget[-1]} labels, mean over seeds.{some}",
        said=_frame(said, pool.names[shown]),
        numbers=pd.DataFrame(rows, columns=["strategy", "class", "share_mean", "share_error", "pool_share"]),
    )


def _frame(said: Mapping[str, Sequence[str]], columns: Sequence[str]) -> pd.DataFrame:
    index = pd.Index(list(said), name="Strategy")
    return pd.DataFrame(list(said.values()), index=index, columns=list(columns))
