"""What a command says under spark-submit when a scheduler ends it: once, on standard error, with the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.running import ROOT, command, environment, heeding_interrupts

pytestmark = pytest.mark.usefixtures("jvms")


@pytest.mark.parametrize(("sent", "told", "code"), [(signal.SIGTERM, b"terminated", 143), (signal.SIGINT, b"", 130)])
def test_a_signal_is_told_on_standard_error(sent, told, code, tmp_path):
    """SIGINT ends the JVM of spark-submit too, which may pass the line on before; test_machine.py has it."""
    rows = {"x": np.arange(400.0) % 7, "label": np.arange(400.0) % 2}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    endless = ["--optimizer", "gd", "--engine", "driver", "--max-iter", "1000000", "--tol", "0"]
    flags = ["--parquet", str(tmp_path / "rows.parquet"), "--features", "x", *endless, "--log-format", "json"]
    line = command("train", *flags, "--output", str(tmp_path / "out"))
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        streams = {"stdout": stdout, "stderr": stderr, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(
            line, cwd=ROOT, env=environment(), start_new_session=True, preexec_fn=heeding_interrupts, **streams
        )
        try:
            wait_for(process, lambda: b'"begins"' in err.read_bytes())
            time.sleep(2)
            os.killpg(process.pid, sent)
            assert process.wait(60) == code
            wait_for(None, lambda: told in err.read_bytes())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert out.read_text() == ""
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name and path.name != "stdout"] == []


def wait_for(process, is_time):
    deadline = time.monotonic() + 120
    while not is_time():
        assert process is None or process.poll() is None, "the job ended too early"
        assert time.monotonic() < deadline, "the moment was not reached"
        time.sleep(0.1)
