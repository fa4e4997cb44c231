"""Dask's frames of Parquet files: read by Arrow, they are the rows, partitions and bits that Dask reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import Table
from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, ROWS, Framework, columns, numbers


@pytest.fixture
def read(framework: Framework) -> Callable[..., Any]:
    """Dask's own reader."""
    if framework.name != "dask":
        pytest.skip("Ray's blocks are Arrow's already")
    import dask.dataframe as dd

    return dd.read_parquet


@pytest.fixture
def by_dask() -> Any:
    """Dask's setting by which nothing else reads."""
    dask = pytest.importorskip("dask", reason="make test-dask")
    return lambda: dask.config.set({"sparkopt.reader": "dask"})


@pytest.fixture
def files(tmp_path: Path) -> str:
    """Four files of two row groups; null and NaN in a column, text and lists that pandas calls objects."""
    rows = columns("columns").astype({"x3": "float32", "x4": "int16"})
    rows["word"] = np.where(rows["x0"] > 0, "yes", "no")
    for index, start in enumerate(range(0, ROWS, ROWS // 4)):
        part = pa.Table.from_pandas(rows.iloc[start : start + ROWS // 4], preserve_index=False)
        some = pa.array([None if row % 50 == 7 else float(row) for row in range(part.num_rows)])
        lists = pa.array(list(numbers()[0][start : start + ROWS // 4]), pa.list_(pa.float64()))
        part = part.append_column("some", some).append_column("lists", lists)
        pq.write_table(part, tmp_path / f"part-{index}.parquet", row_group_size=70)
    return str(tmp_path)


FRAMES: dict[str, Callable[[Any, str], Any]] = {
    "files": lambda read, path: read(path),
    "by pyarrow's file system": lambda read, path: read(path, filesystem="arrow"),
    "row groups": lambda read, path: read(path, split_row_groups=True),
    "several row groups": lambda read, path: read(path, split_row_groups=3),
    "small parts together": lambda read, path: read(path, blocksize="20kB", aggregate_files=True),
    "few columns": lambda read, path: read(path)[["x1", "label", "x0", "id"]],
    "few columns, pyarrow": lambda read, path: read(path, filesystem="arrow")[["label", "x1", "x0", "id"]],
    "other names": lambda read, path: read(path)[["x1", "x0", "label", "id"]].rename(
        columns={"x0": "x1", "x1": "x0"}
    ),
    "some partitions": lambda read, path: read(path).partitions[1:3],
    "an index": lambda read, path: read(path, index="id", calculate_divisions=True),
    "types of Arrow": lambda read, path: read(path, dtype_backend="pyarrow"),
    "one file": lambda read, path: read(f"{path}/part-2.parquet"),
}
OTHERS: dict[str, tuple[Callable[[Any, str], Any], str]] = {
    "a filter": (lambda read, path: read(path, filters=[("x0", ">", 0)]), "filters"),
    "rows chosen": (lambda read, path: (frame := read(path))[frame["x0"] > 0], "Filter"),
    "a column made": (lambda read, path: read(path).assign(more=1.0), "Assign"),
    "other partitions": (lambda read, path: read(path).repartition(npartitions=2), "Repartition|Fused|Coalesce"),
    "in memory": (lambda read, path: read(path).persist(), "FromGraph"),
}


def _fitted(frame: Any) -> Any:
    names = [name for name in NAMES if name in frame.columns]
    return LogisticRegression(featuresCols=names, regParam=0.01, maxIter=20, optimizer="lbfgs").fit(frame)


@pytest.mark.parametrize("case", FRAMES)
def test_files_are_read_as_dask_reads_them(read, by_dask, files: str, case: str):
    frame = FRAMES[case](read, files)
    with by_dask():
        expected, table = _fitted(frame), Table.of(frame)
    found, here = _fitted(frame), Table.of(frame)
    assert found.summary.receipt.reader.startswith("arrow: Parquet files of Dask")
    assert expected.summary.receipt.reader == "dask: sparkopt.reader is 'dask'"
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
    assert found.intercept == expected.intercept
    numeric = [name for name in here.names if name not in ("word", "lists", "some")]
    for part, other in zip(here.partitions, table.partitions, strict=True):
        mine, theirs = (pa.Table.from_batches(one.batches(numeric)).to_pandas() for one in (part, other))
        pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_more_than_files_is_read_by_dask(read, files: str, case: str):
    make, reason = OTHERS[case]
    frame = make(read, files)
    found = _fitted(frame)
    assert found.summary.receipt.reader.startswith("dask: ")
    assert pd.Series([found.summary.receipt.reader]).str.contains(reason).all()


def test_folders_that_stand_for_columns_are_read_by_dask(read, files: str, tmp_path: Path):
    for index in range(2):
        (tmp_path / f"day={index}").mkdir()
        (tmp_path / f"part-{index}.parquet").rename(tmp_path / f"day={index}" / "part.parquet")
        (tmp_path / f"part-{index + 2}.parquet").unlink()
    assert _fitted(read(files)).summary.receipt.reader == "dask: 'day' is no column of the files"
    assert _fitted(read(files)[[*NAMES, "label"]]).summary.receipt.reader.startswith("arrow")


def test_null_is_a_missing_value_as_in_pandas(read, by_dask, files: str):
    estimator = LogisticRegression(featuresCols=["x0", "some"], handleInvalid="skip", maxIter=20)
    found = estimator.fit(read(files))
    with by_dask():
        expected = estimator.fit(read(files))
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
    assert found.summary.receipt.skipped == expected.summary.receipt.skipped > 0


def test_lists_that_pandas_calls_objects_are_features(read, files: str):
    frame = read(files)
    model = LogisticRegression(featuresCol="lists", regParam=0.01).fit(frame)
    expected = LogisticRegression(featuresCol="lists", regParam=0.01).fit(files)
    np.testing.assert_allclose(model.coefficients.toArray(), expected.coefficients.toArray(), rtol=1e-6)
    scored = model.transform(frame).compute()
    np.testing.assert_array_equal(scored["prediction"], expected.transform(files).to_arrow()["prediction"])


def test_a_setting_that_is_none(read, files: str):
    import dask

    with dask.config.set({"sparkopt.reader": "pandas"}), pytest.raises(ValueError, match="'auto', 'dask'"):
        _fitted(read(files))


def test_files_that_change_between_the_plan_and_the_fit(read, files: str, tmp_path: Path):
    table = Table.of(read(files))
    (tmp_path / "part-1.parquet").write_bytes((tmp_path / "part-0.parquet").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"part-1\.parquet.*Make the table again"):
        _fitted_table(table)


def _fitted_table(table: Table) -> Any:
    return LogisticRegression(featuresCols=NAMES).fit(table)
