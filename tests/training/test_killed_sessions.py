"""A driver that is killed at any moment: the next session gives the same bits and sweeps what was left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyspark
import pytest

from tests.training.killed_session import PHASES, write_rows

pytestmark = [pytest.mark.usefixtures("kills", "jvms", "minutes")]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SPARKOPT_TEST_KILLS", "1"))
"""Kills in each phase; 20 is the full number."""


class Session:
    """A process of killed_session.py, which its own processes and files outlive where it is killed."""

    def __init__(self, kind: str, folder: Path, second: str) -> None:
        (folder / "local").mkdir(exist_ok=True)
        environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
        environment["TMPDIR"] = str(folder / "local")
        command = [sys.executable, "-m", "tests.training.killed_session", kind, str(folder), second]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.result: dict = {}

    def until(self, phase: str) -> float:
        """Read what it says until a phase begins; the time."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                self.result = json.loads(line.removeprefix("RESULT "))
            if line.strip() == phase:
                return time.monotonic()
        self.log.seek(0)
        raise AssertionError(f"{phase} is not reached: {self.log.read()[-3000:]}")

    def kill(self) -> list[psutil.Process]:
        """Kill it, and nothing that it started; return those."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.end()
        return started

    def end(self) -> None:
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def measured(session: Session) -> dict[str, float]:
    """Let a session run to its end; the seconds of each phase of its second fit."""
    session.until("PHASE over")
    began = [session.until(f"PHASE {phase}") for phase in (*PHASES, "end")]
    assert session.process.wait() == 0
    session.end()
    return {phase: began[place + 1] - began[place] for place, phase in enumerate(PHASES)}


def left(folder: Path) -> list[str]:
    """Files of sparkopt's that no process uses any more, and checkpoints."""
    files = [*(folder / "local").rglob("sparkopt-*"), *(folder / "checkpoints").rglob("*.checkpoint")]
    return sorted(str(path) for path in files)


@pytest.mark.timeout(900 + 600 * KILLS)
@pytest.mark.parametrize("kind", ["machine"])
def test_a_killed_driver_changes_nothing(kind, tmp_path):
    write_rows(tmp_path / "rows")
    chance, found = random.Random(5), []
    calm = Session(kind, tmp_path, "second")
    seconds = measured(calm)
    expected = calm.result
    orphans: list[psutil.Process] = []
    for phase in [*PHASES * KILLS, ""]:
        session = Session(kind, tmp_path, "second" if phase else "")
        session.until("PHASE over")
        if phase:
            session.until(f"PHASE {phase}")
            time.sleep(chance.random() * seconds[phase])
            orphans += session.kill()
        else:
            session.process.wait()
            session.end()
        found.append({"phase": phase, **session.result})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    assert [one for one in found if (one["numbers"], one["ones"]) != (expected["numbers"], expected["ones"])] == []
    assert sum(one["resumed"] > 0 for one in found) >= KILLS  # after "last pass", at least
    _, running = psutil.wait_procs(orphans, timeout=60)
    assert running == []
    assert left(tmp_path) == []
