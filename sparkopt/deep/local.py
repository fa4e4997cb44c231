"""Networks without Spark: write and read them on this machine, and score a pandas DataFrame."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sparkopt.deep.fields import Field, Fields
from sparkopt.deep.model import WEIGHTS, TorchModel, facts_of, restored
from sparkopt.errors import DataError, SchemaError
from sparkopt.io.metadata import read_metadata, write_metadata

__all__ = ["read", "score", "write"]


def write(model: TorchModel, folder: Path) -> None:
    """Write a model as ``model.save`` does; with Spark, ``TorchModel.load`` reads it from there."""
    write_metadata(model, folder, facts_of(model))
    (folder / WEIGHTS).write_bytes(model.weights)


def read(folder: str | Path) -> TorchModel:
    """Return the model in a folder of this machine, written by ``write`` or by Spark.

    Raises
    ------
    DataError
        Where no network was saved there, or it names one that may not be built.
    """
    metadata = read_metadata(folder)
    if metadata["class"] != f"{TorchModel.__module__}.{TorchModel.__name__}":
        raise DataError(f"{str(folder)!r} holds a {metadata['class']}, and no network.")
    return restored(metadata, Path(folder, WEIGHTS).read_bytes())


def score(model: TorchModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become lists.

    Parameters
    ----------
    model : TorchModel
        The model.
    frame : pandas.DataFrame
        The features: columns of numbers, of lists or arrays (nested to any depth), or of encoded images as bytes.

    Raises
    ------
    SchemaError
        Where a column is missing, or holds something else.
    DataError
        For a null, a number that is not finite, or rows of unlike shapes.
    """
    wanted = model._wanted()
    if frame.empty:
        return pd.DataFrame({name: [] for name in wanted.values()}, index=frame.index)
    features = model.features()
    names = [features] if isinstance(features, str) else features
    kinds = [_kind(frame, name) for name in names]
    if len(names) > 1 and set(kinds) == {"number"}:  # joined to one input, as Spark's transform does
        fields = Fields((Field("input0", tuple(names), "array"),))
        arrays = [_arrow(pd.Series(list(frame[names].to_numpy(np.float32))))]
    else:
        pairs = zip(names, kinds, strict=True)
        fields = Fields(tuple(Field(f"input{i}", (name,), kind) for i, (name, kind) in enumerate(pairs)))
        arrays = [_arrow(frame[name]) for name in names]
    (scored,) = model._scorer(fields)(iter([tuple(arrays)]))
    return pd.DataFrame({name: _plain(scored.field(key)) for key, name in wanted.items()}, index=frame.index)


def _kind(frame: pd.DataFrame, name: str) -> str:
    if name not in frame.columns:
        raise SchemaError(f"column {name!r} is missing; there are {', '.join(map(str, frame.columns))}.")
    value = frame[name].iloc[0]
    if isinstance(value, (bytes, bytearray)):
        return "bytes"
    if isinstance(value, (numbers.Number, np.generic)):
        return "number"
    if isinstance(value, (list, tuple, np.ndarray)) or hasattr(value, "toArray"):
        return "array"
    raise SchemaError(f"column {name!r} holds a {type(value).__name__}; give numbers, lists, arrays or bytes.")


def _arrow(column: pd.Series[Any]) -> pa.Array:
    """Return a column as Arrow, with numbers as Spark would hand them over: float32, or int64 for whole ones."""
    if isinstance(column.iloc[0], (bytes, bytearray)):
        return pa.array([bytes(value) for value in column], pa.binary())
    rows = [np.asarray(value.toArray() if hasattr(value, "toArray") else value) for value in column]
    whole = all(row.dtype.kind in "iub" for row in rows)
    try:
        return pa.array([row.tolist() for row in rows], _nested(rows[0].ndim, pa.int64() if whole else pa.float32()))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"column {column.name!r} cannot be read as numbers: {error}") from error


def _nested(depth: int, kind: pa.DataType) -> pa.DataType:
    return pa.list_(_nested(depth - 1, kind)) if depth else kind


def _plain(column: pa.Array) -> Any:
    """Return predictions as numbers or lists; of a Vector its values."""
    values = column.field("values") if pa.types.is_struct(column.type) else column
    return list(values.to_numpy(zero_copy_only=False))
