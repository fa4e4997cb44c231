"""Jobs as users run them: in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
