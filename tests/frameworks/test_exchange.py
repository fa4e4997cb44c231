"""A model that is trained on one framework, this machine or Spark, is saved, and scored by each of the others."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.frameworks.conftest import CLUSTERS
from tests.frameworks.exchange import MODELS, SAVED, rows

pytestmark = pytest.mark.usefixtures("jvms", "minutes")

Scores = Mapping[str, Mapping[str, np.ndarray]]
"""By who scored, of each model."""


def pythons() -> dict[str, str]:
    """Return the Python of each framework that is on this machine: this one, or that of its own environment."""
    found = {"this machine": sys.executable, "spark": _python("", "pyspark")}
    found |= {name: _python(f"-{name}", package) for name, (package, _) in CLUSTERS.items()}
    return {name: python for name, python in found.items() if python}


def _python(environment: str, package: str) -> str:
    if environment and importlib.util.find_spec(package) is not None:
        return sys.executable
    found = ROOT / f".venv{environment}" / "bin" / "python"
    return str(found) if found.exists() else ""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """What each made of the models of all, which they saved before."""
    folder, running = tmp_path_factory.mktemp("exchange"), dict[str, subprocess.Popen[str]]()
    try:
        for name, python in pythons().items():  # one after the other: each takes all cores as it starts
            running[name] = _started(name, python, folder)
            _wait_for(running[name], folder / f"{name}.log")
        for name, process in running.items():
            process.communicate("\n", timeout=300)
            assert process.returncode == 0, (folder / f"{name}.log").read_text()[-3000:]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return {name: dict(np.load(folder / f"{name}.npz")) for name in running}


def _started(name: str, python: str, folder: Path) -> subprocess.Popen[str]:
    variables = {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python}
    # of another environment's Spark; and PyFlink notes in its process that a job's functions run there
    other = ("SPARK_HOME", "PYFLINK_GATEWAY_DISABLED")
    environment = {key: value for key, value in os.environ.items() if key not in other} | variables
    command = [python, "-m", "tests.frameworks.exchange", name, str(folder)]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
        )


def _wait_for(process: subprocess.Popen[str], log: Path) -> None:
    assert process.stdout is not None
    assert any(line.strip() == SAVED for line in process.stdout), log.read_text()[-3000:]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CLUSTERS)
def test_models_of_a_framework_are_scored_by_all_and_those_of_all_by_it(name: str, scores: Scores):
    if name not in scores:
        pytest.skip(f"{name} is not installed here: make test-{name}")
    everyone = {f"{who}: {kind}" for who in scores for kind in MODELS}
    assert set(scores[name]) == everyone
    for who, found in scores.items():
        for model in everyone:
            if name in (who, model.partition(":")[0]):
                np.testing.assert_array_equal(
                    found[model], scores["this machine"][model], err_msg=f"{who} of {model}"
                )


@pytest.mark.parametrize("name", CLUSTERS)
def test_these_models_are_some(name: str, scores: Scores):
    if name not in scores:
        pytest.skip(f"{name} is not installed here: make test-{name}")
    frame = rows()
    for kind, label in {"raw columns": "label", "three classes": "three"}.items():
        found = scores["this machine"][f"{name}: {kind}"]
        assert np.mean(found == frame[label]) > 0.7
        assert set(found) == set(frame[label])
    line = scores["this machine"][f"{name}: a line"]
    assert np.corrcoef(line, frame["line"])[0, 1] > 0.99
