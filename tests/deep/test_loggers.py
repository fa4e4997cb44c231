"""Loggers: what TensorBoard and MLflow read back is what the summary says."""

from __future__ import annotations

import functools

import pytest

from sparkopt.deep import MLflow, TensorBoard, TorchEstimator
from tests.deep import networks


@pytest.fixture(scope="module")
def df(spark):
    rows = [([float(i % 7), float(i % 3)], i % 2) for i in range(96)]
    return spark.createDataFrame(rows, "features array<double>, label int").coalesce(1).cache()


def fit(df, logger, **options):
    estimator = TorchEstimator(
        module=functools.partial(networks.Mlp, features=2, classes=2),
        loss="multinomial",
        metrics={"accuracy": "accuracy"},
        validationFraction=0.3,
        batchSize=8,
        loggers=[logger],
        **{"epochs": 3, "launcher": "local", **options},
    )
    return estimator.fit(df).summary


def expected(summary):
    """Values by name, as (step, value)."""
    ends = [summary.totalIterations // 3 * (record["epoch"] + 1) for record in summary.history]
    found = {
        name: [(step, record[name]) for step, record in zip(ends, summary.history, strict=True)]
        for name in ("loss", "validation", "accuracy", "rate")
    }
    return {**found, "step_loss": [(step, summary.objectiveHistory[step - 1]) for step in ends]}


def test_tensorboard(df, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoard(str(tmp_path / "events"))
    options = {"checkpointDir": str(tmp_path / "checkpoints"), "streams": 2}
    fit(df, logger, epochs=1, **options)
    summary = fit(df, logger, launcher="torch", numProc=2, **options)  # continues in a second file, which is rank 0's
    found = accumulators.EventAccumulator(logger.folder).Reload()
    assert summary.receipt.resumed == "epoch-000001-step-000000000"
    for name, values in expected(summary).items():
        read = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in read] == [step for step, _ in values], name
        assert [value for _, value in read] == pytest.approx([value for _, value in values], rel=1e-6), name


def test_tensorboard_reads_a_run_that_was_resumed_at_once_in_order(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoard(str(tmp_path))
    for step, later in enumerate(("9", "1")):  # as processes whose names sort the other way round
        opened = logger.open()
        logger.log(opened, {"loss": float(step)}, step)
        logger.close(opened)
        (found,) = (path for path in tmp_path.iterdir() if path.name.split(".")[4] not in ("9", "1"))
        parts = found.name.split(".")
        found.rename(tmp_path / ".".join([*parts[:4], later, *parts[5:]]))
    read = accumulators.EventAccumulator(logger.folder).Reload().Scalars("loss")
    assert [event.step for event in read] == [0, 1]


def test_mlflow(df, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((tmp_path / "runs").as_uri())
    run = client.create_run(client.create_experiment("digits")).info.run_id
    summary = fit(df, MLflow(run, (tmp_path / "runs").as_uri()))
    for name, values in expected(summary).items():
        read = client.get_metric_history(run, name)
        assert [metric.step for metric in read] == [step for step, _ in values], name
        assert [metric.value for metric in read] == pytest.approx([value for _, value in values]), name
    assert client.get_run(run).info.status == "RUNNING"  # it belongs to whom it belonged
