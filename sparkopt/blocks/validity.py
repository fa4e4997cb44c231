"""The rows of a DataFrame or table without invalid ones: null, NaN or infinity in a column that is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, FractionalType, StructType

from sparkopt.blocks.columns import FEATURES, column_type, features_type
from sparkopt.blocks.invalid import valid_features
from sparkopt.blocks.names import column_text, plain_types, quoted
from sparkopt.blocks.parquet import ParquetReader
from sparkopt.blocks.tables import named_table, number_of, scoring_reader, spark_schema
from sparkopt.machine.table import Table
from sparkopt.values import dataclass

__all__ = ["valid_rows"]

R = TypeVar("R", bound="DataFrame | Table")


def valid_rows(rows: R, features: str | Sequence[str], others: Sequence[str | None]) -> R:
    """Return the rows that have a finite number in each feature and in other columns.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows.
    features : str or sequence of str
        One Vector or array column, or columns of numbers.
    others : sequence of str or None
        Columns of numbers or booleans; None is none.

    Raises
    ------
    SchemaError
        For a column that is missing or of a wrong type.
    """
    names = [name for name in others if name is not None]
    if isinstance(rows, Table):
        named = named_table(rows, [*([features] if isinstance(features, str) else features), *names])
        schema = spark_schema(named.schema)
        reader = scoring_reader(schema, features)
        read = tuple(dict.fromkeys([*(name for one in reader.every_source for name in one.names), *names]))
        for name in names:
            column_type(schema, name, "numeric")
        kept = named.where(_Valid(reader, tuple(names)), read, "valid rows")
        return rows.with_parts(kept.partitions)  # type: ignore[return-value]  # a Table
    return rows.where(_condition(rows.schema, features, names))  # type: ignore[return-value]  # a DataFrame


@dataclass(frozen=True)
class _Valid:
    """Which rows of a batch are valid."""

    reader: ParquetReader
    others: tuple[str, ...]

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        valid = valid_features(self.reader.made(batch, {}).column(FEATURES))
        for name in self.others:
            found = np.isfinite(number_of(batch, name))
            valid = found if valid is None else valid & found
        return pa.array(np.ones(batch.num_rows, bool) if valid is None else valid)


def _condition(schema: StructType, features: str | Sequence[str], others: Sequence[str]) -> Column:
    """Return the condition in SQL, which needs no Python."""

    def column(name: str) -> Column:
        return F.col(column_text(schema, name, FEATURES))

    conditions = [_is_finite(column(name), column_type(schema, name, "numeric")) for name in others]
    kind = features_type(schema, features)
    if not isinstance(features, str):
        known = plain_types(schema)
        for name in features:
            found = known[name] if name in known else column_type(schema, name, FEATURES)
            conditions.append(_is_finite(F.col(quoted(name)) if name in known else column(name), found))
    else:
        whole = column(features)
        entries = F.unwrap_udt(whole).getField("values") if kind == "vector" else whole.cast("array<double>")
        conditions += [whole.isNotNull(), ~F.exists(entries, lambda entry: ~_finite(entry))]
    return reduce(and_, conditions)


def _is_finite(column: Column, kind: DataType) -> Column:
    if isinstance(kind, BooleanType) or not isinstance(kind, FractionalType):
        return column.isNotNull()
    return _finite(column.cast("double"))


def _finite(number: Column) -> Column:
    """Return whether a double is there and finite; never null."""
    return F.coalesce(F.abs(number) < float("inf"), F.lit(False))  # NaN is larger than infinity in Spark
