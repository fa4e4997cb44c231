"""Data that several jobs' tests read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.running import ROOT


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The handwritten digits as PNG files, a folder for each."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, "jobs/digits.py", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Parquet of id, a, b, the number y = 2a - b + 3 and the class c = (2a > b + 3), in two files."""
    folder = tmp_path_factory.mktemp("table") / "rows"
    folder.mkdir()
    for part, row in enumerate(np.array_split(np.arange(400), 2)):
        a, b = (row % 7).astype(float), (row % 5).astype(float)
        columns = {"id": row, "a": a, "b": b, "y": 2 * a - b + 3, "c": (2 * a > b + 3).astype(float)}
        pq.write_table(pa.table(columns), folder / f"part-{part}.parquet")
    return str(folder)
