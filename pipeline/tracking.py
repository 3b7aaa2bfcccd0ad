"""Finished runs as runs of an MLflow tracking server or database, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cache.errors import InputError
from cache.files import canonical_json
from pipeline.reading import Run, written

if TYPE_CHECKING:
    from mlflow import MlflowClient

AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""
ID = "alcove.run"
"""The tag by which a run is known again."""


def log_runs(runs: Sequence[Run], uri: str) -> tuple[int, int]:
    """Log the runs that are not there. Returns how many were new, and how many were there.

    An experiment per data set and backbone; parameters are the settings, metrics those of every round over the labels
    spent, tags the run's id, commit, command and versions. What an interrupted call left is removed and logged again.
    Raises InputError where MLflow is not installed or refuses.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError("--mlflow needs a package that is not installed: pip install 'alcove[mlflow]'") from error
    try:
        client, new = MlflowClient(tracking_uri=uri), 0
        for name, alike in _by_experiment(runs).items():
            experiment = _experiment(client, name)
            there = _logged(client, experiment)
            todo = [run for run in alike if _id(run) not in there]
            for run in tqdm(todo, desc=name, unit="run", disable=None):
                _log(client, experiment, run)
            new += len(todo)
    except MlflowException as error:
        raise InputError(
            f"MLflow at {uri!r} refuses ({' '.join(str(error).split()).partition('. ')[0]}): check --mlflow"
        ) from error
    return new, len(runs) - new


def _by_experiment(runs: Iterable[Run]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(f"{run.settings['dataset']}/{run.settings['full_name']}", []).append(run)
    return grouped


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment of that name, made where it is not there."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _logged(client: MlflowClient, experiment: str) -> set[str]:
    """Ids of our runs that are whole in an experiment. Those of an interrupted call are removed."""
    page = client.search_runs([experiment])
    found = list(page)
    while page.token:
        page = client.search_runs([experiment], page_token=page.token)
        found += page
    ours = [run for run in found if ID in run.data.tags]
    for run in ours:
        if run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
    return {run.data.tags[ID] for run in ours if run.info.status == "FINISHED"}


def _log(client: MlflowClient, experiment: str, run: Run) -> None:
    """One run: it is FINISHED once everything is there."""
    from mlflow.entities import Metric, Param

    end = written(run) // 10**6
    tags = {ID: _id(run), "commit": run.record.get("commit"), "command": run.record.get("command")}
    tags |= {f"version.{name}": version for name, version in (run.record.get("versions") or {}).items()}
    made = client.create_run(
        experiment,
        start_time=end - round(1000 * run.seconds),
        run_name=run.stored.path.name,
        tags={name: str(value) for name, value in tags.items() if value},
    )
    params = [Param(name, value) for name, value in _flat(run.record["run"])]
    client.log_batch(made.info.run_id, params=params)
    metrics = [Metric(name, value, end, step) for name, value, step in _metrics(run)]
    for start in range(0, len(metrics), AT_ONCE):
        client.log_batch(made.info.run_id, metrics=metrics[start : start + AT_ONCE])
    client.set_terminated(made.info.run_id, end_time=end)


def _metrics(run: Run) -> Iterator[tuple[str, float, int]]:
    """Name, value and labels spent: those of every round, and three of the whole run at its end."""
    rounds = run.stored.rounds()
    for name in rounds.columns:
        if name.startswith(("test_", "val_")):
            yield from zip([name] * len(rounds), rounds[name].tolist(), run.budget.tolist(), strict=True)
    for name, value in (("aubc", run.aubc), ("final_accuracy", run.accuracy[-1]), ("seconds", run.seconds)):
        yield name, float(value), int(run.budget[-1])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`head.name`, `head.penalty` and so on, as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, canonical_json(value) if isinstance(value, list) else str(value)


def _id(run: Run) -> str:
    return "/".join(run.stored.path.parts[-3:])
