"""Data that several jobs' tests read."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pyspark.sql import functions as F

from tests.jobs.running import ROOT


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The handwritten digits as PNG files, a folder for each."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, "jobs/digits.py", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def table(spark, tmp_path_factory):
    """Parquet of id, a, b, the number y = 2a - b + 3 and the class c = (2a > b + 3), in two files."""
    path = str(tmp_path_factory.mktemp("table") / "rows")
    rows = spark.range(0, 400, 1, 2).select(
        "id", (F.col("id") % 7).cast("double").alias("a"), (F.col("id") % 5).cast("double").alias("b")
    )
    rows = rows.withColumn("y", 2 * F.col("a") - F.col("b") + 3)
    rows.withColumn("c", (2 * F.col("a") > F.col("b") + 3).cast("double")).write.parquet(path)
    return path
