"""What `alcove runs` says of the run store: all runs in a table or a CSV file, or one in full."""

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheMismatchError, CacheMissError, InputError
from cache.files import canonical_json, digest_json, write_whole
from cache.runs import RunStore
from pipeline.config import RunsConfig
from pipeline.grid import parse_seeds
from pipeline.reading import REMEDY, Run, damage_named, find_run
from pipeline.report import is_backbone, readable_runs, slug
from pipeline.results import Estimate, seed_ranges, strategy_labels, variants_of

SETTING = ("data set", "backbone", "head", "protocol")
COLUMNS = (*SETTING, "strategy", "seeds", "AUBC", "final accuracy", "seconds", "key")
FLEXIBLE, NARROWEST = (*SETTING, "strategy", "seeds"), 12
"""Columns that a narrow terminal may cut, and to how many characters at least."""
SPARED = ("backbone", "final accuracy", "seconds", "head")
"""Columns that a narrower one does without, the first of them first."""
FILTERS = ("dataset", "backbone", "head", "strategy", "pool", "seeds", "key")
POINTS_SHOWN = 6
KEYS_SHOWN = 5


def chosen_runs(config: RunsConfig) -> list[Run]:
    """The readable runs that the filters let through. Raises CacheMissError (no runs), InputError (none left)."""
    seeds = set(parse_seeds(config.seeds)) if config.seeds else None
    dataset = slug(config.dataset)
    runs = [
        run
        for run in readable_runs(config.data_root)
        if dataset in ("", run.settings["dataset"])
        and is_backbone(config.backbone, run.settings)
        and (not config.head or run.settings["head"]["name"] in config.head)
        and (not config.strategy or run.strategy["name"] in config.strategy)
        and config.pool in ("", pool := run.settings.get("pool") or "whole", pool.partition(":")[0])
        and (seeds is None or run.seed in seeds)
        and config.key in _id(run)
    ]
    if not runs:
        asked = {name: getattr(config, name) for name in FILTERS}
        said = {name: value if isinstance(value, str) else ",".join(value) for name, value in asked.items()}
        raise InputError(
            f"no run in {config.data_root / 'runs'} has "
            f"{', '.join(f'{name}={value!r}' for name, value in said.items() if value)}: `make runs` alone lists all"
        )
    return runs


def list_runs(config: RunsConfig) -> list[str]:
    """A table, one line per setting and strategy: mean and standard error over its seeds, mean seconds of a run.

    What all lines share stands above it. In a terminal it is no wider than that. Raises as `chosen_runs` does.
    """
    kinds: dict[str, list[Run]] = {}
    for run in sorted(chosen_runs(config), key=lambda run: run.seed):
        kinds.setdefault(digest_json([run.settings, run.strategy]), []).append(run)
    labels = _labels([kind[0] for kind in kinds.values()])
    order = {"aubc": lambda row: -float(row["AUBC"][:6]), "seconds": lambda row: float(row["seconds"])}
    rows = [_row(kind, *names) for kind, names in zip(kinds.values(), labels, strict=True)]
    rows.sort(key=lambda row: row["strategy"])
    rows.sort(key=order.get(config.sort, lambda row: 0.0))
    rows.sort(key=lambda row: [row[name] for name in SETTING])
    shared = [name for name in SETTING if len({row[name] for row in rows}) == 1]
    columns = [name for name in COLUMNS if name not in shared]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return [f"{name:<8}  {rows[0][name]}" for name in shared] + [""] * bool(shared) + _fitted(rows, columns, width)


def write_csv(config: RunsConfig, file: Path) -> int:
    """One row per run: where its rounds are, its settings and results. Returns how many. Raises as `chosen_runs`."""
    runs = chosen_runs(config)
    rows = [_csv_row(run, *names) for run, names in zip(runs, _labels(runs), strict=True)]

    def write(path: Path) -> None:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)

    write_whole(file, write)
    return len(rows)


def show_run(config: RunsConfig) -> list[str]:
    """One run: configuration, summary, versions, commit, command, and some of its rounds.

    Raises CacheMissError (no such run, or half of one), InputError (several), CacheMismatchError (damaged).
    """
    store = RunStore(config.data_root / "runs")
    survey = store.survey()
    ids = [run_id for run_id in survey.finished if config.key in run_id]
    if half := [run_id for run_id in survey.half_written if config.key in run_id] if not ids else []:
        raise CacheMissError(f"the run {half[0]} is half-written, or being written: `make al` finishes it")
    if not ids:
        raise CacheMissError(f"there is no run with key {config.key!r} in {store.root}: `make runs` lists them")
    if len(ids) > 1:
        more = f" and {len(ids) - KEYS_SHOWN} more" if len(ids) > KEYS_SHOWN else ""
        raise InputError(f"show wants one run: name it with --key, one of {', '.join(ids[:KEYS_SHOWN])}{more}")
    try:
        run = find_run(store, ids[0])
        if run is None:
            raise CacheMissError(f"the run {ids[0]} has just been removed: `make runs` lists those there are")
        with damage_named(run.stored.path):
            return _about(run) + _rounds(run)
    except CacheMismatchError as error:
        raise CacheMismatchError(f"cannot show {error}: {REMEDY}") from error


def _id(run: Run) -> str:
    return "/".join(run.stored.path.parts[-3:])


def _labels(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Head and strategy of each, told apart. The number of classes is the data set's, not the head's."""
    heads = [{name: value for name, value in run.settings["head"].items() if name != "n_classes"} for run in runs]
    return list(zip(strategy_labels(heads), strategy_labels([run.strategy for run in runs]), strict=True))


def _row(runs: Sequence[Run], head: str, strategy: str) -> dict[str, str]:
    """runs : of one setting and strategy, by seed"""
    run, settings = runs[0], runs[0].settings
    protocol = settings["protocol"]
    said = [f"{protocol['initial_size']} to {run.budget[-1]} by {protocol['batch_size']}", *variants_of(settings)]
    said += [f"PCA {settings['pca']}"] * ("pca" in settings)
    return {
        "data set": settings["dataset"],
        "backbone": settings["full_name"],
        "head": head,
        "protocol": ", ".join(said),
        "strategy": strategy,
        "seeds": seed_ranges(run.seed for run in runs),
        "AUBC": _estimate([run.aubc for run in runs]),
        "final accuracy": f"{np.mean([run.accuracy[-1] for run in runs]):.4f}",
        "seconds": f"{np.mean([run.seconds for run in runs]):.2f}",
        "key": run.stored.path.name.rpartition("-")[2],
    }


def _csv_row(run: Run, head: str, strategy: str) -> dict[str, Any]:
    settings = dict(run.settings)
    components = {"head": settings.pop("head"), "strategy": run.strategy}
    protocol, parameters = settings.pop("protocol"), settings.pop("parameters", {})
    return {
        "file": str(run.stored.path / "rounds.parquet"),
        "dataset": settings["dataset"],
        "pool": settings.get("pool") or "whole",
        "backbone": settings["backbone"],
        "head": head,
        "strategy": strategy,
        "seed": run.seed,
        "aubc": run.aubc,
        "final_accuracy": run.accuracy[-1],
        "seconds": run.seconds,
        **{name: value for name, value in settings.items() if name not in ("dataset", "pool", "backbone")},
        **protocol,
        **{f"{name}_settings": canonical_json(value) for name, value in components.items()},
        "backbone_settings": canonical_json(parameters),
        "commit": run.record.get("commit"),
        "command": run.record.get("command"),
    }


def _fitted(rows: Sequence[Mapping[str, str]], columns: Sequence[str], width: int | None) -> list[str]:
    """Header and rows as lines. width : of the terminal, None for as wide as need be"""
    for spared in range(len(SPARED) + 1):
        shown = [name for name in columns if name not in SPARED[:spared]]
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in shown}
        flexible = {name: n for name, n in widths.items() if name in FLEXIBLE}
        surplus = sum(widths.values()) + 2 * (len(shown) - 1) - width if width else 0
        while surplus > 0 and max(flexible.values()) > NARROWEST:
            flexible[max(flexible, key=lambda name: flexible[name])] -= 1
            surplus -= 1
        if surplus <= 0:
            break
    widths |= flexible
    lines = [dict(zip(shown, shown, strict=True)), *rows]
    return ["  ".join(_cut(line[name], widths[name]).ljust(widths[name]) for name in shown).rstrip() for line in lines]


def _cut(cell: str, length: int) -> str:
    return cell if len(cell) <= length else f"{cell[: length - 1]}…"


def _estimate(values: Sequence[float]) -> str:
    estimate = Estimate.of(values)
    return f"{estimate.mean:.4f}" + (f" ± {estimate.error:.4f}" if estimate.error is not None else "")


def _about(run: Run) -> list[str]:
    """Configuration, summary, and what made it."""
    record = run.record
    lines = [f"run       {_id(run)}"]
    lines += [f"  {name:<15} {_text(value)}" for name, value in record["run"].items()]
    lines += [f"  {name:<15} {_text(record[name])}" for name in ("n_pool", "n_validation", "n_test")]
    lines += [f"summary   AUBC {run.aubc:.4f}, final accuracy {run.accuracy[-1]:.4f}, {run.seconds:.2f} s"]
    versions = record.get("versions") or {"versions": "not recorded"}
    lines += [f"versions  {', '.join(f'{name} {version}' for name, version in versions.items())}"]
    return lines + [f"{name:<8}  {record.get(name) or 'not recorded'}" for name in ("commit", "command")]


def _text(value: Any) -> str:
    return canonical_json(value) if isinstance(value, Mapping | list) else str(value)


def _rounds(run: Run) -> list[str]:
    """First, last and some rounds between them, and what all of them took."""
    shown = np.unique(np.linspace(0, len(run.accuracy) - 1, POINTS_SHOWN).round().astype(int))
    curve = ", ".join(f"{run.accuracy[i]:.3f} at {run.budget[i]}" for i in shown)
    rounds = run.stored.rounds()
    spent = [
        f"{name} {rounds[f'seconds_{name}'].sum():.2f} s"
        for name in ("fit", "query", "evaluate")
        if f"seconds_{name}" in rounds
    ]
    lines = [f"rounds    {len(rounds)}, test accuracy {curve} labels"]
    return lines + [f"time      {', '.join(spent)}"] * bool(spent)
