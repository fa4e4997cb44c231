"""Columns that a Python function computes from each row once, whatever the rows come from and whatever follows."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType, UserDefinedType

__all__ = ["once", "row_wise"]


def once(dataset: DataFrame, name: str) -> DataFrame:
    """Return the rows with a column that is computed once for each, whatever filters follow.

    Spark moves a filter before the Python function that computes what it reads, and so computes that twice. It does
    not move a filter before a generator whose column it reads; filters of other columns it does.
    """
    return dataset.select(F.expr(f"* EXCEPT (`{name}`)"), F.explode(F.array(name)).alias(name))


def row_wise(dataset: DataFrame, inputs: dict[str, Column]) -> DataFrame:
    """Return the rows with what an Arrow UDF is given, in columns of their own.

    Spark 4.3 fails where a column of a user-defined type (Vectors) passes an Arrow UDF that reads its rows
    column-wise, from Parquet or a cache. Where there is one, the inputs come from a generator: its rows are no
    columns, and filters of other columns are still applied before it.
    """
    if not any(_has_user_type(field.dataType) for field in dataset.schema):
        return dataset.select("*", *[column.alias(name) for name, column in inputs.items()])
    named = F.struct(*[column.alias(name) for name, column in inputs.items()])
    return dataset.select("*", F.inline(F.array(named)))


def _has_user_type(kind: DataType) -> bool:
    inner: list[Any] = []
    if isinstance(kind, StructType):
        inner = [field.dataType for field in kind]
    elif isinstance(kind, ArrayType):
        inner = [kind.elementType]
    elif isinstance(kind, MapType):
        inner = [kind.keyType, kind.valueType]
    return isinstance(kind, UserDefinedType) or any(map(_has_user_type, inner))
