"""A fit whose driver is killed resumes when the same call is made again, and ends where it would have."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyspark
import pytest

from sparkopt.errors import CorruptCheckpointWarning, DivergedError, ParameterError
from sparkopt.machine import Table
from sparkopt.ml import LogisticRegression
from sparkopt.solver.callbacks import History
from sparkopt.solver.progress import Progress
from tests.tables import Unread, in_partitions
from tests.training import kill_driver
from tests.training.kill_driver import INTERVAL, MODELS, coefficients, estimator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def spark_rows(spark):
    return kill_driver.rows(spark).cache()


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3))
    return pd.DataFrame({"features": list(X), "label": (X[:, 0] + rng.normal(size=1000) > 0).astype(float)})


@pytest.fixture(scope="module")
def rows() -> Table:
    return in_partitions(table(), 2)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def checkpoints(folder: Path) -> list[str]:
    """Return the files but for the note of the application whose they are."""
    return [name for name in files(folder) if not name.endswith(".owner")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, jvms, kills) -> dict[str, tuple[Path, int]]:
    """Folder of checkpoints, and the step at which the driver was killed, for each of the runs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    runs = {}
    for name in MODELS:  # side by side
        step = random.SystemRandom().randrange(INTERVAL + 1, 16 if name == "nonsmooth" else 40)
        arguments = [name, str(folder / name), str(step)]
        command = [sys.executable, str(ROOT / "tests/training/kill_driver.py"), *arguments]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        runs[name] = process, step
    for process, step in runs.values():
        _, errors = process.communicate(timeout=400)
        assert process.returncode == -signal.SIGKILL, (step, errors[-3000:])
    return {name: (folder / name, step) for name, (_, step) in runs.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_killed_driver_changes_no_bit(spark_rows, killed, name):
    folder, step = killed[name]
    assert files(folder), step
    trained, grid = estimator(name)
    undisturbed = trained.fit(spark_rows, grid)
    again = trained.copy().setCheckpointDir(str(folder)).setCheckpointInterval(INTERVAL).fit(spark_rows, grid)
    resumed_at = again[0].summary.receipt.resumed_at
    assert max(1, step - 2 * INTERVAL) <= resumed_at <= step
    for one, other in zip(coefficients(again), coefficients(undisturbed), strict=True):
        assert one.tobytes() == other.tobytes(), (name, step, resumed_at)
    for one, other in zip(again, undisturbed, strict=True):
        assert one.summary.objectiveHistory == other.summary.objectiveHistory
    assert "steps were taken before" in str(again[0].summary.receipt)
    assert files(folder) == []  # a finished run is not gone on from


def test_a_finished_stage_is_not_repeated(rows, tmp_path):
    """A nonsmooth loss is minimised in several loops: the second attempt resumes the one that the first was in."""
    trained, grid = estimator("nonsmooth")
    checkpointed = trained.setCheckpointDir(str(tmp_path)).setCheckpointInterval(1)
    undisturbed = trained.copy().setCheckpointInterval(-1).fit(rows, grid)
    steps = History()
    interrupted = checkpointed.copy().setCallbacks([steps, lambda progress: len(steps.records) >= 40])
    first = interrupted.fit(rows, grid)
    assert files(tmp_path)
    assert [model.summary.receipt.reason for model in first].count("callback") > 0
    again = checkpointed.fit(rows, grid)
    for one, other in zip(again, undisturbed, strict=True):
        assert one.summary.objectiveHistory == other.summary.objectiveHistory
        assert one.summary.receipt.resumed_at > 0
        assert one.summary.receipt.passes < other.summary.receipt.passes
    assert again[2].summary.receipt.resumed_at == again[2].summary.totalIterations == 6
    assert files(tmp_path) == []


def stop_at(step: int):
    def stop(progress: Progress) -> bool:
        return progress.record.step >= step

    return stop


@pytest.fixture
def checkpointed(tmp_path):
    """An estimator whose fit ends early, so that its checkpoints stay."""
    found = LogisticRegression(optimizer="adam", maxIter=10, tol=0.0, engine="driver")
    return found.setCheckpointDir(str(tmp_path)).setCheckpointInterval(2)


def test_a_callback_that_stops_a_fit_interrupts_it(rows, checkpointed, tmp_path):
    checkpointed.copy().setCallbacks([stop_at(7)]).fit(rows)
    assert checkpoints(tmp_path) == ["step-00000004.checkpoint", "step-00000006.checkpoint"]
    watch = History()
    model = checkpointed.setCallbacks([watch]).fit(rows)
    assert [record["step"] for record in watch.records] == list(range(7, 11))
    assert model.summary.receipt.resumed_at == 6
    assert model.summary.receipt.passes == 4
    sent = model.summary.receipt.sent
    assert (sent[:7], sum(sent)) == ([0] * 7, model.summary.receipt.bytes["sent"])
    plain = LogisticRegression(optimizer="adam", maxIter=10, tol=0.0).fit(rows)
    assert model.coefficients == plain.coefficients
    assert model.summary.objectiveHistory == plain.summary.objectiveHistory


def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(rows, checkpointed, tmp_path):
    checkpointed.copy().setCallbacks([stop_at(7)]).fit(rows)
    newest = next(tmp_path.rglob("step-00000006.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.warns(CorruptCheckpointWarning, match="step-00000006.checkpoint: it was truncated or altered"):
        model = checkpointed.fit(rows)
    assert model.summary.receipt.resumed_at == 4
    plain = LogisticRegression(optimizer="adam", maxIter=10, tol=0.0).fit(rows)
    assert model.coefficients == plain.coefficients


def test_another_order_of_the_rows_is_the_same_data(rows, checkpointed):
    estimator = checkpointed.setClassWeights("balanced")
    estimator.copy().setCallbacks([stop_at(7)]).fit(rows)
    again = estimator.fit(in_partitions(table()[::-1], 3))
    assert again.summary.receipt.resumed_at == 6
    np.testing.assert_allclose(again.coefficients, estimator.fit(rows).coefficients, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "named"), [("optimizer", "optimizer"), ("data", "data, rows"), ("start", "initial")]
)
def test_another_configuration_begins_anew(rows, checkpointed, tmp_path, change, named, caplog):
    checkpointed.copy().setCallbacks([stop_at(7)]).fit(rows)
    before = files(tmp_path)
    other, data = checkpointed.copy(), rows
    if change == "optimizer":
        other = other.setOptimizer("sgd")
    elif change == "data":
        data = in_partitions(table()[:999], 2)
    else:
        other = other.setInitialModel(LogisticRegression(maxIter=1, tol=0.0).fit(rows))
    assert other.fit(data).summary.receipt.resumed_at == 0
    assert caplog.messages[-1].endswith(f"it differs in {named}")
    assert files(tmp_path) == before  # left to the run that they belong to


def test_a_fit_that_diverges_leaves_nothing(rows, tmp_path):
    diverging = LogisticRegression(optimizer="sgd", stepSize=1e3, maxIter=1000, tol=0.0, regParam=0.5)
    with pytest.raises(DivergedError, match=r"'sgd' diverged at step \d\d+"):  # in a task, and seen here
        diverging.setCheckpointDir(str(tmp_path)).setCheckpointInterval(1).fit(rows)
    assert files(tmp_path) == []


def test_what_checkpoints_cannot_be_is_refused_before_a_row_is_read():
    with pytest.raises(ParameterError, match="checkpointInterval must be a whole number >= 1"):
        LogisticRegression().setCheckpointInterval(0).fit(Unread.table())
    with pytest.raises(ParameterError, match="Give a path, or a URI that begins with file, s3"):
        LogisticRegression().setCheckpointDir("dbfs:/models").fit(Unread.table())


@pytest.mark.parametrize("engine", ["local", "resident"])
def test_the_loop_keeps_its_state_wherever_it_runs(spark_rows, checkpointed, tmp_path, engine):
    elsewhere = checkpointed.setEngine(engine)
    elsewhere.copy().setCallbacks([stop_at(7)]).fit(spark_rows)
    assert checkpoints(tmp_path) == ["step-00000004.checkpoint", "step-00000006.checkpoint"]
    model = elsewhere.fit(spark_rows)
    assert (model.summary.receipt.engine, model.summary.receipt.resumed_at) == (engine, 6)
    plain = LogisticRegression(optimizer="adam", maxIter=10, tol=0.0, engine=engine).fit(spark_rows)
    assert np.array_equal(model.coefficients, plain.coefficients)
