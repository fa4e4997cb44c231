"""What only shows with executors in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark

ROOT = Path(__file__).parents[2]


def test_a_killed_executor_changes_nothing():
    """Its blocks are rebuilt from lineage elsewhere, and the coefficients are the same to the last bit."""
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests/spark/kill_executor.py"), str(ROOT / "conf/local.conf")]
    run = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    results = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, run.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    assert len(found["pids"]) == 1
    assert found["killed"] == found["calm"]
