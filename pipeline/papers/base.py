"""What recipes of papers share: exhibits, numbers beside the published ones, and the bench that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, TypeVar, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cache.errors import CacheIncompleteError, CacheMissError, InputError
from cache.features import FeatureCache
from cache.runs import RunStore
from pipeline.config import ReproduceConfig
from pipeline.grid import parse_seeds, plan, run_grid
from pipeline.reading import Run, read_run
from pipeline.results import Group, group_runs
from pipeline.tables import Table
from pipeline.task import Task, find_features, prepare_task
from stages.al.protocol import Protocol, ProtocolConfig
from stages.al.variants import parse_variant
from stages.embed.config import EmbedConfig
from stages.embed.images import DATASETS

T = TypeVar("T")
Row = tuple[str, str]
"""The part of a table that a row belongs to, empty where a table has no parts, and the row's name."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A mean and its spread, which is what the paper gives after ±; None of a single number."""

    mean: float
    spread: float | None = None

    @classmethod
    def parse(cls, text: str) -> Value:
        """`0.7464 ± 0.0034` or `0.7464`, as a paper prints it."""
        mean, _, spread = text.partition("±")
        return cls(mean=float(mean), spread=float(spread) if spread else None)

    @classmethod
    def deviation(cls, values: Sequence[float]) -> Value:
        """Mean ± standard deviation of a sample."""
        return cls(mean=float(np.mean(values)), spread=float(np.std(values, ddof=1)) if len(values) > 1 else None)

    @classmethod
    def error(cls, values: Sequence[float]) -> Value:
        """Mean ± standard error."""
        made = cls.deviation(values)
        return cls(mean=made.mean, spread=None if made.spread is None else made.spread / len(values) ** 0.5)

    def said(self, digits: str) -> str:
        """digits : format of both numbers, such as `.4f`"""
        spread = "" if self.spread is None else f" ± {self.spread:{digits}}"
        return f"{self.mean:{digits}}{spread}".replace("-", "−")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A table in the paper's layout, each of our numbers beside the published one.

    stem : of its files' names; corner : what the paper has above its first column
    rows, columns : in the paper's order; names : of columns and parts that we call otherwise, having another in place
    ours : by row and the paper's column; where there is none the cell shows the published number alone
    published : as the paper prints them
    digits : format of our numbers; row_digits : of rows, by their names, that need another
    best : which of ours is marked, along a column of a part or along a row
    """

    stem: str
    caption: str
    corner: str = ""
    rows: Sequence[Row]
    columns: Sequence[str]
    ours: Mapping[tuple[Row, str], Value]
    published: Mapping[tuple[Row, str], str]
    names: Mapping[str, str] = field(default_factory=dict)
    digits: str = ".4f"
    row_digits: Mapping[str, str] = field(default_factory=dict)
    best: Literal["", "highest", "lowest"] = ""
    along: Literal["column", "row"] = "column"

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(part for part, _ in self.rows))

    def name(self, text: str) -> str:
        """Of a column or part."""
        return self.names.get(text, text)

    def said(self, row: Row, column: str) -> str:
        """Our number, or a dash."""
        value = self.ours.get((row, column))
        return "–" if value is None else value.said(self.row_digits.get(row[1], self.digits))

    def is_best(self, row: Row, column: str) -> bool:
        """Whether ours is the best of its line; none is where all are equal."""
        rivals = [
            value.mean
            for ((part, name), other), value in self.ours.items()
            if (name == row[1] if self.along == "row" else other == column) and part == row[0]
        ]
        if not self.best or (row, column) not in self.ours or len(set(rivals)) < 2:
            return False
        return self.ours[row, column].mean == (max(rivals) if self.best == "highest" else min(rivals))

    def table(self) -> Table:
        """For the files: cells `ours (published)`; the numbers a row per cell."""
        names, lines = [], []
        for part in self.parts:
            if part:
                names.append(self.name(part))
                lines.append([""] * len(self.columns))
            for row in (row for row in self.rows if row[0] == part):
                names.append(row[1])
                lines.append([self._cell(row, column) for column in self.columns])
        index = pd.Index(names, name=self.corner)
        said = pd.DataFrame(lines, index=index, columns=list(map(self.name, self.columns)))
        caption = f"{self.caption} Ours (published)." if self.published else self.caption
        return Table(stem=self.stem, caption=caption, said=said, numbers=self._numbers())

    def _cell(self, row: Row, column: str) -> str:
        published = self.published.get((row, column))
        return self.said(row, column) + (f" ({published})" if published else "")

    def _numbers(self) -> pd.DataFrame:
        rows = []
        for row in self.rows:
            for column in self.columns:
                value, text = self.ours.get((row, column)), self.published.get((row, column))
                paper = Value.parse(text) if text else None
                line: dict[str, str | float | None] = {
                    "part": self.name(row[0]),
                    "row": row[1],
                    "column": self.name(column),
                }
                for name, number in (("ours", value), ("published", paper)):
                    line |= {name: number.mean, f"{name}_spread": number.spread} if number else {}
                rows.append(line)
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or figure of a paper, made again.

    number : as the paper says it, `Table 5.6`
    tables : the first is the paper's own; figures : by the stem of their files, such as `figure-5.5a`
    captions : of figures, by stem; quotes : what the paper's prose states of a figure whose numbers it does not print
    remarks : what differs from the paper
    """

    number: str
    title: str
    tables: Sequence[Beside | Table] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    quotes: Sequence[str] = ()
    remarks: Sequence[str] = ()


Maker = Callable[["Bench"], Exhibit]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A paper's exhibits.

    paper : whom to cite; exhibits : makers by number, `Table 5.6`, in the paper's order
    data, backbones : of each scale, where the user names none; `small` takes any
    settings : words and values for the page, of a bench
    left_out : what is not made, and why
    """

    paper: str
    exhibits: Mapping[str, Maker]
    datasets: Mapping[str, tuple[str, ...]]
    backbones: Mapping[str, tuple[str, ...]]
    settings: Callable[[Bench], Mapping[str, str]]
    left_out: Mapping[str, str] = field(default_factory=dict)


class Bench:
    """Data, features and runs for the makers of exhibits. Whatever stands already is not made again.

    datasets, backbones : as asked for, or the scale's own
    """

    def __init__(self, config: ReproduceConfig, recipe: Recipe) -> None:
        self.config = config
        self.datasets = config.dataset or recipe.datasets[config.scale]
        self.backbones = config.backbone or recipe.backbones[config.scale]
        self.new_runs = self.reused_runs = 0
        self.embedding_seconds: dict[str, float] = {}
        self._memo: dict[Hashable, object] = {}
        self._tasks: dict[tuple[str, str, int, str], Task] = {}

    @property
    def scale(self) -> str:
        return self.config.scale

    def check(self) -> None:
        """Raises InputError for a data set or backbone that there is not, before anything is made of the others.

        Nothing is downloaded for it: a data set with a name is found to be out of reach when its turn comes.
        """
        for dataset, backbone in product(self.datasets, self.backbones):
            try:
                find_features(dataset, backbone, "", self.config.data_root)
            except (CacheMissError, CacheIncompleteError):
                if hasattr(data := DATASETS.build(dataset), "path"):
                    data.open()

    def seeds(self, default: str) -> list[int]:
        """Those asked for, or the scale's: `3` or `0-2`."""
        return parse_seeds(self.config.seeds or default)

    def budget(self, default: str) -> str:
        """The one asked for, or the scale's."""
        return self.config.budget or default

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What several exhibits share, made once. key : always of the same `make`"""
        if key not in self._memo:
            self._memo[key] = make()
        return cast(T, self._memo[key])

    def features(self, dataset: str, backbone: str) -> FeatureCache:
        """The cached features, which are made where they are missing: pretrained and embedded."""
        try:
            return find_features(dataset, backbone, "", self.config.data_root)
        except (CacheMissError, CacheIncompleteError):
            from stages.embed.extract import embed

            started = time.perf_counter()
            embed(
                EmbedConfig(
                    dataset=dataset, backbone=backbone, device=self.config.device, data_root=self.config.data_root
                )
            )
            seconds = time.perf_counter() - started
            self.embedding_seconds[f"{dataset} {backbone}"] = seconds
            print(f"embedded {dataset} with {backbone} in {seconds:.0f} s", flush=True)
            return find_features(dataset, backbone, "", self.config.data_root)

    def task(self, dataset: str, backbone: str, pca: int, pool: str = "whole") -> Task:
        """Features made ready for runs. pca : dimensions kept, all where there are no more, or 0 for all"""
        key = (dataset, backbone, pca, pool)
        if key not in self._tasks:
            cache = self.features(dataset, backbone)
            kept = 0 if pca >= cache.block(0).shape[-1] else pca
            self._tasks[key] = prepare_task(cache, kept, None, self.config.data_root, parse_variant(pool))
        return self._tasks[key]

    def group(
        self, task: Task, head: str, strategies: Sequence[str], seeds: Sequence[int], protocol: ProtocolConfig
    ) -> Group:
        """The runs of one head and protocol, from the store or done now, compared. task : made by `task`"""
        key = id(task), head, tuple(strategies), tuple(seeds), protocol
        return self.once(key, lambda: group_runs(self._runs(task, head, strategies, seeds, protocol))[0])

    def _runs(
        self, task: Task, head: str, strategies: Sequence[str], seeds: Sequence[int], protocol: ProtocolConfig
    ) -> list[Run]:
        planned = plan(task, [head], strategies, seeds, self.protocol(task, protocol), self.config.data_root)
        store = RunStore(self.config.data_root / "reproduced")  # reports are of the user's own runs
        stored, new = run_grid(task, planned, store, self.config.workers, self.config.engine)
        self.new_runs += new
        self.reused_runs += len(stored) - new
        return [read_run(run) for run in stored]

    def protocol(self, task: Task, protocol: ProtocolConfig) -> Protocol:
        """Of this task's pool, with something to query. Raises InputError."""
        resolved = protocol.resolve(task.sizes[0])
        resolved.require_query(task.sizes[0])
        return resolved


def chosen(recipe: Recipe, only: Sequence[str]) -> list[str]:
    """The exhibits that `5.6`, `table 5.6` or `figure 5.6` name, in the paper's order; all where none is named.

    Raises InputError for one that there is not.
    """
    if not only:
        return list(recipe.exhibits)
    wanted: set[str] = set()
    for text in only:
        found = [name for name in recipe.exhibits if text.lower() in (name.lower(), name.split()[-1].lower())]
        if not found:
            raise InputError(f"there is no exhibit {text!r} in this recipe: there are {', '.join(recipe.exhibits)}")
        wanted.update(found)
    return [name for name in recipe.exhibits if name in wanted]
