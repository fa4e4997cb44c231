"""Every benchmark runs, with a table of a few rows: what it times is not looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.jobs.running import ROOT, SUBMIT, environment

SMALL = ("--rows", "2000", "--features", "4")
SUBMITTED = {
    "engines": ("--sizes", "2000x4", "--growth", "", "--runs", "1"),
    "folds": (*SMALL, "--models", "2", "--runs", "1"),
    "grid": (*SMALL, "--models", "2", "--runs", "1"),
    "images": ("--small", "4", "--large", "1", "--rounds", "1", "--folder", "images"),
    "ingest": (*SMALL, "--runs", "1"),
    "linear": (*SMALL, "--runs", "1"),
    "optimum": ("--only", "diabetes", "--repeats", "1"),
    "score": (*SMALL, "--runs", "1"),
    "sparse": ("--rows", "500", "--features", "1000", "--partitions", "2"),
    "warm_start": (*SMALL, "--only", "logistic"),
}
"""Those that spark-submit runs, and flags for small ones."""
ALONE = {
    "codecs": (),
    "cold": (*SMALL, "--runs", "1"),
    "compression": ("--help",),  # minutes, on limited links
    "drop_in": ("--rows", "500", "--runs", "1"),
    "deep": ("--help",),  # see the test below
    "larger_than_memory": ("--help",),  # tests/machine has a smaller one
    "local_steps": ("--help",),
    "keras_epoch": ("--help",),  # Keras is in an environment of its own
    "machine": (*SMALL, "--runs", "1", "--works", "small"),
    "flink": ("--help",),  # PyFlink is in an environment of its own
    "frameworks": (*SMALL, "--runs", "1", "--sides", "sparkopt", "spark", "scikit-learn"),
    "path": (*SMALL, "--runs", "1"),
    "optimizers": ("--steps", "5", "--only", "adam", "prodigy"),
    "recovery": ("--runs", "1", "--rows", "480", "--at", "15", "--hidden", "8", "--pause", "0"),
    "raw": ("--rows", "50000", "--runs", "1", "--sides", "sparkopt", "scikit-learn"),
    "transport": ("--help",),
}
"""Those that are processes of their own."""
SAYS = {"images": "geometry composed", "path": "times path", "raw": "times sparkopt"}
"""What is in the output of those without a table."""
TABLE = "| --- |"
PARTS = {"machine_tables", "network", "plain_ddp"}
"""Modules that others import or start."""


def run(folder, line):
    (folder / "conf").symlink_to(ROOT / "conf")
    found = subprocess.run(
        line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=400, check=False
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    return found.stdout


def test_the_tables_name_every_benchmark():
    files = {path.stem for path in (ROOT / "jobs" / "bench").glob("*.py")}
    assert files == {*SUBMITTED, *ALONE, *PARTS}


@pytest.mark.usefixtures("jvms", "minutes")
@pytest.mark.parametrize("name", SUBMITTED)
def test_submitted_benchmarks_run(name, tmp_path):
    script = str(ROOT / "jobs" / "bench" / f"{name}.py")
    line = [str(SUBMIT), "--properties-file", "conf/local.conf", script, *SUBMITTED[name]]
    assert SAYS.get(name, TABLE) in run(tmp_path, line)


@pytest.mark.usefixtures("jvms", "minutes")
@pytest.mark.parametrize("name", ALONE)
def test_benchmarks_that_are_processes_run(name, tmp_path):
    said = run(tmp_path, [sys.executable, str(ROOT / "jobs" / "bench" / f"{name}.py"), *ALONE[name]])
    assert SAYS.get(name, TABLE) in said or ("--help" in ALONE[name] and "usage:" in said)


@pytest.mark.usefixtures("horovod", "minutes")
def test_the_benchmark_of_networks_runs(tmp_path, shared_data):
    script = str(ROOT / "jobs" / "bench" / "deep.py")
    flags = ("--epochs", "2", "--rounds", "1", "--starts", "1", "--data", str(shared_data / "mnist-10k"))
    line = [str(SUBMIT), "--properties-file", "conf/local.conf", script, *flags]
    assert TABLE in run(tmp_path, line)
