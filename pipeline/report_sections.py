"""What a report's page says of one group, put together."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import ReportConfig
from pipeline.curves import Picture, Style, curves_figure
from pipeline.page import Section, hover_of
from pipeline.queried import queried_panels
from pipeline.rankings import critical_difference, seed_blocks
from pipeline.report_across import rank_caption
from pipeline.report_figures import rank_figure, seconds_figure
from pipeline.report_tables import pairs_table, results_table
from pipeline.results import Group
from pipeline.statistics import compare
from pipeline.surrogate_notes import surrogate_notes


def section_of(
    group: Group, styles: Mapping[str, Style], manifests: Mapping[str, Mapping[str, Any]], config: ReportConfig
) -> Section:
    """styles : of the group's curves; manifests : of surrogates, by digest"""
    comparison = compare(group)
    pictures = [_seconds(group, styles)]
    if comparison.claims is not None:
        pictures.insert(0, _ranks(group))
    return Section(
        group=group,
        comparison=comparison,
        curves=_curves(group, styles),
        results=results_table(group, comparison),
        pairs=pairs_table(group, comparison),
        pictures=pictures,
        notes=surrogate_notes(group, manifests),
        queried=queried_panels(group, config.data_root, styles, config.layout, config.dataset),
    )


def _curves(group: Group, styles: Mapping[str, Style]) -> Picture:
    figure = curves_figure(group, styles)
    return Picture(
        stem=f"{group.stem}/curves",
        alt=f"Learning curves: test accuracy against labels spent. {group.headline}",
        caption="Test accuracy against labels spent; bands are one standard error over seeds.",
        figure=figure,
        hover=hover_of(group, styles, figure),
    )


def _ranks(group: Group) -> Picture:
    found = critical_difference(*seed_blocks(group))
    caption = rank_caption(found.p, found.n_blocks, "seeds")
    figure = rank_figure(found, f"Mean ranks: {group.title}")
    return Picture(stem=f"{group.stem}/ranks", alt=caption, figure=figure)


def _seconds(group: Group, styles: Mapping[str, Style]) -> Picture:
    caption = "Seconds of a run, mean over seeds, on the machine that made it."
    figure = seconds_figure(group, styles)
    return Picture(stem=f"{group.stem}/seconds", alt=f"{caption} {group.title}", caption=caption, figure=figure)
