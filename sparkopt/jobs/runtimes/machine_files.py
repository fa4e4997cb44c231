"""Scored rows as files: each part of a table becomes one, whose columns are those that Spark would write."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sparkopt.io.filesystem import Location, resolve
from sparkopt.jobs.runtimes.class_names import named_predictions
from sparkopt.jobs.runtimes.values import column_values
from sparkopt.machine import TablePart
from sparkopt.machine.writing import ParquetOutput
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["FORMS", "WritePart", "written_columns"]

FORMS = ("parquet", "csv")
"""Formats that are written without Spark."""
COMPRESSION = "zstd"
"""As Spark's profiles have it."""
ENDINGS = {"parquet": "zstd.parquet", "csv": "csv"}


def written_columns(schema: pa.Schema, form: str) -> pa.Schema:
    """Return the columns that are written: Vectors as arrays, and in CSV both as JSON."""
    return pa.schema([pa.field(field.name, _written_type(field.type, form)) for field in schema])


def _is_vector(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and [field.name for field in kind] == ["type", "size", "indices", "values"]


def _written_type(kind: pa.DataType, form: str) -> pa.DataType:
    if form == "csv" and pa.types.is_nested(kind):
        return pa.string()
    if _is_vector(kind):
        return pa.list_(pa.float64())
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass(frozen=True)
class PartWritten:
    """A file that was written: its rows, their predictions, and how many rows were invalid."""

    rows: int
    predictions: Floats
    invalid: int


@dataclass(frozen=True)
class WritePart:
    """The task: a part's rows as a file.

    Parameters
    ----------
    folder : str
        URI of the folder, which exists.
    names : tuple of str
        Columns.
    schema : pyarrow.Schema
        Their types in the file.
    form : {"parquet", "csv"}
        The format.
    prediction : str
        The column of predictions; "" for none.
    told : str, default ""
        A column that is null in invalid rows, which are counted; "" where there are none.
    skips : bool, default False
        Whether they are left out.
    labels : tuple of str, default ()
        Names of the classes, which are written in place of their numbers.
    """

    folder: str
    names: tuple[str, ...]
    schema: pa.Schema
    form: str
    prediction: str
    told: str = ""
    skips: bool = False
    labels: tuple[str, ...] = ()

    def __call__(self, numbered: tuple[int, TablePart]) -> PartWritten:
        """Write a part."""
        number, part = numbered
        target = resolve(self.folder, "output").child(f"part-{number:05d}.{ENDINGS[self.form]}")
        predictions, rows, invalid = [np.zeros(0)], 0, 0
        with target.output() as stream, _writer(stream, self.schema, self.form) as writer:
            for batch in part.batches(list(self.names)):
                if self.told:
                    invalid += batch.column(self.told).null_count
                if self.skips:
                    batch = batch.filter(batch.column(self.told).is_valid())
                columns = [
                    _plain(self._named(name, column), field.type)
                    for name, column, field in zip(self.names, batch.columns, self.schema, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
                rows += batch.num_rows
                if self.prediction:
                    predictions.append(column_values(batch.column(self.prediction))[0])
        if not rows:
            _delete(target)
        return PartWritten(rows, np.concatenate(predictions), invalid)

    def _named(self, name: str, column: pa.Array) -> pa.Array:
        """Return a column; predictions by the names of their classes, if these have any."""
        return named_predictions(column, self.labels) if self.labels and name == self.prediction else column


def _writer(stream: Any, schema: pa.Schema, form: str) -> Any:
    if form == "csv":
        return csv.CSVWriter(stream, schema, write_options=csv.WriteOptions(quoting_style="needed"))
    return ParquetOutput(stream, schema, COMPRESSION)


def _delete(target: Location) -> None:
    """Delete the file of a part without rows."""
    target.filesystem.delete_file(target.path)


def _plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column as it is written."""
    if column.type == kind:
        return column
    if _is_vector(column.type):
        rows = [_entries(row) for row in column.to_pylist()]
        column = pa.array(rows, pa.list_(pa.float64()))
    if pa.types.is_string(kind) and pa.types.is_nested(column.type):
        texts = [
            None if row is None else json.dumps(row, separators=(",", ":"), default=str) for row in column.to_pylist()
        ]
        return pa.array(texts, pa.string())
    return column.cast(kind)


def _entries(row: dict[str, Any] | None) -> list[float] | None:
    """Return the entries of a Vector."""
    if row is None:
        return None
    if row["type"]:
        entries: list[float] = list(row["values"])
        return entries
    found = np.zeros(row["size"])
    found[row["indices"]] = row["values"]
    whole: list[float] = found.tolist()
    return whole
