"""SIGKILL: the same call goes on from the latest checkpoint, to the weights of a training that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keras.killed import fitted

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("kills", "minutes")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_goes_on_to_the_same_weights(keras, tmp_path, processes):
    folder = str(tmp_path / "killed")
    command = [sys.executable, "-m", "tests.keras.killed", folder, str(processes)]
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    found, undisturbed = fitted(folder, processes), fitted(str(tmp_path / "calm"), processes)
    assert found.summary.receipt.resumed is not None
    assert undisturbed.summary.receipt.resumed is None
    assert found.summary.objectiveHistory == undisturbed.summary.objectiveHistory
    assert found.weights == undisturbed.weights
