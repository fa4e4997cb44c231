"""Which rows a model is trained on, and the names of their features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pyspark.sql import functions as F

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.encoded import encoder_of, remember
from sparkopt.blocks.names import column_text
from sparkopt.blocks.rows import Rows, schema_of
from sparkopt.blocks.tables import named_table
from sparkopt.machine.table import Table

__all__ = ["NAMES", "feature_names", "training_rows"]

NAMES = b"sparkopt.features"
"""Metadata of a table's column of features: their names, as JSON."""


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
        return rows.with_parts(found.partitions)
    kept, encoder = (
        rows.where(~F.col(column_text(rows.schema, columns.validation, "validation"))),
        encoder_of(rows, columns.features),
    )
    return kept if encoder is None else remember(kept, columns.feature_names, encoder)
