"""A worker or executor that is killed at any moment of a fit or transform changes no bit, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyspark
import pytest

from tests.engines.kill_anywhere import PHASES, VICTIMS

pytestmark = pytest.mark.usefixtures("jvms", "kills", "minutes")

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SPARKOPT_TEST_KILLS", "1"))
"""Kills of each process in each phase; 20 is the full number."""


@pytest.mark.timeout(600 + 600 * KILLS)
@pytest.mark.parametrize("engine", ["driver", "resident", "allreduce", "local"])
def test_a_kill_at_a_random_moment_changes_nothing(engine):
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    pairs = [f"{engine}:{victim}" for victim in VICTIMS]
    script = [sys.executable, str(ROOT / "tests/engines/kill_anywhere.py"), str(KILLS), "1", *pairs]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    assert [one for one in found["results"] if one["same"] is not True] == []
    kills = Counter((one["victim"], one["killed"]) for one in found["results"])
    assert all(kills[victim, phase] >= KILLS for victim in VICTIMS for phase in PHASES), kills
    assert (found["left"], found["threads"], found["cached"]) == ([], [], 0)
