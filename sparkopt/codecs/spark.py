"""Compression of DataFrame columns, value by value, and a comparison of codecs on them: what needs Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.pandas.types import to_arrow_type

from sparkopt.codecs.base import MAX_SIZE
from sparkopt.codecs.comparison import NO_CODEC, CodecComparison, byte_codecs, measure
from sparkopt.codecs.registry import codec_names, compress, decompress, get_codec
from sparkopt.errors import CorruptDataError, DataError, SchemaError
from sparkopt.io.arrow import binary_values
from sparkopt.io.worker import spare_modules
from sparkopt.validation import Interval, OneOf, check

__all__ = ["METADATA_KEY", "compare", "compress_column", "decompress_column"]

METADATA_KEY = "sparkopt.codec"
"""Key in the column's metadata: the codec's name, and the type that the column had as JSON."""

_NUMBERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.FloatType, T.DoubleType)


def compress_column(
    df: DataFrame, column: str, codec: str = "zstd", level: int | None = None, output: str | None = None
) -> DataFrame:
    """Compress each value of a column.

    It pays for values of some hundred bytes and more: texts, serialised objects, vectors as arrays. The column's
    metadata hold the codec and the type, so `decompress_column` needs only the name. Null stays null.

    Parameters
    ----------
    df : DataFrame
        The data.
    column : str
        A binary, string or array column; elements of arrays must be numbers and not null.
    codec : str, default "zstd"
        A lossless codec of bytes.
    level : int, optional
        Level of the codec.
    output : str, optional
        Name of the binary column that is written; by default ``column`` is replaced.

    Returns
    -------
    DataFrame

    Raises
    ------
    SchemaError
        If the column is missing or of another type.
    ParameterError
        If the codec is unknown or lossy, or does not know the level.
    DataError
        From the job, if an array holds a null.

    Examples
    --------
    >>> from sparkopt.codecs import compress_column, decompress_column
    >>> packed = compress_column(df, "text", "zstd")
    >>> decompress_column(packed, "text").schema["text"].dataType
    StringType()
    """
    check("codec", codec, OneOf(name for name in codec_names(lossless=True) if name != "png"))
    get_codec(codec).level(level)
    kind = _field(df, column).dataType
    if not _compressible(kind):
        raise SchemaError(
            f"Column {column!r} has type {kind.simpleString()}; only binary, string and array<number> columns can be "
            "compressed. Turn vectors into arrays with pyspark.ml.functions.vector_to_array first."
        )
    function = _arrow_udf(_encoder(column, codec, level), T.BinaryType())
    name = column if output is None else output
    metadata = {METADATA_KEY: {"name": codec, "type": kind.json()}}
    return _with_column(df, name, function(_column(df, column)), metadata)


def decompress_column(df: DataFrame, column: str, output: str | None = None, max_size: int = MAX_SIZE) -> DataFrame:
    """Undo `compress_column`.

    Parameters
    ----------
    df : DataFrame
        The data.
    column : str
        A column that `compress_column` wrote; its metadata must have been kept.
    output : str, optional
        Name of the column that is written; by default ``column`` is replaced.
    max_size : int, default 2**30
        Largest number of decoded bytes of one value.

    Returns
    -------
    DataFrame
        With the column in its original type.

    Raises
    ------
    SchemaError
        If the column is missing or its metadata name no codec.
    CorruptDataError
        From the job, if a value is damaged or too large; the message names column, partition and codec.
    """
    check("max_size", max_size, Interval(0, None, whole=True))
    field = _field(df, column)
    if METADATA_KEY not in field.metadata or not isinstance(field.dataType, T.BinaryType):
        raise SchemaError(
            f"Column {column!r} cannot be decompressed: its metadata lack {METADATA_KEY!r}. "
            "Pass a column that compress_column wrote; formats without metadata, such as CSV, lose it."
        )
    stored = field.metadata[METADATA_KEY]
    kind = _type_from_json(stored["type"])
    function = _arrow_udf(_decoder(column, stored["name"], max_size, to_arrow_type(kind)), kind)
    name = column if output is None else output
    return _with_column(df, name, function(_column(df, column)), {})


def compare(
    df: DataFrame,
    columns: Sequence[str],
    codecs: Sequence[str] | None = None,
    rows: int = 10_000,
    bandwidth: float = 125e6,
) -> CodecComparison:
    """Measure codecs on the first rows of a DataFrame.

    Binary, string and array columns are measured value by value, as `compress_column` encodes them; a numeric column
    as one block of all its values, like blocks on disk and in shuffles.

    Parameters
    ----------
    df : DataFrame
        The data. For sorted data pass ``df.sample(0.01)``: their first rows are not representative.
    columns : sequence of str
        Columns to measure.
    codecs : sequence of str, optional
        Lossless codecs; by default all whose packages are installed. "none" is always among them.
    rows : int, default 10000
        Rows to measure; they are collected to the driver.
    bandwidth : float, default 125e6
        Speed of the link that the recommendation is for, in bytes per second; 125e6 is 1 Gbit/s.

    Returns
    -------
    CodecComparison
        Print it, or use ``to_pandas()`` and ``recommend()``.
    """
    check("rows", rows, Interval(1, None, whole=True))
    check("bandwidth", bandwidth, Interval(0, None, "neither"))
    chosen = byte_codecs() if codecs is None else list(codecs)
    for name in chosen:
        check("codecs", name, OneOf([*byte_codecs(), NO_CODEC]))
    for column in columns:
        kind = _field(df, column).dataType
        if not (_compressible(kind) or isinstance(kind, _NUMBERS)):
            raise SchemaError(f"Column {column!r} has type {kind.simpleString()}, which cannot be measured.")
    table = df.select(*(_column(df, column) for column in columns)).limit(rows).toArrow()
    measurements = []
    for column in columns:
        values = _values(column, table[column].combine_chunks())
        for name in [NO_CODEC, *(one for one in chosen if one != NO_CODEC)]:
            measurements.append(measure(column, values, name))
    return CodecComparison(tuple(measurements), float(bandwidth))


def _column(df: DataFrame, column: str) -> Column:
    return df["`" + column.replace("`", "``") + "`"]


def _arrow_udf(function: Callable[[pa.Array], pa.Array], kind: T.DataType) -> Callable[[Column], Column]:
    return arrow_udf(function, kind)  # type: ignore[call-overload,no-any-return,unused-ignore]  # kind is in the hints


def _with_column(df: DataFrame, name: str, value: Column, metadata: dict[str, Any]) -> DataFrame:
    """Do what withColumn and withMetadata do; the latter does not find names with a dot."""
    columns = {column: _column(df, column) for column in df.columns}
    columns[name] = value.alias(name, metadata=metadata)
    return df.select(*columns.values())


def _field(df: DataFrame, column: str) -> T.StructField:
    fields = {field.name: field for field in df.schema.fields}
    if column not in fields:
        raise SchemaError(f"There is no column {column!r}. The columns are: {', '.join(fields)}.")
    return fields[column]


def _compressible(kind: T.DataType) -> bool:
    if isinstance(kind, T.ArrayType):
        return isinstance(kind.elementType, _NUMBERS)
    return isinstance(kind, (T.BinaryType, T.StringType))


def _type_from_json(text: str) -> T.DataType:
    return T._parse_datatype_json_string(text)


def _encoder(column: str, codec: str, level: int | None) -> Callable[[pa.Array], pa.Array]:
    def encode(values: pa.Array) -> pa.Array:
        spare_modules()
        return _binary([None if raw is None else compress(raw, codec, level) for raw in _raw(column, values)])

    return encode


def _decoder(column: str, codec: str, max_size: int, kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    def decode(values: pa.Array) -> pa.Array:
        spare_modules()
        try:
            packed = binary_values(values)
            return _restored([None if one is None else decompress(one, codec, max_size) for one in packed], kind)
        except (CorruptDataError, pa.ArrowInvalid, ValueError) as error:
            raise CorruptDataError(f"Column {column!r}, partition {_partition()}, codec {codec}: {error}") from error

    return decode


def _partition() -> str:
    context = TaskContext.get()
    return str(context.partitionId()) if context else "unknown"


def _binary(values: list[bytes | None]) -> pa.Array:
    result = pa.array(values, pa.binary())
    if isinstance(result, pa.ChunkedArray):
        raise DataError("A batch exceeds 2 GiB. Lower spark.sql.execution.arrow.maxRecordsPerBatch.")
    return result


def _raw(column: str, values: pa.Array) -> list[Any]:
    """Return each value as bytes, null as None; arrays as their numbers in little-endian order."""
    if not pa.types.is_list(values.type):
        return binary_values(values)
    if values.flatten().null_count:
        raise DataError(
            f"Column {column!r}, partition {_partition()}: an array holds a null, which cannot be kept. "
            "Replace it first."
        )
    return [value.values.to_numpy().tobytes() if value.is_valid else None for value in values]


def _values(column: str, values: pa.Array) -> list[bytes]:
    """Return what `measure` encodes: values one by one, or a numeric column as one block."""
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        return [values.drop_null().to_numpy().tobytes()]
    return [bytes(raw) for raw in _raw(column, values) if raw is not None]


def _restored(raw: list[bytes | None], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        array = _binary(raw).cast(kind)
        array.validate(full=True)
        return array
    dtype = kind.value_type.to_pandas_dtype()
    return pa.array([None if value is None else np.frombuffer(value, dtype) for value in raw], kind)
