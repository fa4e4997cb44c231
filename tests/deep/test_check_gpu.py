"""The script that tries a GPU: its checks pass on a CPU, a broken one fails it, and without a device it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
QUICK = ["fit", "bf16", "NCCL", "processes", "transform", "checkpoint", "own step", "adapters", "images", "speed"]


def checked(*flags, **environment):
    return subprocess.run(
        [sys.executable, "jobs/check_gpu.py", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@pytest.mark.usefixtures("minutes")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_device_it_says_so():
    done = checked()
    assert done.returncode == 0
    assert done.stdout.startswith("There is no CUDA or ROCm device here: nothing was checked.")


@pytest.mark.usefixtures("minutes")
def test_its_checks_pass_on_a_cpu():
    """Two ranks on one CPU, by Gloo; AMP in fp16 is for GPUs."""
    done = checked("--device", "cpu", "--rows", "1500", "--only", *QUICK)
    lines = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line[1].strip() for line in lines] == QUICK
    assert {line[2].strip() for line in lines} == {"ok"}, done.stdout
    assert done.returncode == 0


@pytest.mark.usefixtures("jvms")
def test_spark_has_a_check_of_its_own():
    done = checked("--device", "cpu", "--rows", "500", "--only", "Spark")
    assert "| ok" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.usefixtures("minutes")
def test_a_check_that_fails_fails_it():
    """Too few rows to tell a precision from another."""
    done = checked("--device", "cpu", "--rows", "0", "--only", "fit")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert done.stdout.strip().endswith("1 failed: fit")
