"""SIGKILL in the middle of a job: no half output, and the same command again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import numpy as np

from sparkopt.ml import LinearRegressionModel
from tests.jobs.running import ROOT, command, environment, submit


def kill_when(line: list[str], is_time) -> None:
    """Start a job, wait for a moment of it, and kill it with all its processes."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(line, cwd=ROOT, env=environment(), start_new_session=True, **quiet)
    deadline = time.monotonic() + 120
    try:
        while not is_time():
            assert process.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_training(table, tmp_path, spark):
    """Killed while it writes its outputs: new ones, and then others in the place of complete ones."""
    output = tmp_path / "out"
    flags = ["--parquet", table, "--features", "a,b", "--label", "y", "--loss", "squared_error"]
    flags += ["--output", str(output)]

    def is_writing() -> bool:
        return any(tmp_path.glob(".out.*.unfinished/model/*"))

    kill_when(command("train", *flags), is_writing)
    assert is_writing()
    assert not output.exists()

    run = submit("train", *flags)
    assert run.returncode == 0, run.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # what the killed run left is gone
    manifest = json.loads((output / "manifest.json").read_text())
    assert {*manifest["outputs"], "manifest.json"} == {path.name for path in output.iterdir()}
    model = LinearRegressionModel.load(str(output / "model"))
    np.testing.assert_allclose([*model.coefficients, model.intercept], [2, -1, 3], atol=1e-3)

    kill_when(command("train", *flags, "--reg-param", "0.5"), is_writing)
    assert json.loads((output / "manifest.json").read_text()) == manifest
    assert {*manifest["outputs"], "manifest.json"} == {path.name for path in output.iterdir()}
    again = LinearRegressionModel.load(str(output / "model"))
    assert (again.coefficients, again.intercept) == (model.coefficients, model.intercept)
