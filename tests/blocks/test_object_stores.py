"""Parquet files of object stores, read by Arrow in the tasks: the rows, partitions and bits of Spark's own reader.

Hadoop's view file system stands for the store on Spark's side, and a folder on Arrow's: tests have no network.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs, parquet

from sparkopt import BlockStore, Columns
from sparkopt.blocks import store as stores
from sparkopt.blocks.scan import SETTING
from sparkopt.io import object_stores
from sparkopt.validation import Interval

VIEW = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
COLUMNS = Columns(["a", "b"], "label")


@pytest.fixture
def bucket(spark, tmp_path, monkeypatch):
    """Files that Spark and Arrow both find as s3a://bucket/data/rows of May."""
    folder = tmp_path / "bucket" / "data" / "rows of May"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        rows = {"a": rng.normal(size=200), "b": rng.normal(size=200), "label": np.arange(200) % 2.0}
        parquet.write_table(pa.table(rows), folder / f"{number}.parquet", row_group_size=50)
    settings = {
        "fs.s3a.impl": VIEW,
        "fs.s3a.impl.disable.cache": "true",  # each test has a folder of its own
        "fs.viewfs.mounttable.bucket.link./data": f"file://{tmp_path}/bucket/data",
        "fs.viewfs.overload.scheme.target.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
        "spark.sql.files.maxPartitionBytes": "5000",
        "spark.sql.files.openCostInBytes": "0",
    }
    for name, value in settings.items():
        spark.conf.set(name, value)
    monkeypatch.setitem(object_stores.IMPLEMENTATIONS, "s3a", (VIEW,))
    there = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(object_stores.ObjectStores, "_s3", lambda self, name: there)
    yield folder
    for name in (*settings, SETTING):
        spark.conf.unset(name)


def written(spark):
    """Return what reads the rows, and the blocks' bytes by partition."""
    df = spark.read.parquet("s3a://bucket/data/rows of May")
    with BlockStore.write(df, COLUMNS, Interval()) as store:
        return store.reader, contents(store)


def contents(store):
    def of(part, blocks):
        return [(blocks[i].X.tobytes(), blocks[i].y.tobytes()) for i in range(len(blocks.starts) - 1)]

    return {result.partition: result.value for result in store.collect(of)}


def test_arrow_reads_what_spark_reads(spark, bucket):
    reader, found = written(spark)
    assert reader == "arrow: Parquet files, 3"
    spark.conf.set(SETTING, "spark")
    assert found == written(spark)[1]
    assert len(found) > 3


def test_another_implementation_is_sparks(spark, bucket, monkeypatch):
    monkeypatch.setitem(object_stores.IMPLEMENTATIONS, "s3a", ("another",))
    assert written(spark)[0] == f"spark: s3a: is opened by {VIEW}"


def test_what_arrow_does_not_find_is_sparks(spark, bucket, monkeypatch, tmp_path):
    nothing = fs.SubTreeFileSystem(str(tmp_path / "elsewhere"), fs.LocalFileSystem())
    monkeypatch.setattr(object_stores.ObjectStores, "_s3", lambda self, name: nothing)
    reader, found = written(spark)
    assert reader.startswith("spark: s3a://bucket/data/rows%20of%20May/")
    assert reader.endswith(".parquet is not found by Arrow")
    assert sum(map(len, found.values())) > 0


def test_tasks_without_hadoops_library_leave_hdfs_to_spark(spark, bucket, monkeypatch, tmp_path):
    for name in ("CLASSPATH", "ARROW_LIBHDFS_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    spark.conf.set("fs.hdfs.impl", VIEW)
    spark.conf.set("fs.hdfs.impl.disable.cache", "true")
    df = spark.read.parquet("hdfs://bucket/data/rows of May")
    with BlockStore.write(df, COLUMNS, Interval()) as store:
        assert store.reader.startswith("spark: file='hdfs://bucket/data/rows%20of%20May/")
        assert "libhdfs" in store.reader
        assert sum(store.rows) == 600
    for name in ("fs.hdfs.impl", "fs.hdfs.impl.disable.cache"):
        spark.conf.unset(name)


def test_times_are_compared_in_full_seconds_and_a_replaced_file_is_sparks(spark, bucket):
    df = spark.read.parquet("s3a://bucket/data/rows of May")
    df.count()
    one = bucket / "1.parquet"
    listed = one.stat().st_mtime_ns
    for moved, reader in ((0, "arrow"), (5_000_000_000, "spark")):
        second = listed // 1_000_000_000 * 1_000_000_000
        os.utime(one, ns=(second + moved, second + moved))
        with BlockStore.write(df, COLUMNS, Interval()) as store:
            assert store.reader.startswith(reader)


def test_tasks_prefer_the_machines_that_hold_their_files(spark, bucket, monkeypatch):
    """Spark knows no machine of this store, so some are given."""
    found, scan_of = {}, stores.parquet_scan

    def placed(selected):
        found["scan"] = scan = scan_of(selected)
        return replace(scan, hosts=[[f"host{number}", "other"] for number in range(len(scan.partitions))])

    before = written(spark)
    monkeypatch.setattr(stores, "parquet_scan", placed)
    df = spark.read.parquet("s3a://bucket/data/rows of May")
    with BlockStore.write(df, COLUMNS, Interval()) as store:
        assert (store.reader, contents(store)) == before
        files = store._backend._written()._jrdd.rdd().dependencies().head().rdd()
        hosts = [files.preferredLocations(partition).mkString(",") for partition in files.partitions()]
    assert found["scan"].hosts == ()
    assert hosts == [f"host{number},other" for number in range(len(hosts))]
