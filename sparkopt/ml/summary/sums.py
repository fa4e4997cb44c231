"""Weighted sums over scored rows, taken in one pass."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.errors import DataError
from sparkopt.typing import Floats

__all__ = ["as_list", "totals"]


def totals(df: DataFrame, **sums: Column) -> dict[str, float]:
    """Return aggregates over all rows by name, in one pass.

    Raises
    ------
    DataError
        Where there are no rows.
    """
    row = df.agg(F.count(F.lit(1)).alias("rows"), *[column.alias(name) for name, column in sums.items()]).collect()[0]
    if row["rows"] == 0:
        raise DataError("there are no rows to evaluate: the DataFrame is empty.")
    return {name: row[name] for name in ("rows", *sums)}


def as_list(values: Floats) -> list[float]:
    """Return an array (n,) as a list of floats."""
    return [float(value) for value in values]
