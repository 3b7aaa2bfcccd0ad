"""Runs in MLflow: what is logged, and that it is logged once. MLflow itself is replaced by a list of runs."""

import sys
import uuid
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

from pipeline.cli import main
from tests.unit.test_report import put_grid


class Client:
    """As much of MlflowClient as is used, with its limits; `runs` outlives it as a database would."""

    runs: list[SimpleNamespace]

    def __init__(self, tracking_uri):
        if tracking_uri == "sqlite:///refused.db":
            raise sys.modules["mlflow.exceptions"].MlflowException("no such\nplace. See https://...")

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if any(run.experiment == name for run in self.runs) else None

    def create_experiment(self, name):
        assert self.get_experiment_by_name(name) is None
        return name

    def search_runs(self, experiments, page_token=None):
        """Pages of four."""
        start = int(page_token or 0)
        found = [run for run in self.runs if run.experiment in experiments]
        page = Page(found[start : start + 4])
        page.token = str(start + 4) if start + 4 < len(found) else None
        return page

    def create_run(self, experiment, start_time, run_name, tags):
        info = SimpleNamespace(run_id=uuid.uuid4().hex, status="RUNNING", start=start_time)
        data = SimpleNamespace(tags=tags, params={}, metrics=[])
        self.runs.append(SimpleNamespace(experiment=experiment, info=info, data=data))
        return self.runs[-1]

    def delete_run(self, run_id):
        self.runs.remove(self.of(run_id))

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(metrics) <= 1000 and len(params) <= 100
        self.of(run_id).data.params.update(params)
        self.of(run_id).data.metrics += metrics

    def set_terminated(self, run_id, end_time):
        self.of(run_id).info.status = "FINISHED"

    def of(self, run_id):
        return next(run for run in self.runs if run.info.run_id == run_id)


class Page(list):
    token: str | None


@pytest.fixture
def logged(monkeypatch):
    """The runs of the database."""
    mlflow, entities, exceptions = (ModuleType(f"mlflow{part}") for part in ("", ".entities", ".exceptions"))
    mlflow.MlflowClient = type("MlflowClient", (Client,), {"runs": []})
    entities.Metric = entities.Param = lambda *values: values
    exceptions.MlflowException = type("MlflowException", (Exception,), {})
    for module in (mlflow, entities, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return mlflow.MlflowClient.runs


def test_runs_are_logged_once(tmp_path, capsys, logged):
    put_grid(tmp_path)
    command = ["runs", "--data-root", str(tmp_path), "--mlflow", "sqlite:///mlflow.db"]
    assert main([*command, "--seeds", "2"]) == 0
    assert capsys.readouterr().out == "6 new runs logged, 0 were there: sqlite:///mlflow.db\n"
    killed = logged[3].data.tags["alcove.run"]
    logged[3].info.status = "RUNNING"
    assert main(command) == 0
    assert capsys.readouterr().out == "12 new runs logged, 5 were there: sqlite:///mlflow.db\n"
    assert main(command) == 0
    assert capsys.readouterr().out == "0 new runs logged, 17 were there: sqlite:///mlflow.db\n"
    names = [run.data.tags["alcove.run"] for run in logged]
    assert len(names) == 17 == len(set(names)) and killed in names
    assert {run.experiment for run in logged} == {"digits/simclr-net.w1"}

    for run in logged:
        rounds = pd.read_parquet(tmp_path / "runs" / run.data.tags["alcove.run"] / "rounds.parquet")
        accuracy = [(value, step) for name, value, _, step in run.data.metrics if name == "test_accuracy"]
        assert accuracy == list(zip(rounds["test_accuracy"], rounds["budget_spent"], strict=True))
        last = {name: value for name, value, _, _ in run.data.metrics}
        assert last["aubc"] == pytest.approx(rounds["test_accuracy"].mean())
        assert run.data.params["head.penalty"] == "10.0" and run.data.params["protocol.budget"] == "30"
        assert f"-s{run.data.params['seed']}-" in run.data.tags["alcove.run"]
        assert run.data.tags["command"] == "alcove al --seeds 5" and "commit" not in run.data.tags


def test_what_mlflow_refuses_is_one_sentence(tmp_path, capsys, logged):
    put_grid(tmp_path)
    assert main(["runs", "--data-root", str(tmp_path), "--mlflow", "sqlite:///refused.db"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: MLflow at 'sqlite:///refused.db' refuses (no such place): ")
    assert said.count("\n") == 1


def test_without_mlflow_the_fix_is_said(tmp_path, capsys, monkeypatch):
    put_grid(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["runs", "--data-root", str(tmp_path), "--mlflow", "sqlite:///mlflow.db"]) == 2
    assert "pip install 'alcove[mlflow]'" in capsys.readouterr().err
