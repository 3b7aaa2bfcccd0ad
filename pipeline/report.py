"""What the stored runs show: learning curves, a table, and one self-contained HTML page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import CacheMissError, InputError
from cache.files import canonical_json, write_whole
from cache.location import Location, local_folder
from pipeline.config import ReportConfig

if TYPE_CHECKING:
    from pipeline.reading import Run


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written. files : the page last; headlines, verdicts : one line per group, in the page's order"""

    files: tuple[Path, ...]
    headlines: tuple[str, ...]
    verdicts: tuple[str, ...]

    @property
    def page(self) -> Path:
        return self.files[-1]

    @property
    def table(self) -> Path:
        return self.page.with_suffix(".csv")

    @property
    def summary(self) -> Path:
        return self.page.with_suffix(".md")


def make_report(config: ReportConfig) -> Report:
    """Report on the runs under `data_root`. What is damaged or foreign is named on stderr and on the page.

    Raises CacheMissError (no runs), InputError (no run matches the filter, or the folder cannot be written).
    """
    from pipeline.curves import Picture, all_rendered, all_styles
    from pipeline.page import Origin, page
    from pipeline.report_across import across
    from pipeline.report_sections import section_of
    from pipeline.report_tables import summary_table
    from pipeline.results import group_runs
    from pipeline.surrogate_notes import read_manifests
    from pipeline.tables import Table

    runs, problems = _all_runs(config.data_root)
    manifests, damaged = read_manifests(local_folder(config.data_root))
    _name(damaged)
    groups = group_runs(_without_replaced_surrogates(_chosen(runs, config), set(manifests)))
    styles = all_styles(groups)
    sections = [section_of(group, styles[group.stem], manifests, config) for group in groups]
    over_all = across(groups, {label: style for by_label in styles.values() for label, style in by_label.items()})
    summary = summary_table(groups, {section.group.stem: section.comparison for section in sections})
    parts = [part for section in sections for part in section.parts] + over_all
    drawn = {part.stem: all_rendered(part.figure) for part in parts if isinstance(part, Picture)}
    origin = Origin(records=[run.record for group in groups for run in group.runs], problems=problems + damaged)
    contents = {f"{stem}.{kind}": files[kind] for stem, files in drawn.items() for kind in ("png", "pdf")}
    for table in (*(part for part in parts if isinstance(part, Table)), summary):
        written = {"csv": table.csv(), "tex": table.latex(), "md": table.markdown()}
        contents |= {f"{table.stem}.{kind}": text.encode() for kind, text in written.items()}
    contents["report.html"] = page(sections, over_all, summary, origin, drawn).encode()
    out = config.out or local_folder(config.data_root) / "reports"
    _write(out, contents)
    return Report(
        files=tuple(out / name for name in contents),
        headlines=tuple(group.headline for group in groups),
        verdicts=tuple(section.comparison.sentence for section in sections),
    )


def readable_runs(data_root: Location) -> list[Run]:
    """All runs that can be read, at least one; what else lies there is named on stderr. Raises CacheMissError."""
    return _all_runs(data_root)[0]


def _all_runs(data_root: Location) -> tuple[list[Run], list[str]]:
    """And one sentence for each file that is no readable run."""
    from cache.runs import RunStore
    from pipeline.reading import read_runs

    root = data_root / "runs"
    runs, problems = read_runs(RunStore(root))
    _name(problems)
    if not runs:
        raise CacheMissError(f"there are no runs in {root} yet: run `make al` first")
    return runs, problems


def _name(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"alcove: {problem}", file=sys.stderr)


def _chosen(runs: Sequence[Run], config: ReportConfig) -> list[Run]:
    """The runs that the filter lets through, at least one."""
    dataset = slug(config.dataset)
    chosen = [
        run for run in runs if dataset in ("", run.settings["dataset"]) and is_backbone(config.backbone, run.settings)
    ]
    if not chosen:
        name = "{dataset} with {backbone} ({full_name})".format
        there = sorted({name(**{key: run.settings[key] for key in _NAMES}) for run in runs})
        wanted = {"dataset": config.dataset, "backbone": config.backbone}
        filters = " and ".join(f"{key}={value!r}" for key, value in wanted.items() if value)
        raise InputError(f"no run in {config.data_root / 'runs'} has {filters}: there are runs of {', '.join(there)}")
    return chosen


_NAMES = ("dataset", "backbone", "full_name")


def is_backbone(spec: str, settings: Mapping[str, Any]) -> bool:
    """Whether a run's backbone is that of a full name or of a spec such as `simclr:width=32`; an empty one fits all."""
    if spec in ("", settings["backbone"], settings["full_name"]):
        return True
    if ":" not in spec:
        return False
    from stages.embed.backbones import BACKBONES

    _, parameters = BACKBONES.parse(spec)
    return spec.partition(":")[0] == settings["backbone"] and parameters.items() <= settings["parameters"].items()


def _without_replaced_surrogates(runs: list[Run], standing: set[str]) -> list[Run]:
    """Runs less those of a surrogate that was trained again since, where runs of the new one are there."""
    digests = {id(run): run.strategy.get("model_digest") for run in runs}
    current = {canonical_json(run.settings) for run in runs if digests[id(run)] in standing}
    kept = [
        run
        for run in runs
        if digests[id(run)] is None or digests[id(run)] in standing or canonical_json(run.settings) not in current
    ]
    if len(kept) < len(runs):
        print(f"left out {len(runs) - len(kept)} runs of surrogates that were trained again since")
    return kept


def slug(dataset: str) -> str:
    """The folder name of a data set given as `folder:PATH` and the like. Raises InputError (unknown kind)."""
    if ":" not in dataset:
        return dataset
    from stages.embed.images import DATASETS

    return str(DATASETS.build(dataset).slug)


def _write(out: Path, contents: Mapping[str, bytes]) -> None:
    """Each file whole or not at all, the page last."""
    try:
        for name, content in contents.items():
            write_whole(out / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {str(out)!r} ({error.strerror}): choose another folder with --out PATH"
        ) from error
