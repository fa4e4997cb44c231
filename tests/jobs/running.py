"""Jobs as users run them: in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pyspark

ROOT = Path(__file__).parents[2]
SPARK = Path(pyspark.__file__).parent
SUBMIT = SPARK / "bin" / "spark-submit"


def environment() -> dict[str, str]:
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    return {**os.environ, **python, "SPARK_HOME": str(SPARK)}


def command(job: str, *flags: str, settings: dict[str, str] | None = None, profile: str = "local") -> list[str]:
    """The command line that submits a job: by its own script, or by the one for all commands."""
    script = [f"jobs/{job}.py"] if (ROOT / "jobs" / f"{job}.py").exists() else ["jobs/run.py", job.replace("_", "-")]
    given = [part for key, value in (settings or {}).items() for part in ("--conf", f"{key}={value}")]
    return [str(SUBMIT), "--properties-file", f"conf/{profile}.conf", *given, *script, *flags]


def submit(
    job: str, *flags: str, settings: dict[str, str] | None = None, profile: str = "local", timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(job, *flags, settings=settings, profile=profile),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Busy:
    """How long a process and its children have computed, or waited for a core: slow ones do, hung ones do not."""

    def __init__(self, process: int) -> None:
        self._process, self._known = process, dict[tuple[int, str], int]()
        self.more()

    def more(self) -> float:
        """Return the seconds since the last call, of all threads together."""
        found = dict[tuple[int, str], int]()
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self._process)
            for one in (root, *root.children(recursive=True)):
                for thread in Path(f"/proc/{one.pid}/task").glob("*"):
                    with contextlib.suppress(OSError):
                        computed, waited, _ = map(int, (thread / "schedstat").read_text().split())
                        found[one.pid, thread.name] = computed + waited
        more = sum(max(0, spent - self._known.get(thread, 0)) for thread, spent in found.items())
        self._known = found
        return more / 1e9


def run_unless_hung(
    line: list[str], environment: dict[str, str], silent: float = 240.0, part: float = 0.05
) -> subprocess.CompletedProcess[str]:
    """Run a command for as long as its processes do something, however slow the machine is.

    It is killed where, for ``silent`` seconds, they used and waited for less than ``part`` of a core.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True)
        busy, since, seconds = Busy(process.pid), time.monotonic(), 0.0
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                seconds += busy.more()
                if seconds > part * (time.monotonic() - since):
                    since, seconds = time.monotonic(), 0.0
                hung = time.monotonic() - since > silent
                assert not hung, f"{line} has done nothing for {silent:g} s: " + _tail(out) + _tail(err)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(line, process.returncode, out.read(), err.read())


def _tail(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()[-3000:]


def heeding_interrupts() -> None:
    """Heed SIGINT in a new process: what a shell runs in the background ignores it, and so does what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def kill_when(line: list[str], is_time: Callable[[], bool], log: Path = Path(os.devnull)) -> None:
    """Start a job, wait for a moment of it, and kill it with all its processes; its output goes to ``log``."""
    with log.open("wb") as output:
        streams = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(line, cwd=ROOT, env=environment(), start_new_session=True, **streams)
        deadline = time.monotonic() + 120
        try:
            while not is_time():
                assert process.poll() is None, "the job ended before it could be killed"
                assert time.monotonic() < deadline, "the moment was not reached"
                time.sleep(0.002)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
