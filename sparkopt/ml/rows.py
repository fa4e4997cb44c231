"""Rows as estimators and models are given them: a Spark DataFrame, or what `Table.of` takes, which needs no Spark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.encoded import encoder_of, remember
from sparkopt.blocks.names import column_text
from sparkopt.blocks.tables import named_table, spark_schema
from sparkopt.errors import IncompatibleError
from sparkopt.machine.table import Table

__all__ = ["NAMES", "Rows", "feature_names", "rows_of", "rows_to_fit", "schema_of", "training_rows"]

Rows: TypeAlias = DataFrame | Table
NAMES = b"sparkopt.features"
"""Metadata of a table's column of features: their names, as JSON."""


def rows_of(data: Any) -> Rows:
    """Return a DataFrame as it is, and anything else as a table."""
    return data if _is_spark(data) else Table.of(data)


def rows_to_fit(data: Any) -> Rows:
    """Return the same, for a fit.

    Raises
    ------
    IncompatibleError
        For a stream, which has no end.
    """
    rows = rows_of(data)
    if not isinstance(rows, Table) and rows.isStreaming:
        raise IncompatibleError(
            "a streaming DataFrame cannot be trained on, since it has no end. Fit on spark.read instead of "
            "spark.readStream, or each batch by writeStream.foreachBatch; models score streams by transform."
        )
    return rows


def schema_of(rows: Rows) -> StructType:
    """Return the columns as Spark has them."""
    return spark_schema(rows.schema) if isinstance(rows, Table) else rows.schema


def feature_names(rows: Rows, features: str | Sequence[str]) -> list[str]:
    """Return the names of the features where they are known: of columns, of raw columns, or of ML attributes."""
    if not isinstance(features, str):
        return list(features)
    if isinstance(rows, Table):
        field = rows.schema.field(features) if features in rows.names else None
        found = (field.metadata or {}).get(NAMES) if field is not None else None
        if found is not None:
            return list(map(str, json.loads(found)))
    elif (encoder := encoder_of(rows, features)) is not None:
        return list(encoder.names)
    schema = schema_of(rows)
    metadata = schema[features].metadata if features in schema.names else {}
    return _of_attributes(metadata.get("ml_attr", {}))


def _of_attributes(known: dict[str, Any]) -> list[str]:
    """Return the names that pyspark.ml's stages have noted of a column of Vectors; none where one has no name."""
    attributes = [one for group in known.get("attrs", {}).values() for one in group]
    names = {one["idx"]: one["name"] for one in attributes if "idx" in one and "name" in one}
    size = known.get("num_attrs", len(attributes))
    return [names[index] for index in range(size)] if size and len(names) == size else []


def training_rows(rows: Rows, columns: Columns) -> Rows:
    """Return the rows that are not for validation alone."""
    if columns.validation is None:
        return rows
    if isinstance(rows, Table):
        found = named_table(rows, [columns.validation]).without(columns.validation)
        return Table(rows.schema, found.partitions, found.keeps)
    kept, encoder = (
        rows.where(~F.col(column_text(rows.schema, columns.validation, "validation"))),
        encoder_of(rows, columns.features),
    )
    return kept if encoder is None else remember(kept, columns.feature_names, encoder)


def _is_spark(data: Any) -> bool:
    """Whether it is a DataFrame of Spark, of Classic or Connect."""
    return isinstance(data, DataFrame) or type(data).__module__.startswith("pyspark.sql.")
