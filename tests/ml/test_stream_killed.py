"""A stream of Parquet files that is killed at ten random moments: the coefficients of one that is not, bit by bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest

from sparkopt.ml import LatestModel
from tests.ml.learn_stream import table

pytestmark = [pytest.mark.usefixtures("jvms", "minutes")]

ROOT = Path(__file__).parents[2]
FILES = 60
KILLS = 10
PATIENCE = 300.0
"""Seconds after which a process hangs."""


def start(arriving: Path, path: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.ml.learn_stream", str(arriving), str(path)]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True
        )


def learnt(path: Path) -> int:
    """How many batches are begun or learnt."""
    return len(list((path / "batches").glob("*.json")))


def killed(process: subprocess.Popen[bytes], path: Path, more: int, wait: float) -> bool:
    """Kill the process and its JVM, so many batches and seconds on; return whether it was still alive."""
    before, deadline = learnt(path), time.monotonic() + PATIENCE
    while learnt(path) < before + more and process.poll() is None:
        assert time.monotonic() < deadline, "nothing is learnt"
        time.sleep(0.005)
    time.sleep(wait)
    was_alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return was_alive


def bits(model):
    return [array.tobytes() for array in (*model.arrays, model.onlineState.coef)]


def test_killed_at_random_moments(tmp_path):
    arriving = tmp_path / "arriving"
    arriving.mkdir()
    for number in range(FILES):
        file = arriving / f"{number:03d}.parquet"
        pq.write_table(table(number), file)
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))
    whole = start(arriving, tmp_path / "whole", tmp_path / "whole.log")
    assert whole.wait(PATIENCE) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    draw, kills, log, path = random.Random(), 0, tmp_path / "killed.log", tmp_path / "killed"
    while kills < KILLS:
        process = start(arriving, path, log)
        was_alive = killed(process, path, draw.randint(1, 4), draw.uniform(0.0, 0.5))
        assert was_alive, f"it ended after {kills} kills: {log.read_text()[-3000:]}"
        kills += 1
    last = start(arriving, path, log)
    assert last.wait(PATIENCE) == 0, log.read_text()[-3000:]
    expected, found = LatestModel(str(tmp_path / "whole")).get(), LatestModel(str(path)).get()
    assert found.onlineState.batches == expected.onlineState.batches == FILES
    assert bits(found) == bits(expected)
    assert found.onlineState.to_bytes() == expected.onlineState.to_bytes()
    lines = [
        [json.loads(file.read_text()) for file in sorted((one / "batches").glob("*.json"))]
        for one in (path, tmp_path / "whole")
    ]
    assert lines[0] == lines[1]
    assert [line["batch"] for line in lines[0]] == list(range(FILES))
