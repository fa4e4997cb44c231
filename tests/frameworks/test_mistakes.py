"""What a hurried user gets wrong with frames of Dask, Ray and Flink: one line each, which says the way out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparkopt import Table
from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, Framework, columns, numbers


def test_columns_without_a_type(framework: Framework):
    if framework.name != "dask":
        pytest.skip("Ray's blocks have Arrow's types, and Flink's columns their own")
    import dask
    import dask.dataframe as dd

    rows = pd.DataFrame({"features": list(numbers()[0]), "label": numbers()[1]})
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_pandas(rows, npartitions=2)
    with pytest.raises(ValueError, match=r"features.*Dask knows no type of it but object.*ArrowDtype"):
        LogisticRegression().fit(frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X.rechunk({1: 2}), y), r"X\.rechunk\(\{1: -1\}\)"),
        (lambda X, y: (X, y.rechunk(100)), r"y\.rechunk\(\(X\.chunks\[0\],\)\)"),
        (lambda X, y: (X, y.compute()), r"dask\.array\.from_array"),
        (lambda X, y: (y, X), r"X has 1 dimensions and y 2"),
        (lambda X, y: (X[:, X.sum(axis=0) > 0], y), r"compute_chunk_sizes"),
    ],
    ids=["cut by columns", "cut differently", "one of NumPy", "swapped", "unknown width"],
)
def test_pairs_of_arrays(framework: Framework, change, message: str):
    if framework.name != "dask":
        pytest.skip("only Dask has arrays")
    import dask.array as da

    X, y = numbers()
    with pytest.raises(ValueError, match=message):
        LogisticRegression().fit(change(da.from_array(X, chunks=(120, -1)), da.from_array(y, chunks=120)))


def test_pairs_of_arrays_of_unknown_length(framework: Framework):
    if framework.name != "dask":
        pytest.skip("only Dask has arrays")
    import dask.array as da

    X, y = numbers()
    pair = da.from_array(X, chunks=(120, -1)), da.from_array(y, chunks=120)
    some = pair[1] + pair[0][:, 0] > 0
    expected = LogisticRegression().fit((X[y + X[:, 0] > 0], y[y + X[:, 0] > 0]))
    found = LogisticRegression().fit((pair[0][some], pair[1][some]))
    np.testing.assert_allclose(found.coefficients.toArray(), expected.coefficients.toArray(), rtol=1e-6, atol=1e-9)


def test_columns_that_are_not_there(framework: Framework):
    frame = framework.frame(columns("columns"))
    with pytest.raises(ValueError, match="'x9' does not exist"):
        LogisticRegression(featuresCols=[*NAMES, "x9"]).fit(frame)
    model = LogisticRegression(featuresCols=NAMES).fit(frame)
    with pytest.raises(ValueError, match="'x0' does not exist"):
        model.transform(framework.frame(columns("columns").drop(columns="x0")))


@pytest.mark.parametrize("wrong", [5, object(), [[1.0, 2.0]]], ids=["number", "object", "list"])
def test_what_is_no_frame_is_not_scored(framework: Framework, wrong: object):
    model = LogisticRegression(featuresCols=NAMES).fit(framework.frame(columns("columns")))
    with pytest.raises(ValueError, match="a table is made of"):
        model.transform(wrong)


def test_a_table_is_written_by_its_framework(framework: Framework, tmp_path):
    if framework.name == "flink":
        pytest.skip("rows of Flink come to this machine, which writes them")
    with pytest.raises(ValueError, match="by its own method"):
        Table.of(framework.frame(columns("columns"))).write_parquet(str(tmp_path / "out"))


def test_dask_without_a_client(framework: Framework):
    if framework.name != "dask":
        pytest.skip("Ray and Flink start by themselves")
    import subprocess
    import sys

    script = (
        "import pandas as pd, dask.dataframe as dd; from sparkopt.ml import LogisticRegression\n"
        "LogisticRegression().fit(dd.from_pandas(pd.DataFrame({'label': [0.0, 1.0]}), npartitions=1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "client = Client()" in done.stderr.splitlines()[-1]
