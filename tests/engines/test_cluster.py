"""What only shows with executors in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyspark
import pytest

pytestmark = pytest.mark.usefixtures("jvms", "kills")

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> dict:
    """Run the script on a cluster of its own and return what it found."""
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests/engines/kill_executor.py"), str(ROOT / "conf/local.conf"), *arguments]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    return json.loads(results[0].removeprefix("RESULT "))


def test_a_killed_executor_changes_nothing():
    """Blocks are rebuilt from lineage, lost tasks or ranks begin again, and the fit ends where it would have."""
    found = run("driver:spark", "driver:arrow", "resident:spark", "resident:arrow", "allreduce:arrow")
    retried = found["retried"]
    assert [retried["coefficients"], retried["objective"]] == found["calm"]["arrow"]
    assert retried["left"] == {"1": False}  # that task failed, and no file of its first attempt is left
    for fit in found["fits"]:
        name = f"{fit['asked']}, {fit['reader']}"
        coefficients, objective = found["calm"][fit["reader"]]
        assert len(fit["pids"]) == 1, name
        assert fit["engine"] == fit["asked"]
        np.testing.assert_allclose(fit["objective"], objective, rtol=1e-12, err_msg=name)
        if fit["asked"] != "allreduce":  # which adds in another order
            assert fit["coefficients"] == coefficients, name
        np.testing.assert_allclose(fit["coefficients"], coefficients, rtol=1e-9, err_msg=name)
