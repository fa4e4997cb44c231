"""Rows of a table on their way to blocks: its columns under the roles and types that the checks of rows expect.

The same checks as on Spark, of the same types: a schema of Arrow becomes one of Spark, which needs no JVM.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DecimalType,
    FloatType,
    IntegerType,
    LongType,
    NullType,
    ShortType,
    StringType,
    StructField,
    StructType,
)

from sparkopt.blocks.columns import (
    FEATURES,
    FOLD,
    LABEL,
    OFFSET,
    RAW,
    VALIDATION,
    WEIGHT,
    Columns,
    FeatureEncoder,
    column_type,
    features_type,
)
from sparkopt.blocks.names import NamedColumns, path_of
from sparkopt.blocks.parquet import (
    ANY,
    ARRAY,
    ASSEMBLED,
    NUMBER,
    VECTOR,
    ColumnSource,
    FilePart,
    NotReadHere,
    ParquetReader,
)
from sparkopt.errors import DataError
from sparkopt.machine.derived import DerivedPart, derived
from sparkopt.machine.parquet import ParquetPart
from sparkopt.machine.part import UNREADABLE, TablePart
from sparkopt.machine.table import Table
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = [
    "TableReader",
    "named_columns",
    "named_table",
    "number_of",
    "numbers",
    "scoring_reader",
    "spark_schema",
    "unencoded",
]

ROW_METADATA = b"org.apache.spark.sql.parquet.row.metadata"
"""Where Spark keeps its own schema in a Parquet file."""

OTHERS: Mapping[pa.DataType, DataType] = {
    pa.uint8(): ShortType(),
    pa.uint16(): IntegerType(),
    pa.uint32(): LongType(),
    pa.uint64(): DecimalType(20, 0),
    pa.float16(): FloatType(),
    pa.string_view(): StringType(),
    pa.binary_view(): BinaryType(),
    pa.null(): NullType(),
}
"""Types of Arrow that Spark has not, and those of Spark that hold their values."""


class OtherType(DataType):
    """The type of a column that Spark has no type for; errors show its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def simpleString(self) -> str:
        """Return the name."""
        return self.name


def spark_schema(schema: pa.Schema) -> StructType:
    """Return the columns of a table as Spark has them; a Vector struct is a Vector.

    Examples
    --------
    >>> import pyarrow as pa
    >>> spark_schema(pa.schema({"x": pa.list_(pa.float32()), "y": pa.uint8()})).simpleString()
    'struct<x:array<float>,y:smallint>'
    """
    known = _metadata(schema)
    fields = []
    for field in schema:
        reason = (field.metadata or {}).get(UNREADABLE)
        kind = _type(field.type) if reason is None else OtherType(reason.decode())
        fields.append(StructField(field.name, kind, field.nullable, known.get(field.name)))
    return StructType(fields)


def _metadata(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what Spark has noted of columns in Parquet files that it wrote, such as the values of a label."""
    found = (schema.metadata or {}).get(ROW_METADATA)
    try:
        fields = json.loads(found)["fields"] if found else []
        return {field["name"]: field["metadata"] for field in fields}
    except (ValueError, KeyError, TypeError):  # another writer's
        return {}


def _type(found: pa.DataType) -> DataType:
    if found in OTHERS:
        return OTHERS[found]
    if pa.types.is_dictionary(found):
        return _type(found.value_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        return ArrayType(_type(found.value_type))
    if _is_vector(found):
        from pyspark.ml.linalg import VectorUDT  # here, since it loads pandas

        return VectorUDT()
    try:
        return from_arrow_type(found)
    except Exception as error:
        if "UNSUPPORTED_DATA_TYPE" not in str(error):
            raise
        return OtherType(str(found))


def _is_vector(found: pa.DataType) -> bool:
    return pa.types.is_struct(found) and [field.name for field in found] == ["type", "size", "indices", "values"]


@dataclass(frozen=True)
class TableReader:
    """Reads a table's partitions as the batches that the checks of rows expect, as `ParquetReader` does on Spark.

    Parameters
    ----------
    reader : ParquetReader
        How the rows are made of the table's columns.
    raw : tuple of str, default none
        Columns that are given as they are, for an encoder of features.
    """

    reader: ParquetReader
    raw: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: pa.Schema, columns: Columns) -> TableReader:
        """Return the reader of some columns.

        Raises
        ------
        SchemaError
            For a wrong column.
        """
        known = spark_schema(schema)
        columns.check(known)
        sources = {} if columns.encoder else {FEATURES: _features(known, columns.features)}
        roles: dict[str, str | None] = {LABEL: columns.label, WEIGHT: columns.weight, OFFSET: columns.offset}
        roles |= {VALIDATION: columns.validation, FOLD: columns.fold}
        roles |= columns.more_roles
        sources |= {role: _source(NUMBER, [name]) for role, name in roles.items() if name is not None}
        return cls(ParquetReader(sources), columns.encoder.columns if columns.encoder else ())

    @property
    def names(self) -> list[str]:
        """The table's columns that are read, each once."""
        names = (name for source in self.reader.every_source for name in source.names)
        return list(dict.fromkeys([*names, *self.raw]))

    def __call__(self, part: TablePart) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one partition.

        Raises
        ------
        DataError
            Where its files are gone, were changed or cannot be read.
        """
        if isinstance(part, ParquetPart) and not self.raw:
            files = [
                FilePart(
                    piece.name,
                    0,
                    piece.size,
                    piece.size,
                    piece.modified,
                    piece.constants,
                    piece.groups,
                    piece.location,
                    piece.span,
                )
                for piece in part.pieces
            ]
            try:
                yield from self.reader(files)
            except NotReadHere as reason:  # no other reader could read it
                raise DataError(f"{reason}. Make the table again.") from None
        else:
            for batch in part.coded(self.names) if self.raw else part.batches(self.names):
                yield _with_raw(self.reader.made(batch, {}), batch, self.raw)


def _with_raw(made: pa.RecordBatch, batch: pa.RecordBatch, raw: Sequence[str]) -> pa.RecordBatch:
    if not raw:
        return made
    columns = [*made.columns, *(batch.column(name) for name in raw)]
    return pa.RecordBatch.from_arrays(
        columns, [*made.schema.names, *(f"{RAW}{number}" for number in range(len(raw)))]
    )


def unencoded(table: Table, features: str | Sequence[str]) -> tuple[Table, FeatureEncoder | None]:
    """Return a table whose partitions do not compute the column of features, and what makes it of their raw columns.

    So its values are no Vectors on their way to blocks. Where nothing makes it, or several do, the table is returned.
    """
    parts, encoders = list[TablePart](), dict[int, FeatureEncoder]()
    for part in table.partitions:
        found = _raw_part(part, features)
        if found is None:
            return table, None
        parts.append(found[0])
        encoders[id(found[1])] = found[1]
    if len(encoders) != 1:
        return table, None
    return table.with_parts(parts), next(iter(encoders.values()))


def _raw_part(part: TablePart, features: str | Sequence[str]) -> tuple[TablePart, FeatureEncoder] | None:
    """Return a partition without what adds the features, and what makes them."""
    if not isinstance(part, DerivedPart):
        return None
    encoder: FeatureEncoder | None = getattr(part.function, "encoder", None)
    if part.added == (features,):
        return None if encoder is None else (part.part, encoder)
    if features in part.read or features in part.added:
        return None
    found = _raw_part(part.part, features)
    return None if found is None else (replace(part, part=found[0]), found[1])


def _source(kind: str, names: list[str], *casts: str) -> ColumnSource:
    return ColumnSource(kind, names, [ANY] * len(names), [casts] * len(names))


def _features(schema: StructType, features: str | Sequence[str]) -> ColumnSource:
    kind = features_type(schema, features)
    if kind == "vector":
        return _source(VECTOR, [str(features)])
    if isinstance(features, str):
        return _source(ARRAY, [features], kind)
    return _source(ASSEMBLED, list(features), kind)


def scoring_reader(schema: StructType, features: str | Sequence[str], offset: str | None = None) -> ParquetReader:
    """Return what makes features, and offsets, of a table's columns, under the names that a model is given.

    Raises
    ------
    SchemaError
        For a wrong column.
    """
    sources = {FEATURES: _features(schema, features)}
    if offset is not None:
        column_type(schema, offset, OFFSET)
        sources[OFFSET] = _source(NUMBER, [offset])
    return ParquetReader(sources)


def named_columns(schema: pa.Schema, names: Iterable[str | None], role: str = "input") -> NamedColumns | None:
    """Return what adds columns under the names by which they are asked for; None where all have these names.

    Raises
    ------
    SchemaError
        Where several columns have a name.
    """
    there = set(schema.names)
    missing = [name for name in dict.fromkeys(names) if name is not None and name not in there]
    if not missing:
        return None
    known = spark_schema(schema)
    found = ((name, path_of(known, name, role)) for name in missing)
    return NamedColumns(tuple((name, path) for name, path in found if path is not None))


def named_table(table: Table, names: Iterable[str | None]) -> Table:
    """Return a table with further columns, where names are of fields or in another case; missing ones stay so."""
    function = named_columns(table.schema, names)
    if function is None or not function.paths:
        return table
    read, added = [path[0] for _, path in function.paths], [name for name, _ in function.paths]
    return derived(table, function, function.schema(table.schema), read, added)


def number_of(batch: pa.RecordBatch, name: str) -> Array:
    """Return a column of numbers as doubles, in which null is NaN."""
    return ParquetReader({name: _source(NUMBER, [name])}).number(batch, name)


def numbers(parts: Iterable[TablePart], columns: Sequence[str]) -> Iterator[Array]:
    """Yield some columns of numbers batch by batch, (rows, columns) as doubles in which null is NaN."""
    reader = ParquetReader({name: _source(NUMBER, [name]) for name in columns})
    for part in parts:
        for batch in part.batches(list(reader.sources)):
            yield np.stack([reader.number(batch, name) for name in columns], axis=1)
