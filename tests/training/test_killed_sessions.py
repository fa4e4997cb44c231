"""A driver that is killed at any moment: the next session gives the same bits and sweeps what was left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
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

    def __init__(self, kind: str, folder: Path, number: int) -> None:
        (folder / "local").mkdir(exist_ok=True)
        environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
        environment["TMPDIR"] = str(folder / "local")
        command = [sys.executable, "-m", "tests.training.killed_session", kind, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (folder / f"log-{number}").open("w") as log:
            self.log = Path(log.name)
            self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=log, **pipes)
        self.result: dict = {}
        self.phases: list[str] = []

    def fit(self, times: int) -> None:
        """Let it fit so often; it starts before."""
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def until(self, phase: str) -> float:
        """Read what it says until a phase begins; the time."""
        for line in self.process.stdout:
            self._note(line)
            if line == f"PHASE {phase}\n":
                return time.monotonic()
        raise AssertionError(f"{phase} is not reached: {self.log.read_text()[-3000:]}")

    def kill(self) -> list[psutil.Process]:
        """Kill it, and nothing that it started; return those. The last of its phases is the one that it was in."""
        self.process.send_signal(signal.SIGSTOP)  # it stays at this moment while they are looked up
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.end()
        return started

    def end(self) -> None:
        for line in self.process.stdout:
            self._note(line)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _note(self, line: str) -> None:
        kind, _, said = line.partition(" ")
        if kind == "RESULT" and not self.result:  # that of the fit which a killed session has left
            self.result = json.loads(said)
        if kind == "PHASE":
            self.phases.append(said.strip())


class Sessions:
    """Sessions that finish what the one before them has left, and are killed in their next fit."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.chance = kind, folder, random.Random(5)
        self.kills: Counter[str] = Counter()
        self.found: list[dict] = []
        self.orphans: list[psutil.Process] = []
        self.kept = self.number = 0
        self.following = Session(kind, folder, 0)

    def next(self) -> Session:
        """Return the next session; the one after it starts meanwhile."""
        session, self.number = self.following, self.number + 1
        self.following = Session(self.kind, self.folder, self.number)
        return session

    def measure(self) -> None:
        """Let a session fit twice, undisturbed."""
        session = self.next()
        session.fit(2)
        session.until("end")
        self.calm = session.result
        began = [session.until(phase) for phase in (*PHASES, "end")]
        session.end()
        assert session.process.returncode == 0, session.log.read_text()[-3000:]
        self.seconds = {phase: began[place + 1] - began[place] for place, phase in enumerate(PHASES)}

    def kill_in(self, phase: str) -> None:
        """Kill a session at a random moment of a phase, or a little later."""
        session = self.next()
        session.fit(2)
        session.until("end")
        session.until(phase)
        time.sleep(self.chance.random() * self.seconds[phase])
        self.orphans += session.kill()
        self.note(session)
        self.kept = newest_checkpoint(self.folder)
        self.kills[session.phases[-1]] += 1

    def finish(self) -> None:
        """Let a session finish what the last one has left."""
        session = self.following
        session.fit(1)
        session.end()
        assert session.process.returncode == 0, session.log.read_text()[-3000:]
        self.note(session)

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *error: object) -> None:
        self.following.process.kill()
        self.following.process.wait()

    def note(self, session: Session) -> None:
        self.found.append({"kept": self.kept, **session.result, "killed": session.phases[-1]})
        print(json.dumps(self.found[-1]), file=sys.stderr, flush=True)


def newest_checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint that a killed session has left, or 0."""
    steps = [path.stem.removeprefix("step-") for path in (folder / "checkpoints").rglob("*.checkpoint")]
    return max(map(int, steps), default=0)


def left(folder: Path) -> list[str]:
    """Files of sparkopt's that no process uses any more, and checkpoints."""
    files = [*(folder / "local").rglob("sparkopt-*"), *(folder / "checkpoints").rglob("*")]
    return sorted(str(path) for path in files)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; by now its number may be another one's, or a thread's, for which psutil cannot wait."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_kills(kind: str, folder: Path) -> None:
    """Kill sessions in each phase; ``kind`` is as of killed_session.py."""
    write_rows(folder / "rows")
    with Sessions(kind, folder) as sessions:
        sessions.measure()
        while min(sessions.kills[phase] for phase in PHASES) < KILLS:
            # The phase with the fewest: a kill counts where it came, which may be when its phase was over.
            sessions.kill_in(min(PHASES, key=lambda phase: sessions.kills[phase]))
        sessions.finish()
    print(sessions.kills, file=sys.stderr)
    for one in sessions.found:
        assert (one["numbers"], one["ones"]) == (sessions.calm["numbers"], sessions.calm["ones"]), one
        assert one["resumed"] == one["kept"], one
    deadline = time.monotonic() + 60
    while running := [one for one in sessions.orphans if is_alive(one)]:
        assert time.monotonic() < deadline, running
        time.sleep(0.2)
    assert left(folder) == []


@pytest.mark.timeout(900 + 600 * KILLS)
@pytest.mark.parametrize("kind", ["machine", "spark"])
def test_a_killed_driver_changes_nothing(kind, tmp_path):
    check_kills(kind, tmp_path)
