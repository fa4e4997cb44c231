"""The progress bar looks whether somebody watches, and touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from sparkopt.solver.callbacks import _someone_watches


def test_looking_for_a_terminal_leaves_the_log_file_of_spark_submit_alone(tmp_path, monkeypatch):
    log = tmp_path / "job.log"
    log.write_text("what the job has printed so far")
    with log.open("a") as stream:
        submitter = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=stream)
    try:
        monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
        monkeypatch.setattr(os, "getppid", lambda: submitter.pid)
        assert not _someone_watches()
    finally:
        submitter.communicate(b"\n")
    assert log.read_text() == "what the job has printed so far"
