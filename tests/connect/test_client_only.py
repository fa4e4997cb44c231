"""Other packages than pyspark bring pyspark: pyspark-client and databricks-connect, without a JVM or py4j."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.connect.connect_data import dense, fitted

ROOT = Path(__file__).parents[2]


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
