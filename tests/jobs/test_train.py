"""The main job as users run it: through spark-submit, with good and with wrong input."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

ROOT = Path(__file__).parents[2]
SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"


def submit(*flags: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    environment["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    command = [str(SUBMIT), "--properties-file", "conf/local.conf", "jobs/train.py", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "jobs/digits.py", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_digits_from_png_files_to_a_model(digits, tmp_path, spark):
    run = submit(
        "--images",
        str(digits),
        "--image-size",
        "8",
        "--reg-param",
        "0.001",
        "--max-iter",
        "60",
        "--tol",
        "1e-5",
        "--output",
        str(tmp_path),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["held_out"]["accuracy"] >= 0.95
    assert metrics["labels"] == [str(digit) for digit in range(10)]
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["features"] == 64
    assert receipt["rows"] + metrics["held_out"]["rows"] == 1797
    assert "objective" in (tmp_path / "receipt.txt").read_text()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    from sparkopt.ml import LogisticRegressionModel

    assert LogisticRegressionModel.load(str(tmp_path / "model")).numClasses == 10


def test_a_table_of_numbers_and_a_regression(tmp_path, spark):
    table = spark.range(400).selectExpr("id % 7 as a", "id % 5 as b", "2.0 * (id % 7) - (id % 5) + 3 as y")
    table.write.parquet(str(tmp_path / "rows"))
    run = submit(
        "--parquet",
        str(tmp_path / "rows"),
        "--features",
        "a,b",
        "--label",
        "y",
        "--loss",
        "squared_error",
        "--optimizer",
        "adam",
        "--step-size",
        "0.2",
        "--step-size-schedule",
        "cosine",
        "--max-iter",
        "60",
        "--output",
        str(tmp_path / "out"),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"]["r2"] > 0.99


WRONG = {
    "unknown flag": (["--parquet", "x", "--optimiser", "adam"], 2, "unrecognized arguments: --optimiser"),
    "unknown optimiser": (["--parquet", "x", "--optimizer", "adma"], 2, "invalid choice: 'adma'"),
    "no data": ([], 2, "one of the arguments --images --parquet is required"),
    "out of range": (["--parquet", "x", "--reg-param=-1"], 2, "regParam must be >= 0. Got -1.0 instead."),
    "missing input": (["--parquet", "/nowhere/rows"], 1, "cannot read '/nowhere/rows'"),
    "missing images": (["--images", "/nowhere/images"], 1, "cannot read '/nowhere/images'"),
}


@pytest.mark.parametrize(("flags", "code", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_answered_with_one_line(flags, code, message, tmp_path):
    run = submit(*flags, "--output", str(tmp_path / "out"))
    # spark-submit sends both of the job's streams to its own standard output
    said = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("train.py: error")]
    assert run.returncode == code
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()


def test_every_loss_has_an_estimator(spark, tmp_path):
    """Each one fits labels that it is defined on, called as the job calls it."""
    specification = importlib.util.spec_from_file_location("train", ROOT / "jobs/train.py")
    job = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(job)
    rows = spark.range(60).selectExpr("id % 7 as a", "cast(id % 7 > 3 as double) as y", "id % 7 + 1.0 as positive")
    for loss in job.ESTIMATORS:
        label = "y" if loss in job.CLASSIFIERS else "positive"
        flags = ["--parquet", "unread", "--features", "a", "--label", label, "--loss", loss, "--max-iter", "50"]
        args = job.parser().parse_args([*flags, "--tol", "0.01", "--reg-param", "0.01"])
        metrics = job.evaluate(job.estimator(args, rows.schema).fit(rows.coalesce(1)), rows, label)
        assert metrics.get("accuracy", metrics.get("r2")) > 0.7, loss
