"""Rows without Spark, scored by a network, and given back as they were given.

A model is duck-typed here: ``features``, ``_fields``, ``_wanted``, ``_outputs`` and ``_scorer`` say what it reads and
writes.
"""

from __future__ import annotations

import numbers
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from sparkopt.blocks.names import NamedColumns
from sparkopt.blocks.tables import named_columns, spark_schema
from sparkopt.deep.scorer import NetworkScorer
from sparkopt.errors import DataError, SchemaError
from sparkopt.machine import Table
from sparkopt.machine.derived import computed, derived
from sparkopt.shards.arrow_columns import as_numbers
from sparkopt.shards.fields import Field, flat
from sparkopt.values import dataclass

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_outputs", "scored"]


def scored(model: Any, data: Any) -> Any:
    """Return rows with a model's outputs, of the kind that was given; Vectors are lists of doubles.

    Arrow, pandas and Polars are scored at once. A stream of batches is scored as it is read, and so is a table of
    files, which may be larger than memory.

    Raises
    ------
    SchemaError
        For a column that is missing, of a wrong type, or there already.
    """
    if isinstance(data, pa.RecordBatchReader):
        function, schema = _function(model, data.schema)
        return pa.RecordBatchReader.from_batches(schema, function(iter(data)))
    if _is_pandas(data):
        return _frame(model, data)
    table = Table.of(data)
    function, schema = _function(model, table.schema)
    found = derived(table, function, schema, function.columns, function.names, function.drops)
    if not isinstance(data, (pa.Table, pa.RecordBatch)) and not hasattr(data, "__arrow_c_stream__"):
        return found
    rows = computed(found, in_processes=any(entry.is_image for entry in function.scorer.fields.inputs))
    if isinstance(data, pa.RecordBatch):
        return rows.combine_chunks().to_batches()[0] if rows.num_rows else pa.RecordBatch.from_pylist([], rows.schema)
    if type(data).__module__.partition(".")[0] == "polars":
        return sys.modules["polars"].from_arrow(rows)
    return rows


def _is_pandas(data: Any) -> bool:
    return type(data).__module__.startswith("pandas.") and type(data).__name__ == "DataFrame"


def _function(model: Any, schema: pa.Schema) -> tuple[_Score, pa.Schema]:
    """Return what scores batches of a schema, and the schema of the result."""
    scorer = model._scorer(model._fields(spark_schema(schema)))
    named = named_columns(schema, flat(model.features())) or NamedColumns(())
    names = tuple(model._wanted().values())
    _check_new(names, schema.names)
    kinds = _arrow_types(model)
    fields = [*schema, *(pa.field(name, kind) for name, kind in zip(names, kinds, strict=True))]
    return _Score(scorer, names, named, model.value("handleInvalid") == "skip"), pa.schema(fields, schema.metadata)


def _check_new(names: tuple[str, ...], known: list[str]) -> None:
    for name in names:
        if name in known:
            raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")


def _arrow_types(model: Any) -> list[pa.DataType]:
    kinds = model._outputs.types()
    names = {"double": pa.float64(), "array": pa.list_(pa.float32())}
    return [names.get(kinds[key].typeName(), pa.list_(pa.float64())) for key in model._wanted()]


@dataclass(frozen=True)
class _Score:
    """Adds a network's outputs to batches."""

    scorer: NetworkScorer
    names: tuple[str, ...]
    named: NamedColumns
    drops: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        paths = dict(self.named.paths)
        names = (name for entry in self.scorer.fields.inputs for name in entry.columns)
        return list(dict.fromkeys(paths.get(name, (name,))[0] for name in names))

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        waiting = deque[pa.RecordBatch]()

        def taken() -> Iterator[tuple[pa.Array, ...]]:
            for batch in batches:
                if batch.num_rows:
                    waiting.append(batch)
                    found = self.named.added(batch)
                    yield tuple(entry.taken(found) for entry in self.scorer.fields.inputs)

        for scores in self.scorer(taken()):
            batch = waiting.popleft()
            outputs = [*batch.columns, *scores.flatten()]
            rows = pa.RecordBatch.from_arrays(outputs, [*batch.schema.names, *self.names])
            yield rows.filter(scores.is_valid()) if self.drops else rows


# --- pandas ---------------------------------------------------------------------------------------------------------


def _frame(model: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a DataFrame of pandas with the outputs."""
    import pandas as pd

    _check_new(tuple(model._wanted().values()), [str(name) for name in frame.columns])
    found = frame_outputs(model, frame)
    if model.value("handleInvalid") == "skip":
        kept = found[next(iter(found.columns))].notna()
        frame, found = frame[kept], found[kept]
    return pd.concat([frame, found], axis=1)


def frame_outputs(model: Any, frame: pd.DataFrame, paths: bool = True) -> pd.DataFrame:
    """Return the outputs for the rows of a pandas DataFrame, with its index.

    Columns hold numbers, lists or arrays (nested to any depth), Vectors, encoded images or, with ``paths``, the paths
    of images.

    Raises
    ------
    SchemaError
        Where a column is missing, or holds something else.
    DataError
        For a null, a number that is not finite, or rows of unlike shapes.
    """
    import pandas as pd

    wanted = model._wanted()
    names = flat(model.features())
    missing = [name for name in names if name not in frame.columns]
    if missing:
        known = ", ".join(map(str, frame.columns))
        raise SchemaError(f"features column {missing[0]!r} does not exist. Columns: {known}.")
    if frame.empty:
        return pd.DataFrame({name: [] for name in wanted.values()}, index=frame.index)
    fields = model._fields(StructType([StructField(name, _type(frame, name)) for name in names]))
    for entry in fields.inputs:
        if entry.kind == "path" and not paths:
            raise SchemaError(
                f"features column {entry.title!r} holds text. A served model takes the bytes of images: a path would "
                "be read where it is served."
            )
    arrays = [_column(frame, entry) for entry in fields.inputs]
    (found,) = model._scorer(fields)(iter([tuple(arrays)]))
    columns = {name: found.field(key) for key, name in wanted.items()}
    return pd.DataFrame(
        {name: list(column.to_numpy(zero_copy_only=False)) for name, column in columns.items()}, index=frame.index
    )


def _type(frame: pd.DataFrame, name: str) -> DataType:
    """Return the type of a column, by its first value."""
    value = frame[name].iloc[0]
    if isinstance(value, (bytes, bytearray)):
        return BinaryType()
    if isinstance(value, str):
        return StringType()
    if isinstance(value, (numbers.Number, np.generic, list, tuple, np.ndarray)) or hasattr(value, "toArray"):
        found = np.asarray(value.toArray() if hasattr(value, "toArray") else value)
        kind: DataType = LongType() if found.dtype.kind in "iu" else DoubleType()
        for _ in range(found.ndim):
            kind = ArrayType(kind)
        return kind
    raise SchemaError(f"column {name!r} holds a {type(value).__name__}; give numbers, lists, arrays, bytes or paths.")


def _column(frame: pd.DataFrame, entry: Field) -> pa.Array:
    """Return the column of an input, or its columns joined."""
    if len(entry.columns) == 1:
        return _arrow(frame[entry.columns[0]], entry.whole)
    joined = frame[list(entry.columns)].to_numpy(np.int64 if entry.whole else np.float32)
    kind = pa.int64() if entry.whole else pa.float32()
    offsets = np.arange(len(joined) + 1, dtype=np.int32) * joined.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined.reshape(-1), kind))


def _arrow(column: pd.Series[Any], whole: bool) -> pa.Array:
    """Return a column as Arrow, with numbers as Spark would hand them over: int64 if they are whole, or float32."""
    if isinstance(column.iloc[0], (bytes, bytearray)):
        return pa.array([bytes(value) for value in column], pa.binary())
    if isinstance(column.iloc[0], str):
        return pa.array(column, pa.string())
    rows = [np.asarray(value.toArray() if hasattr(value, "toArray") else value) for value in column]
    try:
        kind = _nested(rows[0].ndim, pa.int64() if whole else pa.float64())
        return as_numbers(pa.array([row.tolist() for row in rows], kind), whole)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"column {column.name!r} cannot be read as numbers: {error}") from error


def _nested(depth: int, kind: pa.DataType) -> pa.DataType:
    return pa.list_(_nested(depth - 1, kind)) if depth else kind
