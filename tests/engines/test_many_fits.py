"""A session that lives long: the fiftieth fit holds what the tenth held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

pytestmark = pytest.mark.usefixtures("jvms", "minutes")

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("SPARKOPT_TEST_FITS", "30"))
"""Fits; 150 is the full number."""
MEMORY = 32 << 20
"""Bytes that a process may have more of: allocators keep what they were given."""


@pytest.mark.timeout(1500)
def test_many_fits_leave_what_ten_left():
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests/engines/many_fits.py"), str(RUNS)]
    done = subprocess.run(
        script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    settled, end = found["settled"], found["end"]
    assert set(found["engines"]) == {"driver", "resident", "allreduce", "local"}
    for name in ("threads", "files", "ports", "cached", "workers"):
        assert end[name] <= settled[name], (name, settled, end)
    assert end["worker files"] <= settled["worker files"] + 2, (settled, end)
    for name in ("memory", "worker memory"):
        assert end[name] <= settled[name] + MEMORY, (name, settled, end)
    assert end["folders"] == end["temporary"] == []
    assert found["left"] == []
