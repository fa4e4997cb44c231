"""The main job as users run it: through spark-submit."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from sparkopt.integrations.pyfunc import _load_pyfunc
from sparkopt.jobs import train
from sparkopt.jobs.runtimes.base import InputRows
from sparkopt.jobs.runtimes.machine import MachineRuntime
from sparkopt.machine import Table
from tests.jobs.running import submit


@pytest.mark.usefixtures("jvms")
def test_digits_from_png_files_to_a_model(digits, tmp_path):
    """The output is written to a folder with other files, which stay."""
    (tmp_path / "mine.txt").write_text("stays")
    flags = ["--image-size", "8", "--reg-param", "0.001", "--max-iter", "60", "--tol", "1e-5"]
    run = submit("train", "--images", str(digits), *flags, "--output", str(tmp_path))
    assert run.returncode == 0, run.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["held_out"]["accuracy"] >= 0.95
    assert metrics["labels"] == [str(digit) for digit in range(10)]
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["features"] == 64
    assert receipt["rows"] + metrics["held_out"]["rows"] == 1797
    assert "objective" in (tmp_path / "receipt.txt").read_text()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert _load_pyfunc(str(tmp_path / "model")).model.numClasses == 10
    assert (tmp_path / "mine.txt").read_text() == "stays"
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["data"]["data"]["files"] == 1797
    assert {*manifest["outputs"], "manifest.json", "mine.txt"} == {path.name for path in tmp_path.iterdir()}


def test_every_loss_has_an_estimator():
    """Each one fits labels that it is defined on, called as the job calls it."""
    number = np.arange(60)
    columns = {"a": number % 7, "y": (number % 7 > 3).astype(float), "positive": number % 7 + 1.0}
    rows = Table.of(pa.table(columns))
    for loss in train.ESTIMATORS:
        label = "y" if loss in train.CLASSIFIERS else "positive"
        flags = ["--parquet", "unread", "--loss", loss, "--max-iter", "50", "--tol", "0.01", "--reg-param", "0.01"]
        given = InputRows(rows, ["a"], label)
        model = train.estimator(train.JOB.parser().read(flags), given).fit(given.rows)
        with MachineRuntime().scored(model, rows, label) as outcome:
            metrics = outcome.metrics()
        assert metrics.get("accuracy", metrics.get("r2")) > 0.7, loss
