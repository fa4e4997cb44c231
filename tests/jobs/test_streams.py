"""Standard error of a process whose parent has joined it with standard output, as spark-submit's JVM does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from py4j.protocol import Py4JNetworkError

from sparkopt.jobs.runtimes.machine import MachineRuntime
from sparkopt.jobs.runtimes.spark import SparkRuntime, essence, is_lost
from tests.jobs.running import ROOT

CHILD = """
import subprocess, sys
print("parent", file=sys.stderr, flush=True)
done = subprocess.run([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
sys.stdout.write(done.stdout.decode())
print("parent again", file=sys.stderr, flush=True)
"""
PROCESS = """
import sys
from sparkopt.launch.streams import own_standard_error
own_standard_error()
print("a result", flush=True)
print("a failure", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("to", ["pipe", "appended file", "file"])
@pytest.mark.parametrize("submitted", [True, False])
def test_logs_go_where_those_of_the_jvm_go(to, submitted, tmp_path, monkeypatch):
    """Also to a file that the JVM writes over where another process appends; here no JVM answers."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    if submitted:
        monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
        monkeypatch.setenv("PYSPARK_GATEWAY_SECRET", "none")
    log = tmp_path / "log"
    line = [sys.executable, "-c", CHILD, PROCESS]
    with log.open("ab" if to == "appended file" else "wb") as file:
        where = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=where, cwd=ROOT, check=True, timeout=120)
    errors = (done.stderr if to == "pipe" else log.read_bytes()).decode().splitlines()
    assert done.stdout.decode().splitlines() == (["a result"] if submitted else ["a result", "a failure"])
    if to != "file":
        assert errors == ["parent", *["a failure"] * submitted, "parent again"]
    elif submitted:
        assert errors[0] == "parent"


class Gone(Exception):
    """An error of a JVM that has ended: its text is there."""

    def __str__(self):
        raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("error", "lost"),
    [(Py4JNetworkError("Answer from Java side is empty"), True), (Gone(), True), (OSError("disk full"), False)],
)
def test_the_end_of_spark_submit_is_told_from_other_failures(error, lost, monkeypatch):
    assert is_lost(error) is lost
    assert ("JVM has ended" in essence(error)) is lost
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    assert not SparkRuntime.has_ended(error)
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert SparkRuntime.has_ended(error) is lost
    assert not MachineRuntime.has_ended(error)


def test_a_reader_of_standard_output_that_leaves_is_not_the_end_of_the_jvm():
    assert "Broken pipe" in essence(BrokenPipeError(32, "Broken pipe"))
