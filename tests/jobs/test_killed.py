"""SIGKILL while the outputs of a training take the place of complete ones; test_submitted.py kills every job."""

from __future__ import annotations

import json

import pytest

from sparkopt.ml import LinearRegressionModel
from tests.jobs.running import command, kill_when, submit

pytestmark = pytest.mark.usefixtures("jvms")


def test_complete_outputs_stay(table, tmp_path, spark):
    """The same command again, with another flag, is killed: what the first one left is whole."""
    output = tmp_path / "out"
    flags = ["--parquet", table, "--features", "a,b", "--label", "y", "--loss", "squared_error"]
    flags += ["--output", str(output)]
    run = submit("train", *flags)
    assert run.returncode == 0, run.stderr[-2000:]
    manifest = json.loads((output / "manifest.json").read_text())
    assert {*manifest["outputs"], "manifest.json"} == {path.name for path in output.iterdir()}
    model = LinearRegressionModel.load(str(output / "model"))
    assert [*model.coefficients, model.intercept] == pytest.approx([2, -1, 3], abs=1e-3)
    other = command("train", *flags, "--reg-param", "0.5", "--output-mode", "overwrite")
    kill_when(other, lambda: any(tmp_path.glob(".out.*.unfinished/model/*")))
    assert json.loads((output / "manifest.json").read_text()) == manifest
    assert {*manifest["outputs"], "manifest.json"} == {path.name for path in output.iterdir()}
    again = LinearRegressionModel.load(str(output / "model"))
    assert (again.coefficients, again.intercept) == (model.coefficients, model.intercept)
