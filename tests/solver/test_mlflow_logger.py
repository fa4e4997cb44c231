"""MLflowLogger writes to a real tracking store, where mlflow is installed (the extra ``mlflow``)."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.errors import ParameterError
from sparkopt.solver.callbacks import MLflowLogger
from sparkopt.solver.loop import minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import quadratic

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow.*", "ignore::FutureWarning")


@pytest.fixture
def mlflow():
    """MLflow, which takes a second to load: only where one of these tests runs."""
    return pytest.importorskip("mlflow")


@pytest.fixture
def client(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("fits")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def test_steps_of_all_models_are_logged(mlflow, client):
    bowl = quadratic("bowl", np.array([1.0, 0.4, 0.1]))
    with mlflow.start_run() as run:
        logger = MLflowLogger(interval=2)
    problem = Problem(optim.gd(0.1), np.zeros(3), stop=Stop(6, tol=0), callbacks=[logger])
    solutions = minimise_many(bowl.reduce, [problem, problem])
    for name, solution in zip(("objective", "objective_1"), solutions, strict=True):
        logged = client.get_metric_history(run.info.run_id, name)
        assert [(metric.step, metric.value) for metric in logged] == [
            (record.step, record.objective) for record in solution.history[::2]
        ]
    assert "gradient_norm" in client.get_run(run.info.run_id).data.metrics
    assert "validation_loss" not in client.get_run(run.info.run_id).data.metrics


def test_a_run_must_be_active_or_named(client):
    with pytest.raises(ParameterError, match="no MLflow run is active"):
        MLflowLogger()
    run = client.create_run(client.create_experiment("named"))
    assert MLflowLogger(run_id=run.info.run_id).run_id == run.info.run_id
