"""What the strategies of a report's group queried: classes over time, the first images, a map of the pool.

`queried_panels` is the one call of the page. What is not at hand (features, images) costs its own panels and one
sentence; nothing else fails.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cache.errors import AlcoveError, InputError
from cache.location import Location
from pipeline.curves import Picture, Style, named
from pipeline.queried_classes import (
    QueriedPool,
    Spent,
    balance_of,
    balance_table,
    classes_table,
    data_spec,
    open_pool,
    runs_of,
    spent_of,
)
from pipeline.results import Group, Result
from pipeline.tables import Table
from pipeline.thumbnails import Strip, open_images, strips_of

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


def queried_panels(
    group: Group, data_root: Location, styles: Mapping[str, Style], layout: str = "pca", dataset: str = ""
) -> Panels:
    """Figures, tables and thumbnails of what the named strategies of a group queried.

    styles : of the learning curves, so that a strategy looks the same in all pictures
    layout : of the map, pca or tsne, as for `lay_out`
    dataset : the user's own spec of the images, such as folder:PATH, where the runs do not tell it
    """
    spec, shown = data_spec(group, dataset), named(group)
    try:
        pool = open_pool(group, spec, data_root)
        spent = [spent_of(result, runs_of(group, result), pool) for result in shown]
    except AlcoveError as error:
        return Panels(notes=(f"Which images were queried is not shown: {error}.",))
    seed = common_seed(shown)
    runs = {result.label: run for result in shown for run in runs_of(group, result) if run.seed == seed}
    queried = {label: pool.queried(run) for label, run in runs.items()}
    without = [result.label for result in shown if result.label not in queried]
    notes = [f"No run of seed {seed}, so neither first images nor map: {', '.join(without)}."] if without else []
    figures, strips = _figures(group, pool, spent, styles), []
    try:
        figures.append(_map(group, pool, queried, layout, seed))
    except InputError as error:
        notes.append(f"The map of the pool is not shown: {error}.")
    try:
        strips = _strips(group, pool, queried, spec, data_root)
    except (AlcoveError, OSError) as error:
        notes.append(f"The first queried images are not shown: {error}.")
    tables = (balance_table(group, spent, pool), classes_table(group, spent, pool))
    return Panels(figures=tuple(figures), tables=tables, strips=tuple(strips), seed=seed, notes=tuple(notes))


def common_seed(results: Sequence[Result]) -> int:
    """The seed that most strategies have, of several the smallest."""
    seeds = sorted(seed for result in results for seed in result.seeds)
    return max(dict.fromkeys(seeds), key=seeds.count)


def _figures(group: Group, pool: QueriedPool, spent: Sequence[Spent], styles: Mapping[str, Style]) -> list[Picture]:
    """Classes over time, and balance over time."""
    from pipeline.queried_figures import draw_balance, draw_classes, small_png

    classes = draw_classes(group, spent, pool.names, pool.shares)
    return [
        Picture(
            stem=f"{group.stem}/classes",
            alt=f"{group.title}: share of the labels that went to each class, as a multiple of its share of the pool.",
            caption="Share of the labels so far that went to each class, as a multiple of its share of the pool.",
            figure=classes,
            small=small_png(classes),
        ),
        Picture(
            stem=f"{group.stem}/balance",
            alt=f"{group.title}: balance of the classes of the labeled images against labels spent.",
            caption="Balance of the classes of the labeled images; bands are one standard error over seeds.",
            figure=draw_balance(group, spent, float(balance_of(pool.shares)), styles),
        ),
    ]


def mapped(results: Sequence[Result]) -> list[str]:
    """Labels of the strategies that the map has panels for: random, the best surrogate, the best others.

    results : the best first
    """
    surrogates = [result.label for result in results if result.is_surrogate]
    kept = [result.label for result in results if result.name == "random"] + surrogates[:1]
    rest = [result.label for result in results if result.label not in {*kept, *surrogates}]
    chosen = {*kept, *rest[: MOST_MAPPED - len(kept)]}
    return [result.label for result in results if result.label in chosen]


def _map(
    group: Group, pool: QueriedPool, queried: Mapping[str, Int[np.ndarray, "queried"]], layout: str, seed: int
) -> Picture:
    """Raises InputError where there are too few images for t-SNE."""
    from pipeline.queried_figures import map_pool, small_png
    from pipeline.query_figures import draw_queries

    chosen = {label: queried[label] for label in mapped([one for one in named(group) if one.label in queried])}
    found = map_pool(group, pool.pool, pool.task.class_names, chosen, layout, seed)
    figure = draw_queries(found, columns=2, panel=2.7)
    return Picture(
        stem=f"{group.stem}/map",
        alt=f"{group.title}: where the images that {', '.join(chosen)} queried lie in the pool.",
        caption=f"Where the queried images lie in the pool, runs of seed {seed}.",
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
