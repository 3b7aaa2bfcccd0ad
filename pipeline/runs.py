"""What `alcove runs` says of the run store: all runs in a table, or one in full."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.errors import CacheMismatchError, CacheMissError, InputError
from cache.files import canonical_json, digest_json
from cache.runs import RunStore
from pipeline.config import RunsConfig
from pipeline.report import is_backbone, readable_runs, slug
from pipeline.results import Estimate, Run, read_run, reason, seed_ranges, strategy_labels, variants_of

COLUMNS = ("data set", "backbone", "head", "strategy", "protocol", "seeds", "AUBC", "final accuracy", "seconds", "key")
POINTS_SHOWN = 6
KEYS_SHOWN = 5


def list_runs(config: RunsConfig) -> list[str]:
    """A table, one line per setting and strategy: mean and standard error over its seeds, mean seconds of a run.

    Raises CacheMissError (no runs), InputError (none that the filters let through).
    """
    runs = [run for run in readable_runs(config.data_root) if _is_wanted(run, config)]
    if not runs:
        raise InputError(
            f"no run in {config.data_root / 'runs'} has dataset={config.dataset!r}, backbone={config.backbone!r}, "
            f"strategy={','.join(config.strategy)!r} and key={config.key!r}: `make runs` without them lists all"
        )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(digest_json([run.settings, run.strategy]), []).append(run)
    kinds = list(groups.values())
    labels = strategy_labels([kind[0].strategy for kind in kinds])
    heads = strategy_labels([kind[0].settings["head"] for kind in kinds])
    rows = sorted(_row(kind, *names) for kind, *names in zip(kinds, heads, labels, strict=True))
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (COLUMNS, *rows)
    ]


def show_run(config: RunsConfig) -> list[str]:
    """One run: configuration, summary, versions, commit, command, and some of its rounds.

    Raises CacheMissError (no such run), InputError (several), CacheMismatchError (damaged).
    """
    store = RunStore(config.data_root / "runs")
    ids = [run_id for run_id in store.ids() if config.key in run_id]
    if not ids:
        raise CacheMissError(f"there is no run with key {config.key!r} in {store.root}: `make runs` lists them")
    if len(ids) > 1:
        more = f" and {len(ids) - KEYS_SHOWN} more" if len(ids) > KEYS_SHOWN else ""
        raise InputError(f"show wants one run: name it with --key, one of {', '.join(ids[:KEYS_SHOWN])}{more}")
    stored = store.get(ids[0])
    try:
        assert stored is not None
        run = read_run(stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheMismatchError(
            f"the run {ids[0]} is damaged ({reason(error)}): delete it and run it again"
        ) from error
    record = run.record
    lines = [f"run       {ids[0]}"]
    lines += [f"  {name:<15} {_text(value)}" for name, value in record["run"].items()]
    lines += [f"  {name:<15} {_text(record[name])}" for name in ("n_pool", "n_validation", "n_test")]
    lines += [f"summary   AUBC {run.aubc:.4f}, final accuracy {run.accuracy[-1]:.4f}, {run.seconds:.2f} s"]
    versions = record.get("versions") or {"versions": "not recorded"}
    lines += [f"versions  {', '.join(f'{name} {version}' for name, version in versions.items())}"]
    lines += [
        f"commit    {record.get('commit') or 'not recorded'}",
        f"command   {record.get('command') or 'not recorded'}",
    ]
    return lines + _rounds(run)


def _is_wanted(run: Run, config: RunsConfig) -> bool:
    return (
        slug(config.dataset) in ("", run.settings["dataset"])
        and is_backbone(config.backbone, run.settings)
        and (not config.strategy or run.strategy["name"] in config.strategy)
        and config.key in "/".join(run.stored.path.parts[-3:])
    )


def _row(runs: Sequence[Run], head: str, strategy: str) -> tuple[str, ...]:
    run = min(runs, key=lambda run: run.seed)
    settings = run.settings
    protocol = settings["protocol"]
    said = [f"{protocol['initial_size']} to {run.budget[-1]} by {protocol['batch_size']}", *variants_of(settings)]
    return (
        settings["dataset"],
        settings["full_name"],
        head,
        strategy,
        ", ".join([*said, f"PCA {settings['pca']}"]),
        seed_ranges(run.seed for run in runs),
        _estimate([run.aubc for run in runs]),
        _estimate([run.accuracy[-1] for run in runs]),
        f"{np.mean([run.seconds for run in runs]):.2f}",
        run.stored.path.name.rpartition("-")[2],
    )


def _estimate(values: Sequence[float]) -> str:
    estimate = Estimate.of(values)
    return f"{estimate.mean:.4f}" + (f" +- {estimate.error:.4f}" if estimate.error is not None else "")


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
