"""Other packages than pyspark bring pyspark: pyspark-client and databricks-connect, without a JVM or py4j."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel

from sparkopt.ml import LogisticRegressionModel
from tests.connect.connect_data import FITS, dense, fitted, numbers, scored, searched

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / ".venv-client" / "bin" / "python"
"""Of an environment that has pyspark-client, and not pyspark."""


def test_everything_is_imported_and_tables_are_fitted_without_py4j():
    done = subprocess.run(
        [sys.executable, "-m", "tests.connect.client_only"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    assert found["remote only"]  # so the hook hides what pyspark-client does not have
    # Horovod is where it is built only; MLflow's registry needs MLflow
    assert {name: why for name, why in found["failed"].items() if "pyspark" in why or "py4j" in why} == {}
    assert found["hidden"] == []
    assert found["table"] == 2


@pytest.mark.usefixtures("jvms", "minutes")
def test_a_client_alone_fits_on_a_server(spark, client, tmp_path):
    fit = client("tests.connect.client_only", tmp_path)["fit"]
    np.testing.assert_allclose(fit["numbers"], fitted("local", dense(spark, 2))["numbers"], rtol=0)


WITHOUT = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):  # as if no package brought pyspark
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "pyspark" else super().find_spec(name, path, target)
sys.meta_path = [Finder if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
import sparkopt
"""


def test_where_no_package_brings_spark_the_packages_are_named():
    command, environment = [sys.executable, "-c", WITHOUT], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("sparkopt.errors.MissingDependencyError: sparkopt needs Spark's Python package")
    assert all(name in said for name in ("'spark'", "pyspark-client", "databricks-connect"))


@pytest.fixture(scope="module")
def installed(client, tmp_path_factory):
    """What a client reports that has pyspark-client; the tests of Connect ask the same of one that has pyspark."""
    if not CLIENT.exists():
        pytest.skip("there is no environment with pyspark-client here: make test-client")
    folder = tmp_path_factory.mktemp("installed")
    return client("tests.connect.connect_client", folder, python=str(CLIENT)), folder


@pytest.mark.usefixtures("jvms", "minutes")
def test_pyspark_client_fits_scores_and_searches_to_the_same_bits(spark, installed, tmp_path):
    found, _ = installed
    for name, case in FITS.items():
        estimator, df = case(spark)
        assert found["fits"][name] == numbers(estimator.setEngine("driver").fit(df)), name
    expected = searched(spark)
    assert found["searched"]["best"] == expected["best"]
    np.testing.assert_allclose(found["searched"]["metrics"], expected["metrics"], rtol=1e-12)
    assert found["scored"] == scored(spark, str(tmp_path))
    assert found["pictures"]["predictions"] == found["pictures"]["shades"]
    assert found["survival"]["killed"] == found["survival"]["calm"]
    assert found["leftovers"] == []


@pytest.mark.usefixtures("jvms", "minutes")
def test_what_pyspark_client_saved_is_loaded_with_pyspark(spark, installed):
    found, folder = installed
    saved = found["persistence"]
    assert saved["loaded"] == saved["saved"] == numbers(LogisticRegressionModel.load(f"{folder}/model"))
    predictions = PipelineModel.load(f"{folder}/pipeline").transform(dense(spark, 2)).select("prediction").collect()
    assert [row.prediction for row in predictions] == saved["predictions"]
