"""SIGKILL: the same call goes on from the latest checkpoint, to the weights of a training that was left alone.

So it does with a mesh of all ranks, of which each has two virtual devices: JAX's own runtime loses a process then.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparkopt.errors import LostRankError
from tests.keras import networks
from tests.keras.killed import fitted

ROOT = Path(__file__).parents[2]
TWO_DEVICES = "--xla_force_host_platform_device_count=2"
pytestmark = pytest.mark.usefixtures("kills", "minutes")


@pytest.fixture
def joined(backend, monkeypatch):
    """A mesh of all ranks, with two devices each."""
    if backend != "jax":
        pytest.skip("a mesh of all ranks is JAX's")
    monkeypatch.setenv("XLA_FLAGS", TWO_DEVICES)
    return "ranks"


def script(keras, module, *arguments):
    """Run a module of the tests; return how it ended."""
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": path}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def check_same(found, undisturbed):
    assert found.summary.receipt.resumed is not None
    assert undisturbed.summary.receipt.resumed is None
    assert found.summary.objectiveHistory == undisturbed.summary.objectiveHistory
    assert found.weights == undisturbed.weights


def killed_driver(keras, folder, processes, mesh):
    done = script(keras, "tests.keras.killed", folder / "killed", processes, mesh)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    check_same(*[fitted(str(folder / name), processes, mesh) for name in ("killed", "calm")])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_goes_on_to_the_same_weights(keras, tmp_path, processes):
    killed_driver(keras, tmp_path, processes, "process")


def test_so_does_one_of_a_mesh_of_all_ranks(keras, joined, tmp_path):
    killed_driver(keras, tmp_path, 2, joined)


def mortal(folder, victim, **options):
    """Train until one rank kills itself, once in a folder."""
    module = functools.partial(networks.mortal, str(folder), victim)
    return fitted(str(folder / "checkpoints"), 2, "ranks", module=module, epochs=12, **options)


@pytest.fixture(scope="module")
def calm(backend, tmp_path_factory):
    """What comes out where nobody is killed."""
    if backend != "jax":
        pytest.skip("a mesh of all ranks is JAX's")
    folder = tmp_path_factory.mktemp("calm")
    (folder / "witness").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", TWO_DEVICES)
        return mortal(folder, 0)


@pytest.mark.parametrize(("victim", "restarts"), [(0, 0), (1, 1)], ids=["JAX's coordinator", "another, maxRestarts"])
def test_a_killed_rank_of_a_mesh_of_all_ranks(joined, calm, tmp_path, victim, restarts):
    """The same call goes on, or with maxRestarts the call itself."""
    if not restarts:
        with pytest.raises(LostRankError, match="lost another rank|ended unexpectedly"):
            mortal(tmp_path, victim)
    found = mortal(tmp_path, victim, maxRestarts=restarts)
    assert found.summary.receipt.restarts == restarts
    check_same(found, calm)
