"""What the strategies of a report's group queried: classes over time, the first images, a map of the pool.

`queried_panels` is the one call of the page. What is not at hand (features, images) costs its own panels and one
sentence; nothing else fails.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import entr

from cache.errors import AlcoveError, CacheMissError, InputError
from cache.features import FeatureCache
from cache.location import Location
from pipeline.curves import Picture, Style, named
from pipeline.results import Estimate, Group, Result, Run
from pipeline.tables import Table
from pipeline.task import Task, backbone_spec, embed_command, load_data, prepare_task
from pipeline.thumbnails import Strip, open_images, strips_of
from stages.al.pool import Pool
from stages.al.variants import parse_variant
from stages.embed.images import DATASETS

MOST_IN_A_ROW = 12
"""Classes that a table has columns for; its CSV has all."""
UNEQUAL = 2
"""Times as many images in the largest class as in the smallest, from which on classes stand in the order of size."""
MOST_MAPPED = 6
FIRST_IMAGES = 10


@dataclass(frozen=True, kw_only=True)
class Panels:
    """What the page shows of a group's queries.

    strips : the first images that each strategy queried after the initial set, of seed `seed`
    notes : a sentence for everything that could not be shown
    """

    figures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    seed: int | None = None
    notes: tuple[str, ...] = ()


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


def queried_panels(
    group: Group, data_root: Location, styles: Mapping[str, Style], layout: str = "pca", dataset: str = ""
) -> Panels:
    """Figures, tables and thumbnails of what the named strategies of a group queried.

    styles : of the learning curves, so that a strategy looks the same in all pictures
    layout : of the map, pca or tsne, as for `lay_out`
    dataset : the user's own spec of the images, such as folder:PATH, where the runs do not tell it
    """
    from pipeline.queried_figures import draw_balance, draw_classes, small_png

    spec = data_spec(group, dataset)
    try:
        pool = open_pool(group, spec, data_root)
        spent = [spent_of(result, runs_of(group, result), pool) for result in named(group)]
    except AlcoveError as error:
        return Panels(notes=(f"Which images were queried is not shown: {error}.",))
    seed = common_seed(named(group))
    firsts = {
        result.label: pool.queried(run) for result in named(group) for run in runs_of(group, result) if run.seed == seed
    }
    classes = draw_classes(group, spent, pool.names, pool.shares)
    figures = [
        Picture(
            stem=f"{group.stem}/classes",
            alt=f"{group.title}: share of the labels that went to each class, as a multiple of its share of the pool.",
            figure=classes,
            small=small_png(classes),
        ),
        Picture(
            stem=f"{group.stem}/balance",
            alt=f"{group.title}: balance of the classes of the labeled images against labels spent.",
            figure=draw_balance(group, spent, float(balance_of(pool.shares)), styles),
        ),
    ]
    notes = []
    try:
        figures.append(_map(group, pool, firsts, layout, seed))
    except InputError as error:
        notes.append(f"The map of the pool is not shown: {error}.")
    strips: list[Strip] = []
    try:
        strips = _strips(group, pool, firsts, spec, data_root)
    except (AlcoveError, OSError) as error:
        notes.append(f"The first queried images are not shown: {error}.")
    tables = (balance_table(group, spent, pool), classes_table(group, spent, pool))
    return Panels(figures=tuple(figures), tables=tables, strips=tuple(strips), seed=seed, notes=tuple(notes))


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


def common_seed(results: Sequence[Result]) -> int:
    """The seed that most strategies have, of several the smallest."""
    seeds = sorted(seed for result in results for seed in result.seeds)
    return max(dict.fromkeys(seeds), key=seeds.count)


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
        said[one.label] = (_said(balance, 3), _said(seen, 1))
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


def _said(estimate: Estimate, digits: int) -> str:
    error = "" if estimate.error is None else f" ± {estimate.error:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{error}"


def mapped(group: Group) -> list[str]:
    """Labels of the strategies that the map has panels for: random, the best surrogate, the best others."""
    shown = named(group)
    surrogates = [result.label for result in shown if result.is_surrogate]
    kept = [result.label for result in shown if result.name == "random"] + surrogates[:1]
    rest = [result.label for result in shown if result.label not in {*kept, *surrogates}]
    chosen = {*kept, *rest[: MOST_MAPPED - len(kept)]}
    return [result.label for result in shown if result.label in chosen]


def _map(
    group: Group, pool: QueriedPool, queried: Mapping[str, Int[np.ndarray, "queried"]], layout: str, seed: int
) -> Picture:
    """Raises InputError where there are too few images for t-SNE."""
    from pipeline.queried_figures import map_pool, small_png
    from pipeline.query_figures import draw_queries

    chosen = {label: queried[label] for label in mapped(group) if label in queried}
    found = map_pool(group, pool.pool, pool.task.class_names, chosen, layout, seed)
    figure = draw_queries(found, columns=2, panel=2.7)
    return Picture(
        stem=f"{group.stem}/map",
        alt=f"{group.title}: where the images that {', '.join(chosen)} queried lie in the pool.",
        figure=figure,
        small=small_png(figure),
    )


def _strips(
    group: Group,
    pool: QueriedPool,
    queried: Mapping[str, Int[np.ndarray, "queried"]],
    spec: str | None,
    data_root: Location,
) -> list[Strip]:
    """Raises AlcoveError where the images are not at hand."""
    slug = re.sub(r"-[0-9a-f]{8}$", "", group.settings["dataset"])
    if spec is None:
        raise InputError(
            f"nothing says where the images of {slug!r} lie: make the report in the folder where the runs were made, "
            f"or name them with DATASET=folder:PATH or DATASET=parquet:PATH"
        )
    images = open_images(spec, data_root)
    first = group.settings["protocol"]["initial_size"]
    wanted = {label: pool.task.ids[places[first : first + FIRST_IMAGES]] for label, places in queried.items()}
    return strips_of(wanted, images, pool.cache)
