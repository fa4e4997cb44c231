"""Models saved in local mode: without Spark's jobs where the path is on this machine's disks, to the same files."""

from __future__ import annotations

import contextlib
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from pyspark.errors import AnalysisException
from pyspark.ml.feature import VectorAssembler

from sparkopt.io.metadata import read_metadata
from sparkopt.ml import (
    LinearRegression,
    LinearRegressionModel,
    LinearSVC,
    LogisticRegression,
    OneVsRest,
    Pipeline,
    PipelineModel,
    RegressionEvaluator,
    TableFeatures,
)

ROWS = pa.table({"city": ["a", "b", "a", "c"], "x": [0.0, 1.0, 2.0, 4.0], "label": [0.0, 1.0, 0.0, 2.0]})
STAGES = {
    "estimator": lambda: LogisticRegression(regParam=0.25),
    "features": TableFeatures,
    "features of rows": lambda: TableFeatures().fit(ROWS),
    "pipeline": lambda: Pipeline(stages=[TableFeatures(), LinearRegression(regParam=0.1)]),
    "pipeline of rows": lambda: Pipeline(stages=[TableFeatures(), LinearRegression(regParam=0.1)]).fit(ROWS),
    "pipelines": lambda: PipelineModel(stages=[Pipeline(stages=[TableFeatures()]).fit(ROWS)]),
    "rest": lambda: OneVsRest(classifier=LinearSVC(featuresCols=["x"])),
    "rest of rows": lambda: OneVsRest(classifier=LinearSVC(featuresCols=["x"])).fit(ROWS),
    "evaluator": lambda: RegressionEvaluator(metricName="mae"),
}


@contextlib.contextmanager
def takes_jobs(spark, expected):
    context = spark.sparkContext
    group = uuid4().hex
    context.setJobGroup(group, "")
    try:
        yield
    finally:
        context.setJobGroup("", "")
    assert bool(context.statusTracker().getJobIdsForGroup(group)) == expected


def facts_of(stage):
    """All that is saved of a stage, without what says when and where."""
    stages = stage.getStages() if hasattr(stage, "getStages") else getattr(stage, "stages", [])
    parts = [*stages, *getattr(stage, "models", [])]
    params = {param.name: value for param, value in stage.extractParamMap().items() if param.name != "classifier"}
    params.pop("stages", None)
    numbers = [array.tolist() for array in stage.arrays] if hasattr(stage, "arrays") else []
    encoder = stage.encoder.to_json() if hasattr(stage, "encoder") else None
    return [type(stage), stage.uid, params, numbers, encoder, [facts_of(part) for part in parts]]


@pytest.mark.parametrize("name", STAGES)
def test_what_is_ours_is_saved_and_loaded_without_a_job(spark, tmp_path, name):
    """Spark reads what was written here, and here is read what Spark wrote: the same."""
    stage = STAGES[name]()
    kind = type(stage)
    with takes_jobs(spark, False):
        stage.save(str(tmp_path / "here"))
        here = kind.load(str(tmp_path / "here"))
    with takes_jobs(spark, True):
        by_spark = kind.load(f"file:{tmp_path}/here")
        stage.save(f"file:{tmp_path}/spark")
    again = kind.load(str(tmp_path / "spark"))
    assert facts_of(here) == facts_of(by_spark) == facts_of(again) == facts_of(stage)


def test_stages_of_the_jvm_are_written_by_spark(spark, tmp_path):
    pipeline = Pipeline(
        stages=[VectorAssembler(inputCols=["x"], outputCol="features"), LinearRegression(regParam=0.1)]
    )
    with takes_jobs(spark, True):
        pipeline.save(str(tmp_path / "pipeline"))
        loaded = Pipeline.load(str(tmp_path / "pipeline"))
    assert loaded.getStages()[0].getOutputCol() == "features"


def test_a_model_is_saved_on_the_disk_of_local_mode_without_a_job(spark, tmp_path):
    """To the same files as Spark writes, which refuses what it refuses."""
    model = LinearRegressionModel(np.array([[1.0, -2.5]]), np.array([0.5]))
    with takes_jobs(spark, False):
        model.save(str(tmp_path / "here"))
    model.save(f"file:{tmp_path}/by Spark")
    facts = []
    for name in ("here", "by Spark"):
        loaded = LinearRegressionModel.load(f"{tmp_path}/{name}")
        assert all(np.array_equal(a, b) for a, b in zip(loaded.arrays, model.arrays, strict=True))
        facts.append(read_metadata(f"{tmp_path}/{name}"))
    assert facts[0] | {"timestamp": 0} == facts[1] | {"timestamp": 0}
    with pytest.raises(AnalysisException, match="already exists"):
        model.save(str(tmp_path / "here"))
    other = LinearRegressionModel(np.array([[3.0]]), np.array([0.0]))
    other.write().overwrite().save(str(tmp_path / "here"))
    assert LinearRegressionModel.load(str(tmp_path / "here")).numFeatures == 1
