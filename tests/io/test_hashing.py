"""xxhash64 is Spark's: of every type, null or not, whatever part of a column it is given."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from sparkopt.errors import SchemaError
from sparkopt.io.hashing import xxhash64

ROWS = 75
FIRST = datetime.datetime(1960, 1, 1, tzinfo=datetime.UTC)


def some(values):
    """Every seventh is null."""
    return [None if row % 7 == 3 else value for row, value in enumerate(values)]


def table():
    """A column of each type; bytes of every length up to 70, and of lengths that are worth several stripes."""
    rng, rows = np.random.default_rng(0), range(ROWS)
    small, large = range(-30, ROWS - 30), [row * 12345678901 - 4 * 10**9 for row in rows]
    real = [0.0, -0.0, float("nan"), float("inf"), *rng.normal(size=ROWS - 4)]
    blobs = [rng.bytes(size) for size in (*range(71), 100, 1000, 1023, 40000)]
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(row) for row in rows]
    moments = [FIRST + datetime.timedelta(500 * row, microseconds=row) for row in rows]
    prices = [decimal.Decimal(row * 1234567 - 8000000) / 100 for row in rows]
    columns = {
        "boolean": ([bool(row % 2) for row in rows], pa.bool_()),
        "byte": (small, pa.int8()),
        "short": (small, pa.int16()),
        "int": ([row * 123456 - 4000000 for row in rows], pa.int32()),
        "long": (large, pa.int64()),
        "float": (real, pa.float32()),
        "double": (real, pa.float64()),
        "text": ([f"é{row}" * row for row in rows], pa.string()),
        "bytes": (blobs, pa.binary()),
        "date": (days, pa.date32()),
        "timestamp": (moments, pa.timestamp("us", "UTC")),
        "decimal": (prices, pa.decimal128(12, 2)),
        "list": ([rng.normal(size=row % 5) for row in rows], pa.list_(pa.float32())),
        "list with nulls": ([[float(row), None, -0.0] for row in rows], pa.list_(pa.float64())),
        "nested": ([[[row, row + 1], [], None] for row in rows], pa.list_(pa.list_(pa.int64()))),
        "struct": ([{"a": row, "b": "x" * row} for row in rows], None),
    }
    return pa.table({name: pa.array(some(values), kind) for name, (values, kind) in columns.items()})


@pytest.mark.usefixtures("minutes")
def test_every_type_is_hashed_as_spark_does(spark):
    from pyspark.sql import functions as F

    rows = table()
    quoted = [f"`{name}`" for name in rows.column_names]
    hashed = spark.createDataFrame(rows).select(*[F.xxhash64(name) for name in quoted], F.xxhash64(F.lit(7), *quoted))
    *each, whole = hashed.toArrow().columns
    columns = [column.combine_chunks() for column in rows.columns]
    for name, column, expected in zip(rows.column_names, columns, each, strict=True):
        np.testing.assert_array_equal(xxhash64([column]), expected, err_msg=name)
    np.testing.assert_array_equal(xxhash64([pa.array(np.full(ROWS, 7), pa.int32()), *columns]), whole)


def test_what_spark_gave():
    """Computed by Spark 4, for a machine without one; the length of the last has stripes, words and single bytes."""
    assert xxhash64([pa.array([1, None], pa.int32())]).tolist() == [-6698625589789238999, 42]
    documented = [pa.array(["Spark"]), pa.array([[123]], pa.list_(pa.int32())), pa.array([2], pa.int32())]
    assert xxhash64(documented).tolist() == [5602566077635097486]
    columns = [column.combine_chunks() for column in table().columns]
    assert [int(xxhash64([column]).sum()) for column in columns] == SUMS


SUMS = [
    3861327983458202904, 7029473832768068023, 7029473832768068023, 2070913185362242295, -7234031694110803774,
    -8341580558233224854, -7484600898899753507, 1019184715380055236, 4409232082625588032, -6569604523149495148,
    1994466324621583977, -603518255252840222, 3364738751017973330, 9161758736486526927, -1915532226760654607,
    8327143399248835264,
]  # fmt: skip


def test_a_slice_is_hashed_as_in_its_column():
    columns = [column.combine_chunks() for column in table().columns]
    whole = xxhash64(columns)
    np.testing.assert_array_equal(xxhash64([column.slice(5, 40) for column in columns]), whole[5:45])


def test_kinds_of_arrow_that_spark_has_not():
    """Fixed lengths, dictionaries and large offsets are hashed as what they hold."""
    lists = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))
    text = pa.array(["a", "bc", "a"])
    same = [
        (lists, lists.cast(pa.list_(pa.float32(), 2)).slice(1)),
        (lists, lists.cast(pa.large_list(pa.float32())).slice(1)),
        (text, text.dictionary_encode().slice(1)),
        (text, text.cast(pa.large_string()).slice(1)),
    ]
    for plain, other in same:
        np.testing.assert_array_equal(xxhash64([other]), xxhash64([plain])[1:])


def test_a_type_without_a_hash_is_refused():
    with pytest.raises(SchemaError, match="values of type time64"):
        xxhash64([pa.array([1], pa.time64("us"))])
