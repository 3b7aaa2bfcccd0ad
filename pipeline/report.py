"""What the stored runs show: learning curves, a table, and one self-contained HTML page.

Nothing heavy is imported before a report is made, so that --help, which is made from ReportConfig, answers at once.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import CacheMissError, InputError
from cache.files import canonical_json, write_whole
from cache.location import Location, local_folder

if TYPE_CHECKING:
    from pipeline.results import Estimate, Group, Run


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draw learning curves, compare strategies in a table, and put both on one HTML page."""

    dataset: str = ""
    """data set to report on, as for embed; empty for all"""
    backbone: str = ""
    """backbone to report on, short or full name; empty for all"""
    out: Path | None = None
    """folder for the report; by default reports in DATA_ROOT, or in this machine's own folder where that is a URL"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written. headlines : one line per group, in the page's order"""

    page: Path
    table: Path
    summary: Path
    figures: tuple[Path, ...]
    headlines: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.figures, self.table, self.summary, self.page)

    @property
    def headline(self) -> str:
        """The last group's."""
        return self.headlines[-1]


@dataclass(frozen=True, kw_only=True)
class SurrogateNote:
    """What the page says about a surrogate. quality : its manifest's table (columns, rows, caption), or None"""

    label: str
    train_seeds: tuple[int, ...] | None
    ran_on: tuple[int, ...]
    quality: Mapping[str, Any] | None

    @property
    def seen(self) -> tuple[int, ...]:
        """Seeds that it ran on although its training saw them."""
        return tuple(seed for seed in self.ran_on if seed in (self.train_seeds or ()))


def make_report(config: ReportConfig) -> Report:
    """Report on the runs under `data_root`. Damaged runs are named on stderr and left out.

    Raises CacheMissError (no runs), InputError (no run matches the filter, or the folder cannot be written).
    """
    from pipeline.curves import draw_all
    from pipeline.results import group_runs

    manifests = _manifests(local_folder(config.data_root))
    groups = group_runs(_without_replaced_surrogates(_chosen_runs(config), set(manifests)))
    pictures = draw_all(groups)
    notes = {group.stem: _surrogate_notes(group, manifests) for group in groups}
    out = config.out or local_folder(config.data_root) / "reports"
    contents = {f"{stem}.png": picture for stem, picture in pictures.items()}
    contents |= {"report.csv": _csv(groups).encode(), "report.md": _markdown(groups).encode()}
    contents |= {"report.html": _page(groups, pictures, notes).encode()}
    _write(out, contents)
    return Report(
        page=out / "report.html",
        table=out / "report.csv",
        summary=out / "report.md",
        figures=tuple(out / f"{stem}.png" for stem in pictures),
        headlines=tuple(group.headline for group in groups),
    )


def readable_runs(data_root: Location) -> list[Run]:
    """All runs that can be read, at least one; the others are named on stderr. Raises CacheMissError."""
    from cache.runs import RunStore
    from pipeline.reading import sound_runs

    root = data_root / "runs"
    runs = sound_runs(RunStore(root))
    if not runs:
        raise CacheMissError(f"there are no runs in {root} yet: run `make al` first")
    return runs


def _chosen_runs(config: ReportConfig) -> list[Run]:
    """The readable runs that the filter lets through, at least one."""
    runs = readable_runs(config.data_root)
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


def _surrogate_notes(group: Group, manifests: Mapping[str, Mapping[str, Any]]) -> list[SurrogateNote]:
    """One per surrogate of a group, with what its model's manifest tells, where that model is still there."""
    results = [result for result in group.results if result.is_surrogate]
    notes = []
    for result in results:
        manifest = manifests.get(result.strategy.get("model_digest", ""), {})
        train_seeds = result.strategy.get("train_seeds", manifest.get("train_seeds"))
        notes.append(
            SurrogateNote(
                label=result.label,
                train_seeds=None if train_seeds is None else tuple(train_seeds),
                ran_on=result.seeds,
                quality=manifest.get("quality"),
            )
        )
    return notes


def _manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """Manifests of the trained surrogates, by the digest that runs know the model by (`Surrogate.record`).

    A damaged one is named on stderr and left out.
    """
    manifests = {}
    for path in sorted((folder / "surrogates").rglob("manifest.json")):
        try:
            manifest = json.loads(path.read_bytes())
            quality = manifest.get("quality")
            if quality is not None and {len(row) for row in quality["rows"]} - {len(quality["columns"])}:
                raise ValueError("rows of its quality table are not as long as the header")
            manifests[manifest["model_digest"]] = manifest
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"alcove: left out the damaged manifest {path} ({error})", file=sys.stderr)
    return manifests


def _csv(groups: Sequence[Group]) -> str:
    """One row per group and strategy, numbers unrounded. Empty where a number does not exist."""
    rows = []
    for group in groups:
        settings = {
            name: canonical_json(value) if isinstance(value, dict) else value for name, value in group.settings.items()
        }
        for place, result in enumerate(group.results, start=1):
            row = {"group": group.stem, **settings, "place": place, "strategy": result.label}
            for name, estimate in (("aubc", result.aubc), ("final_accuracy", result.final), ("gain", result.gain)):
                row |= {f"{name}_mean": estimate and estimate.mean, f"{name}_error": estimate and estimate.error}
            rows.append(row | {"seeds": " ".join(map(str, result.seeds)), "seconds": result.seconds})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(groups: Sequence[Group]) -> str:
    """One table of all strategies: AUBC, mean ± standard error, and seconds per run in every group."""
    labels = [result.label for group in groups for result in group.results]
    columns = [{result.label: result for result in group.results} for group in groups]
    heading = [f"{group.title}, {group.n_seeds} | s" for group in groups]
    lines = [f"| AUBC | {' | '.join(heading)} |", f"|---{'|---|---' * len(groups)}|"]
    for label in dict.fromkeys(labels):
        cells = [
            f"{_estimate(found.aubc)} | {found.seconds:.1f}" if (found := column.get(label)) else "– | –"
            for column in columns
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _page(groups: Sequence[Group], pictures: Mapping[str, bytes], notes: Mapping[str, list[SurrogateNote]]) -> str:
    """The HTML page. Everything is escaped; pictures are inlined."""
    from jinja2 import Environment, StrictUndefined

    from pipeline.results import seed_ranges

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"seeds": seed_ranges, "estimate": _estimate, "cell": _cell, "parameters": _parameters}
    template = environment.from_string(resources.files("pipeline").joinpath("report.html.j2").read_text("utf-8"))
    records = [run.record for group in groups for run in group.runs]
    return template.render(
        groups=groups,
        pictures={stem: base64.b64encode(picture).decode() for stem, picture in pictures.items()},
        notes=notes,
        commands=sorted({record.get("command") or "not recorded" for record in records}),
        versions=_versions(records),
        commits=sorted({record.get("commit") or "not recorded" for record in records}),
        features=sorted({record["run"]["features"] for record in records}),
    )


def _versions(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """`numpy 2.3.1`, sorted; all versions of a package where runs were made with several."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.get("versions", {}).items():
            found.setdefault(name, set()).add(str(version))
    return [f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items())]


def _estimate(estimate: Estimate | None, sign: bool = False) -> str:
    """`0.885 ± 0.004`, or `–` for None; a real minus."""
    if estimate is None:
        return "–"
    mean = (f"{estimate.mean:+.3f}" if sign else f"{estimate.mean:.3f}").replace("-", "−")
    return mean if estimate.error is None else f"{mean} ± {estimate.error:.3f}"


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _parameters(component: Mapping[str, Any]) -> str:
    """`ridge (penalty 10)`: a component's record in words."""
    parts = [f"{name} {value}" for name, value in component.items() if name != "name"]
    return f"{component['name']} ({', '.join(parts)})" if parts else str(component["name"])
