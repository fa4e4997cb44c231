"""The pipeline without a scheduler: its command lines are the jobs' own, and its rows are what training reads."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sparkopt.errors import DataError, ParameterError
from sparkopt.integrations.model_registry import Accepted
from sparkopt.jobs import evaluate, preprocess_images, score, train
from sparkopt.jobs.pipeline import FORMATS, STEPS, DataInterval, Pipeline, TablePipeline
from sparkopt.jobs.runtimes.images import ordered_names
from tests.jobs.running import ROOT

START = datetime(2026, 11, 23, 22, tzinfo=timezone(timedelta(hours=-2)))  # midnight in UTC
DAY = DataInterval(START, START + timedelta(days=1))
JOBS = dict(zip(STEPS, (preprocess_images, train, evaluate, score), strict=True))


def pipeline(**changes):
    return Pipeline(**{"images": "/data/{date}", "root": "/out", **changes})


@pytest.fixture
def accepted(monkeypatch):
    """A model that was accepted before."""
    entry = Accepted("v", "/out/models/accepted/v", "2026-11-24T00:00:00+00:00", "/out/models/accepted/v/e.json")
    monkeypatch.setattr("sparkopt.integrations.model_registry.ModelRegistry.history", lambda registry: [entry])
    return entry


def parsed(plan):
    """The arguments as the jobs read them, checked by the jobs."""
    found = {}
    for step, job in JOBS.items():
        found[step] = job.JOB.parser().read(getattr(plan, step))
        job.JOB.check(found[step])
    return found


def test_each_job_reads_what_the_one_before_it_has_written():
    plan = pipeline(labels="no,yes", color="rgb", preprocess=("--parts", "2"), train=("--tol", "0.1")).plan(DAY)
    steps = parsed(plan)
    rows = steps["preprocess"].output
    assert steps["preprocess"].input == "/data/2026-11-24"
    assert steps["train"].source.location == f"{rows}/split=train"
    assert steps["evaluate"].source.location == f"{rows}/split=test"
    assert steps["score"].source.location == rows
    assert steps["train"].output == steps["evaluate"].model == steps["score"].model == plan.candidate
    assert steps["evaluate"].output == plan.evaluation
    assert steps["train"].tol == 0.1
    assert (steps["preprocess"].labels, steps["preprocess"].color, steps["preprocess"].parts) == ("no,yes", "rgb", 2)
    assert steps["train"].initial_model is None
    assert steps["evaluate"].baseline is None
    assert {args.output for args in steps.values()} == {
        f"/out/runs/2026-11-25T00-00-00/{name}" for name in ("rows", "train", "evaluate", "scores")
    }


def test_the_accepted_model_is_where_training_starts_and_what_must_be_reached(accepted):
    steps = parsed(pipeline(tolerance=0.05, min_value=0.5, metric="f1").plan(DAY))
    assert steps["train"].initial_model == accepted.model
    assert steps["evaluate"].baseline == accepted.evaluation
    assert (steps["evaluate"].metric, steps["evaluate"].tolerance, steps["evaluate"].min_value) == ("f1", 0.05, 0.5)
    rerun = DataInterval(START - timedelta(days=1), START)  # the run that promoted it: it does not start from itself
    assert parsed(pipeline().plan(rerun))["train"].initial_model is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_pipeline_of_tables_is_made_of_the_jobs_own_flags(form, accepted):
    settings = {"rows": "/rows/{date}", "root": "/out", "held_out": "/held/{date}", "rows_format": form, "label": "y"}
    named = {} if form == "libsvm" else {"features": "a,b"}  # whose lines have no columns
    if form == "libsvm":
        settings["label"] = "label"
    plan = TablePipeline.of({**settings, **named, "train": ["--tol", "0.1"], "color": "gray"}).plan(DAY)
    found = {}
    for step in ("train", "evaluate", "score"):
        found[step] = JOBS[step].JOB.parser().read(getattr(plan, step))
        JOBS[step].JOB.check(found[step])
    assert {step: args.source.location for step, args in found.items()} == {
        "train": "/rows/2026-11-24",
        "evaluate": "/held/2026-11-24",
        "score": "/rows/2026-11-24",
    }
    assert {args.source.kind for args in found.values()} == {form}
    roles = ("label", "features") if form == "libsvm" else ("y", "a,b")
    assert (found["train"].label, found["train"].features, found["train"].tol) == (*roles, 0.1)
    assert found["train"].initial_model == accepted.model
    assert found["evaluate"].baseline == accepted.evaluation
    assert found["train"].output == found["evaluate"].model == found["score"].model == plan.candidate
    assert plan.preprocess == []


def test_a_table_of_no_known_format_is_refused():
    with pytest.raises(ParameterError, match="rows_format must be"):
        TablePipeline("/rows", "/out", rows_format="xlsx")


def test_paths_are_those_of_the_interval():
    assert DAY.name == "2026-11-25T00:00:00+00:00"
    assert DAY.fill("{date} {start} {end}") == "2026-11-24 2026-11-24T00-00-00 2026-11-25T00-00-00"
    with pytest.raises(ParameterError, match="'/data/{day}' cannot be filled in: only {date}, {start} and {end}"):
        DAY.fill("/data/{day}")
    assert DataInterval.of(None, None, START) == DataInterval(START - timedelta(days=1), START)
    assert DataInterval.of(DAY.start, DAY.end, START) == DAY


def test_a_schedulers_parameters_are_the_pipelines():
    values = {"images": "/data", "root": "/out", "train": ["--tol", "1e-3"], "of_something_else": 1}
    assert Pipeline.of(values) == Pipeline("/data", "/out", train=("--tol", "1e-3"))


def test_a_scheduler_needs_no_spark():
    line = "import sys, sparkopt.jobs.pipeline as p; p.Pipeline('/i', '/o'); sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], cwd=ROOT, check=False).returncode == 0


def test_images_become_rows_with_labels_and_a_split(spark, digits, tmp_path):
    output, pixels, targets = tmp_path / "rows", *load_digits(return_X_y=True)
    flags = ["--input", f"{digits}/[0-4]", "--output", str(output), "--features", "--size", "8", "--parts", "1"]
    assert preprocess_images.main([*flags, "--labels", "4,3,2,1,0", "--test-fraction", "0.25"]) == 0
    rows = spark.read.parquet(str(output)).orderBy("path").toPandas()
    numbers = rows["path"].str.extract(r"/(\d+)\.png")[0].astype(int)
    assert sorted(numbers) == np.flatnonzero(targets <= 4).tolist()
    assert rows["label"].tolist() == (4.0 - targets[numbers]).tolist()
    expected = np.round(pixels[numbers] * (255 / 16)) / 255
    np.testing.assert_allclose(np.stack(rows["features"]), expected, atol=1e-6)
    share = (rows["split"] == "test").mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(rows))
    assert {path.name for path in output.iterdir()} >= {"split=train", "split=test"}


def test_a_folder_that_is_no_label_is_told():
    with pytest.raises(DataError, match="--input has images of '4'; --labels are 0, 1, 2, 3"):
        ordered_names(["0", "1", "4"], "0,1,2,3")
    assert ordered_names(["b", "a"], "") == ["a", "b"]
