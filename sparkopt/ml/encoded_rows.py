"""Rows of Spark with a column of features that an encoder computes of raw columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import StructType

from sparkopt.blocks.columns import FeatureEncoder, raw_texts
from sparkopt.blocks.encoded import remember
from sparkopt.blocks.row_functions import row_wise
from sparkopt.io.worker import spare_modules
from sparkopt.ml.jvm import struct_to_vector

__all__ = ["raw_struct", "with_features"]

INPUTS = "__sparkopt_raw_columns"
STRUCT = "type tinyint, size int, indices array<int>, values array<double>"
"""Spark's type of Vectors without its name: Arrow UDFs cannot return that over columnar rows."""


def raw_struct(schema: StructType, columns: Sequence[str]) -> Column:
    """Return the raw columns as one struct, in the order of ``columns``."""
    return F.expr(f"struct({', '.join(raw_texts(schema, columns))})")


def with_features(df: DataFrame, name: str, encoder: FeatureEncoder) -> DataFrame:
    """Return the rows with a column of Vectors, which are computed where it is read.

    A model that is trained on it, or scores it, next, computes them itself: ``sparkopt.blocks.encoded``.
    """

    def features(rows: pa.Array) -> pa.Array:
        spare_modules()
        return encoder.vectors(rows.flatten())

    features.__annotations__ = {"rows": pa.Array, "return": pa.Array}
    udf = arrow_udf(features, STRUCT)  # type: ignore[call-overload]  # its stubs lack structs
    rows = row_wise(df, {INPUTS: raw_struct(df.schema, encoder.columns)})
    return remember(rows.withColumn(name, struct_to_vector(udf(F.col(INPUTS)))).drop(INPUTS), name, encoder)
