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
callbacks, store = [end] if sys.argv[1] == "killed" else [], dict(storePath=sys.argv[2]) if sys.argv[2:] else {}
linear = functools.partial(torch.nn.Linear, 2, 1)
TorchEstimator(module=linear, epochs=1, callbacks=callbacks, **store).fit((X, X.sum(axis=1)))
"""


def fit(folder, how, *store):
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    environment.pop("SPARK_LOCAL_DIRS", None)
    return subprocess.run([sys.executable, "-c", FIT, how, *store], env=environment, check=False).returncode


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("is_shared", [False, True], ids=["temporary folder", "storePath"])
def test_the_next_fit_deletes_what_a_killed_one_left(tmp_path, is_shared):
    store = [str(tmp_path / "shared")] if is_shared else []
    assert fit(tmp_path, "killed", *store) == -9
    assert list(tmp_path.rglob("*.arrow"))
    assert not is_shared or list((tmp_path / "shared").rglob("*.arrow"))
    assert fit(tmp_path, "whole", *store) == 0
    assert not list(tmp_path.rglob("*.arrow"))
    assert not is_shared or not list((tmp_path / "shared").iterdir())
