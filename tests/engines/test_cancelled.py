"""A fit that is cancelled ends in one line, wherever it is, leaves no job behind, and the same call resumes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from sparkopt.blocks import classic
from sparkopt.errors import FitCancelledError
from sparkopt.ml import LinearRegression

pytestmark = pytest.mark.usefixtures("minutes")

CALLS = {
    "all": lambda context: context.cancelAllJobs(),
    "group": lambda context: context.cancelJobGroup("nightly"),
    "tag": lambda context: context.cancelJobsWithTag("mine"),
    "from another thread": lambda context: _in_a_thread(context.cancelAllJobs),
}


def _in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.fixture
def rows(spark):
    X = np.random.default_rng(0).normal(size=(200, 3))
    y = X @ [1.0, -2.0, 0.5]
    rows = spark.createDataFrame(
        [(x.tolist(), float(label)) for x, label in zip(X, y, strict=True)], "features array<double>, label double"
    )
    spark.sparkContext.setJobGroup("nightly", "")
    spark.sparkContext.addJobTag("mine")
    yield rows
    spark.sparkContext.clearJobTags()
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)


@pytest.mark.parametrize("engine", ["driver", "resident", "allreduce", "local"])
@pytest.mark.parametrize("call", CALLS)
def test_a_cancelled_fit_ends_in_one_line_and_resumes(call, engine, rows, spark, tmp_path):
    context = spark.sparkContext
    before = set(vars(context))
    kept = {"optimizer": "gd", "maxIter": 40, "tol": 0.0, "checkpointDir": str(tmp_path), "checkpointInterval": 5}

    def cancel(progress):
        if progress.record.step == 12:
            CALLS[call](context)

    with pytest.raises(FitCancelledError, match=r"^the fit was cancelled[^\n]*the same call resumes\.$"):
        LinearRegression(engine=engine, callbacks=[cancel], **kept).fit(rows)
    assert set(vars(context)) == before
    deadline = time.monotonic() + 60  # Spark's own pages learn of an end a moment later
    while context.statusTracker().getActiveJobsIds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [path for path in tmp_path.rglob("*") if "unfinished" in path.name]
    model = LinearRegression(engine=engine, **kept).fit(rows)
    assert model.summary.receipt.resumed_at >= 10


def test_future_jobs_that_another_program_cancels_between_two_passes(rows, spark, tmp_path, monkeypatch):
    """Spark remembers these: the next pass finds out. The JVM's own call is none of this process's."""
    monkeypatch.setattr(classic, "_ROOTS", {})  # files are swept by a job, as on clusters
    context = spark.sparkContext
    kept = {"optimizer": "gd", "maxIter": 8, "tol": 0.0, "checkpointDir": str(tmp_path), "checkpointInterval": 2}
    group = "a group of its own, since Spark does not forget"
    context.setJobGroup(group, "")

    def between(progress):
        if progress.record.step == 5:
            context._jsc.sc().cancelJobGroupAndFutureJobs(group)

    try:
        with pytest.raises(FitCancelledError, match=r"^the fit was cancelled[^\n]*$"):
            LinearRegression(engine="driver", callbacks=[between], **kept).fit(rows)
    finally:
        context.setJobGroup("nightly", "")
    assert LinearRegression(engine="driver", **kept).fit(rows).summary.receipt.resumed_at == 4


def test_calls_that_mean_others_are_not_heard(rows, spark):
    context = spark.sparkContext

    def cancel(progress):
        context.cancelJobGroup("weekly")
        context.cancelJobsWithTag("yours")

    model = LinearRegression(engine="driver", optimizer="gd", maxIter=4, tol=0.0, callbacks=[cancel]).fit(rows)
    assert model.summary.totalIterations == 4


def test_a_users_own_function_in_front_of_sparks_stays(rows, spark, monkeypatch):
    context, heard = spark.sparkContext, []
    own = context.cancelJobGroup
    monkeypatch.setattr(context, "cancelJobGroup", lambda group: (heard.append(group), own(group)), raising=False)
    mine = context.cancelJobGroup

    def cancel(progress):
        if progress.record.step == 2:
            context.cancelJobGroup("nightly")

    with pytest.raises(FitCancelledError):
        LinearRegression(engine="driver", optimizer="gd", maxIter=8, tol=0.0, callbacks=[cancel]).fit(rows)
    assert heard == ["nightly"]
    assert context.cancelJobGroup is mine


def test_a_function_that_a_user_puts_there_during_a_fit_stays(rows, spark):
    context = spark.sparkContext
    own = context.cancelAllJobs

    def replace(progress):
        context.cancelAllJobs = own

    try:
        LinearRegression(engine="driver", optimizer="gd", maxIter=3, tol=0.0, callbacks=[replace]).fit(rows)
        assert vars(context)["cancelAllJobs"] is own
    finally:
        vars(context).pop("cancelAllJobs", None)
