"""Jobs as users run them: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyspark

ROOT = Path(__file__).parents[2]
SPARK = Path(pyspark.__file__).parent
SUBMIT = SPARK / "bin" / "spark-submit"


def environment() -> dict[str, str]:
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    return {**os.environ, **python, "SPARK_HOME": str(SPARK)}


def command(job: str, *flags: str, settings: dict[str, str] | None = None, profile: str = "local") -> list[str]:
    """The line that submits a job."""
    given = [part for key, value in (settings or {}).items() for part in ("--conf", f"{key}={value}")]
    return [str(SUBMIT), "--properties-file", f"conf/{profile}.conf", *given, f"jobs/{job}.py", *flags]


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
