"""Outputs of models as Spark's own expressions, to the bit those of `sparkopt.ml.arithmetic`.

Spark compares NaN as the largest number and NumPy as none: where that matters, NaN is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType, UserDefinedType

__all__ = [
    "FEW",
    "above",
    "argmax",
    "argmax_of_few",
    "largest_share",
    "let",
    "once",
    "row_wise",
    "sigmoid",
    "small_power",
    "softmax",
    "softmax_of_few",
    "twice",
]

LARGEST = float(np.finfo(np.float64).max)
FEW = 32
"""Most classes that are a column each: Spark compiles these, and interprets functions of arrays."""

TOP, POWER, TOTAL = "__sparkopt_top", "__sparkopt_power", "__sparkopt_total"


def above(value: Column, threshold: float) -> Column:
    """Return 1 where a number is above the threshold, else 0."""
    return F.when((value > threshold) & ~F.isnan(value), 1.0).otherwise(0.0)


def small_power(raw: Column) -> Column:
    """Return e^−|raw|, which `sigmoid` takes."""
    return F.exp(-F.abs(raw))


def sigmoid(raw: Column, small: Column | None = None) -> Column:
    """Return 1 / (1 + e^−raw) without overflow, given ``small_power``, or computing it at each use."""
    small = small_power(raw) if small is None else small
    return F.when(raw >= 0, 1.0).otherwise(small) / (1.0 + small)


def let(value: Column, function: Callable[[Column], Column]) -> Column:
    """Return ``function(value)``, for which the value is computed once, however often it is used."""
    return F.transform(F.array(value), function)[0]


def softmax(raw: Column) -> Column:
    """Return e^raw / Σ e^raw of an array; infinite entries count as the largest numbers there are."""

    def shares(powers: Column) -> Column:
        total = F.aggregate(powers, F.lit(0.0), lambda sum_, x: sum_ + x)
        return let(total, lambda sum_: F.transform(powers, lambda x: x / sum_))

    def powers(values: Column) -> Column:
        return let(F.array_max(values), lambda top: let(F.transform(values, lambda x: F.exp(x - top)), shares))

    return let(F.transform(raw, _bounded), powers)


def _bounded(x: Column) -> Column:
    return F.when(F.isnan(x), x).otherwise(F.greatest(F.least(x, F.lit(LARGEST)), F.lit(-LARGEST)))


def softmax_of_few(rows: DataFrame, raw: Column, count: int) -> tuple[DataFrame, list[Column], Column]:
    """Return what ``softmax`` does, to the bit, of an array with ``count`` entries.

    Parameters
    ----------
    rows : DataFrame
        The rows.
    raw : Column
        Their arrays.
    count : int
        Entries of each.

    Returns
    -------
    tuple
        The rows with columns in addition, the entries of ``raw``, and the softmax, an array.
    """
    each = [raw[index] for index in range(count)]
    rows = rows.withColumn(TOP, F.greatest(*map(_bounded, each)))
    powers = {f"{POWER}_{index}": F.exp(_bounded(value) - F.col(TOP)) for index, value in enumerate(each)}
    rows = rows.withColumns(powers)
    columns = [F.col(name) for name in powers]
    total = F.lit(0.0)
    for column in columns:
        total = total + column
    return rows.withColumn(TOTAL, total), each, F.array(*[column / F.col(TOTAL) for column in columns])


def argmax_of_few(values: Sequence[Column]) -> Column:
    """Return the position of the first largest of some columns, from 0, as a double."""
    top = F.greatest(*values)
    found = F.when(values[0] == top, 0.0)
    for index, value in enumerate(values[1:], start=1):
        found = found.when(value == top, float(index))
    return found


def argmax(values: Column) -> Column:
    """Return the position of an array's first largest entry, from 0, as a double."""
    return (F.array_position(values, F.array_max(values)) - 1).cast("double")


def largest_share(probability: Column, thresholds: Sequence[float]) -> Column:
    """Return the class of the largest probability / threshold; 0 / 0 is no vote."""

    def share(value: Column, threshold: Column) -> Column:
        some = F.when(value > 0, float("inf")).otherwise(0.0)
        return F.when(F.isnan(value), 0.0).when(threshold == 0, some).otherwise(value / threshold)

    limits = F.array(*[F.lit(float(threshold)) for threshold in thresholds])
    return let(F.zip_with(probability, limits, share), argmax)


def twice(raw: Column, *, is_vector: bool) -> Column:
    """Return a column of raw predictions as a value that reads it twice.

    Spark moves a filter before the projection that computes what it reads, and so computes that again, unless the
    filter reads it more than once.
    """
    return F.coalesce(raw, raw) if is_vector else F.greatest(raw, raw)


def once(dataset: DataFrame, name: str) -> DataFrame:
    """Return the rows with a column that is computed once for each, whatever filters follow.

    Spark moves a filter before the Python function that computes what it reads, and so computes that twice. It does
    not move a filter before a generator whose column it reads; filters of other columns it does.
    """
    others = [F.col(f"`{other}`") for other in dataset.columns if other != name]
    return dataset.select(*others, F.explode(F.array(name)).alias(name))


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
