"""Models saved in local mode: without Spark's jobs where the path is on this machine's disks, to the same files."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import AnalysisException

from sparkopt.io.metadata import read_metadata
from sparkopt.ml import LinearRegressionModel


def test_a_model_is_saved_on_the_disk_of_local_mode_without_a_job(spark, tmp_path):
    """To the same files as Spark writes, which refuses what it refuses."""
    model, context = LinearRegressionModel(np.array([[1.0, -2.5]]), np.array([0.5])), spark.sparkContext
    context.setJobGroup("saving here", "")
    try:
        model.save(str(tmp_path / "here"))
    finally:
        context.setJobGroup("", "")
    assert list(context.statusTracker().getJobIdsForGroup("saving here")) == []
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
