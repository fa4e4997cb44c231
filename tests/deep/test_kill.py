"""SIGKILL, of a rank, an executor or the driver: one clear error, nothing left behind, and a rerun that continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyspark
import pytest

from sparkopt.errors import LostRankError
from tests.deep.killing import ROOT, calm, estimator, rows
from tests.tiers import needs

pytestmark = pytest.mark.usefixtures("jvms", "kills")

RESUMED = "epoch-000001-step-000000010"
"""The last checkpoint before step 33 of epochs of 20 steps."""
FINISHED = "epoch-000003-step-000000000"
LAUNCHERS = ["torch", pytest.param("horovod", marks=needs("horovod"))]


@pytest.fixture(scope="module")
def undisturbed(spark, tmp_path_factory):
    """What an undisturbed run gives; half the sum of two numbers is the same number under every launcher."""
    return estimator(calm(tmp_path_factory.mktemp("calm")), "torch").fit(rows(spark))


def ranks_and_sockets() -> tuple[set[int], set[tuple[int, str]]]:
    """Processes below the driver that hold PyTorch's library, and the sockets that the driver listens on."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
        except (OSError, psutil.Error):
            continue
        if "libtorch_cpu" in maps:
            found.add(process.pid)
    listening = {(c.laddr.port, c.status) for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"}
    return found, listening


def until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_rank(spark, tmp_path, undisturbed, launcher):
    """The error comes within a minute, its processes and sockets are gone, and the same call continues."""
    df = rows(spark)
    processes, sockets = ranks_and_sockets()
    trained = estimator(tmp_path, launcher)
    begin = time.monotonic()
    with pytest.raises(LostRankError, match=r"rank \d lost another rank|a process of 2 ended unexpectedly"):
        trained.fit(df)
    assert time.monotonic() - begin < 60
    assert not psutil.pid_exists(int((tmp_path / "witness").read_text()))
    assert until(lambda: ranks_and_sockets()[0] <= processes, 20)
    assert ranks_and_sockets()[1] <= sockets
    assert not list((tmp_path / "rows").iterdir())
    again = trained.fit(df)
    assert again.summary.receipt.resumed == RESUMED
    assert again.summary.objectiveHistory == undisturbed.summary.objectiveHistory
    assert again.weights == undisturbed.weights


def test_a_killed_rank_is_started_again(spark, tmp_path, undisturbed, caplog):
    """maxRestarts: the call itself continues from the checkpoint."""
    found = estimator(tmp_path, "torch", maxRestarts=1).fit(rows(spark))
    assert (found.summary.receipt.restarts, found.summary.receipt.resumed) == (1, RESUMED)
    assert "Starting again (1 of 1)" in caplog.text
    assert found.weights == undisturbed.weights


def script(*arguments: str, mark: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.deep.killing", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, "SPARKOPT_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def marked(mark: str) -> list[psutil.Process]:
    """Processes that have the mark in their environment: the script's, whoever is their parent now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPARKOPT_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_driver(spark, tmp_path, undisturbed, launcher):
    """Nothing outlives it for long, and the same call made by another driver continues."""
    process = script("driver", str(tmp_path), launcher, mark=str(tmp_path))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors[-3000:]
    assert until(lambda: not marked(str(tmp_path))), marked(str(tmp_path))
    again = estimator(tmp_path, "torch").fit(rows(spark))
    assert RESUMED <= again.summary.receipt.resumed < FINISHED
    assert again.weights == undisturbed.weights


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_executor(tmp_path, undisturbed, launcher):
    """The error comes within a minute, and the same call continues, on executors that are left or new."""
    process = script("executor", str(tmp_path), launcher)
    output, errors = process.communicate(timeout=200)
    found = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    assert found, errors[-3000:]
    facts = json.loads(found[0])
    assert "lost" in facts["error"], facts
    assert facts["seconds"] < 60
    assert RESUMED <= facts["resumed"] < FINISHED
    assert facts["weights"][0] == facts["weights"][1]
