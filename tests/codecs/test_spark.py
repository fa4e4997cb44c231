"""Columns in Spark: exact round trips, metadata, errors; and the comparison."""

import subprocess
import sys

import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.sql import functions as F

from sparkopt import codecs
from sparkopt.codecs import compare, compress_column, decompress_column
from sparkopt.codecs.comparison import CodecComparison, Measurement
from sparkopt.codecs.spark import METADATA_KEY
from sparkopt.errors import ParameterError, SchemaError

SCHEMA = (
    "id long, text string, data binary, wide array<double>, narrow array<float>, whole array<long>, `a.b c` string"
)
ROWS = [
    (0, "spark " * 50, b"\0\1" * 100, [1.0, -0.0, float("inf")], [0.5, 1.5], [1, -(2**63)], "x"),
    (1, "", b"", [], [], [], ""),
    (2, None, None, None, None, None, None),
    (3, "Zürich ✓ 東京", bytes(range(256)), [float("nan")], [3.25] * 99, [7] * 50, "y" * 300),
]
COMPRESSIBLE = ["text", "data", "wide", "narrow", "whole", "a.b c"]


@pytest.fixture(scope="module")
def df(spark):
    return spark.createDataFrame(ROWS, SCHEMA).repartition(2).cache()


def in_order(df):
    return df.orderBy("id").toArrow().to_pylist()


@pytest.mark.parametrize("codec", ["zstd", "gzip", "packbits"])
def test_round_trip_is_exact(df, codec):
    packed = df
    for column in COMPRESSIBLE:
        packed = compress_column(packed, column, codec)
        assert packed.schema[column].dataType.simpleString() == "binary"
        assert packed.schema[column].metadata[METADATA_KEY]["name"] == codec
    restored = packed
    for column in COMPRESSIBLE:
        restored = decompress_column(restored, column)
        assert METADATA_KEY not in restored.schema[column].metadata
    assert [field.dataType for field in restored.schema] == [field.dataType for field in df.schema]
    assert restored.columns == df.columns
    np.testing.assert_equal(in_order(restored), in_order(df))  # NaN equals NaN here


def test_metadata_survive_parquet_and_values_are_what_compress_writes(df, spark, tmp_path):
    path = str(tmp_path / "packed")
    compress_column(df, "text", "bz2", level=1, output="packed").write.parquet(path)
    read = spark.read.parquet(path)
    first = read.where("id = 0").first()
    assert bytes(first["packed"]) == codecs.compress(ROWS[0][1].encode(), "bz2", 1)
    assert decompress_column(read, "packed", output="again").where("text <=> again").count() == len(ROWS)


def test_damage_names_column_codec_and_partition(df):
    packed = compress_column(df, "text", "zstd")
    cut = packed.withColumn("text", F.expr("substring(text, 1, 20)")).withMetadata(
        "text", packed.schema["text"].metadata
    )
    with pytest.raises(PythonException, match=r"(?s)Column 'text', partition \d+, codec zstd: Not valid zstd data"):
        decompress_column(cut, "text").collect()
    with pytest.raises(PythonException, match="max_size = 10 bytes"):
        decompress_column(packed, "text", max_size=10).collect()


def test_nulls_inside_arrays_are_refused(spark):
    nulls = spark.createDataFrame([([1.0, None],)], "wide array<double>")
    with pytest.raises(PythonException, match="Column 'wide'.*an array holds a null"):
        compress_column(nulls, "wide").collect()


def test_bad_requests_are_refused_before_any_job(df):
    with pytest.raises(SchemaError, match="no column 'nope'"):
        compress_column(df, "nope")
    with pytest.raises(SchemaError, match="'id' has type bigint"):
        compress_column(df, "id")
    with pytest.raises(ParameterError, match="codec must be one of"):
        compress_column(df, "text", "jpeg")
    with pytest.raises(ParameterError, match="level of codec"):
        compress_column(df, "text", "zstd", level=99)
    with pytest.raises(SchemaError, match="'data' cannot be decompressed: its metadata lack"):
        decompress_column(df, "data")


def test_compare_measures_the_users_data(df):
    result = compare(df, ["id", "text", "wide"], codecs=["zstd", "snappy"], bandwidth=1e3)
    table = result.to_pandas()
    assert set(table["column"]) == {"id", "text", "wide"}
    assert set(table["codec"]) == {"none", "zstd", "snappy"}
    assert {one.raw for one in result.measurements if one.column == "id"} == {4 * 8}
    texts = sum(len(row[1].encode()) for row in ROWS if row[1] is not None)
    assert {one.raw for one in result.measurements if one.column == "text"} == {texts}
    assert table.groupby("column")["recommended"].sum().eq(1).all()
    assert "zstd" in str(result)
    with pytest.raises(ParameterError, match="codecs must be one of"):
        compare(df, ["text"], codecs=["mp3"])
    with pytest.raises(SchemaError, match="no column"):
        compare(df, ["nope"])


def test_the_recommendation_follows_the_link():
    plain = Measurement("x", "none", 1000, 1000, 0.0, 0.0)
    small = Measurement("x", "slow and small", 1000, 100, 1.0, 1.0)
    light = Measurement("x", "fast and large", 1000, 500, 0.01, 0.01)
    result = CodecComparison((plain, small, light), bandwidth=1e9)
    assert result.recommend() == {"x": "none"}
    assert result.recommend(10_000) == {"x": "fast and large"}
    assert result.recommend(100) == {"x": "slow and small"}


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, sparkopt, sparkopt.codecs;"
        "print([m for m in ('torch', 'horovod', 'cv2', 'pyspark', 'soundfile', 'imagecodecs') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    assert "compress_column" in dir(codecs)
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = codecs.nothing_like_this
