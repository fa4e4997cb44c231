"""A fit whose process is killed leaves no rows behind: the next one deletes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIT = """
import functools, os, signal, sys
import numpy as np, torch
from sparkopt.deep import TorchEstimator

def end(progress):
    os.kill(os.getpid(), signal.SIGKILL)

X = np.ones((50, 2), np.float32)
callbacks = [end] if sys.argv[1] == "killed" else []
TorchEstimator(module=functools.partial(torch.nn.Linear, 2, 1), epochs=1, callbacks=callbacks).fit((X, X.sum(axis=1)))
"""


def fit(folder, how):
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    environment.pop("SPARK_LOCAL_DIRS", None)
    return subprocess.run([sys.executable, "-c", FIT, how], env=environment, check=False).returncode


@pytest.mark.usefixtures("minutes")
def test_the_next_fit_deletes_what_a_killed_one_left(tmp_path):
    assert fit(tmp_path, "killed") == -9
    assert list(tmp_path.rglob("*.arrow"))
    assert fit(tmp_path, "whole") == 0
    assert not list(tmp_path.rglob("*.arrow"))
