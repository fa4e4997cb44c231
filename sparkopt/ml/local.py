"""Linear models without Spark: written, read, and applied to a pandas DataFrame, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pyspark.ml.linalg import SparseVector
from scipy import sparse

from sparkopt.errors import DataError, SchemaError
from sparkopt.io.metadata import read_metadata, write_metadata
from sparkopt.ml import classification, generalized, regression, svm
from sparkopt.ml.model import LinearModel
from sparkopt.ml.persistence import restored, table_of
from sparkopt.typing import Array

__all__ = ["read", "score", "write"]

KINDS = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        classification.LogisticRegressionModel,
        generalized.GeneralizedLinearRegressionModel,
        regression.LinearRegressionModel,
        regression.QuantileRegressionModel,
        svm.LinearSVCModel,
    )
}
"""Classes that may be read: no other name in a file is imported."""


def write(model: LinearModel[Any], folder: Path) -> None:
    """Write a model as ``model.save`` does; with Spark, the model's class can load it."""
    write_metadata(model, folder)
    (folder / "data").mkdir()
    pq.write_table(table_of(model), folder / "data" / "part-00000.parquet")


def read(folder: str | Path) -> LinearModel[Any]:
    """Return the model in a folder of this machine which ``write`` or Spark wrote.

    Raises
    ------
    DataError
        Where no linear model was saved there.
    """
    metadata = read_metadata(folder)
    if metadata["class"] not in KINDS:
        raise DataError(f"{str(folder)!r} holds a {metadata['class']}, which is no linear model of sparkopt.")
    (row,) = pq.read_table(Path(folder, "data")).to_pylist()
    return restored(KINDS[metadata["class"]], metadata, row)


def score(model: LinearModel[Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become lists.

    Parameters
    ----------
    model : LinearModel
        The model.
    frame : pandas.DataFrame
        The features: one column of lists, arrays or Vectors, or the numeric columns that the model was trained on.

    Raises
    ------
    SchemaError
        Where a column is missing.
    DataError
        Where a row has another number of features, or none.
    """
    features = model._features()
    offset = model._columns().offset
    names = [features] if isinstance(features, str) else features
    missing = [name for name in [*names, *([offset] if offset else [])] if name not in frame.columns]
    if missing:
        raise SchemaError(f"column {missing[0]!r} is missing; there are {', '.join(map(str, frame.columns))}.")
    raw = model._raw(_matrix(frame, features, model.numFeatures))
    if offset:
        raw = raw + frame[offset].to_numpy(np.float64)[:, None]
    found = model._outputs(raw)
    wanted = {name: found[key] for key, (name, _) in model._output_columns().items() if name}
    columns = {name: list(values) if values.ndim > 1 else values for name, values in wanted.items()}
    return pd.DataFrame(columns, index=frame.index)


def _matrix(frame: pd.DataFrame, features: str | list[str], width: int) -> Any:
    """Return the features as a matrix, sparse where all rows are."""
    if not isinstance(features, str):
        return frame[features].to_numpy(np.float64)
    column = frame[features]
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)[:, None]
    rows = list(_rows(column, width))
    if rows and all(isinstance(row, SparseVector) for row in rows):
        return _sparse(rows, width)
    dense = [row.toArray() if isinstance(row, SparseVector) else row for row in rows]
    return np.array(dense, np.float64).reshape(len(rows), width)


def _rows(column: pd.Series[Any], width: int) -> Iterator[Array | SparseVector]:
    for number, value in enumerate(column):
        row = value if isinstance(value, SparseVector) else np.asarray(getattr(value, "values", value))
        size = row.size if isinstance(row, SparseVector) or row.ndim == 1 else -1
        if size != width:
            found = "no list of numbers" if size < 0 else f"{size} features"
            raise DataError(f"features column {column.name!r}, row {number} has {found}; the model needs {width}.")
        yield row


def _sparse(rows: Sequence[Any], width: int) -> sparse.csr_array:
    bounds = np.cumsum([0, *(len(row.indices) for row in rows)])
    values, indices = (np.concatenate([getattr(row, name) for row in rows]) for name in ("values", "indices"))
    return sparse.csr_array((values, indices, bounds), shape=(len(rows), width))
