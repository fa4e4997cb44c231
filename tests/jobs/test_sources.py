"""Rows in every format are the same rows, and a change of them is seen."""

from __future__ import annotations

import pytest

from sparkopt.jobs.runtimes.spark import SparkRuntime
from sparkopt.jobs.sources import DataSource
from sparkopt.jobs.train import JOB

FORMATS = ("parquet", "csv", "json", "table")


@pytest.fixture(scope="module")
def places(spark, table, tmp_path_factory):
    """The same rows in each format; the table is a view, so that nothing is left in a catalog."""
    folder = tmp_path_factory.mktemp("formats")
    rows = spark.read.parquet(table)
    rows.write.option("header", True).csv(str(folder / "csv"))
    rows.write.json(str(folder / "json"))
    rows.createOrReplaceTempView("rows_of_a_job")
    lines = [f"{int(row.y)} 1:{row.a} 2:{row.b}" for row in rows.collect()]
    (folder / "libsvm").write_text("\n".join(lines) + "\n")
    yield {name: str(folder / name) for name in ("csv", "json", "libsvm")} | {
        "parquet": table,
        "table": "rows_of_a_job",
    }
    spark.catalog.dropTempView("rows_of_a_job")


def args(kind: str, location: str, *more: str):
    return JOB.parser().read([f"--{kind}", location, *more])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_rows_are_the_same(spark, places, table, kind):
    rows = SparkRuntime(spark).read(args(kind, places[kind], "--features", "a,b", "--label", "y"))
    assert (rows.features, rows.label) == (["a", "b"], "y")
    columns = ["id", "a", "b", "y", "c"]
    found = rows.rows.select(*columns).orderBy("id").collect()
    assert [tuple(map(float, row)) for row in found] == [
        tuple(map(float, row)) for row in spark.read.parquet(table).select(*columns).orderBy("id").collect()
    ]


def test_sparse_rows_are_vectors(spark, places, table):
    rows = SparkRuntime(spark).read(args("libsvm", places["libsvm"]))
    assert (rows.features, rows.label, rows.rows.count()) == ("features", "label", 400)
    total = sum(row.features.toArray().sum() for row in rows.rows.collect())
    assert total == spark.read.parquet(table).selectExpr("sum(a + b)").first()[0]


@pytest.mark.parametrize("kind", ["parquet", "csv", "table"])
def test_a_change_of_the_data_is_seen(spark, places, tmp_path, kind):
    """Equal while nothing changes; another one after rows were added."""
    rows = spark.range(10).selectExpr("id", "id as x")
    path, name = str(tmp_path / "rows"), "changing_rows"
    rows.write.format("csv" if kind == "csv" else "parquet").save(path)
    spark.read.format("csv" if kind == "csv" else "parquet").load(path).createOrReplaceTempView(name)
    source = DataSource(kind, name if kind == "table" else path)
    first = SparkRuntime(spark).fingerprint(source)
    assert first == SparkRuntime(spark).fingerprint(source)
    assert first is not None
    rows.write.mode("append").format("csv" if kind == "csv" else "parquet").save(path)
    spark.read.format("csv" if kind == "csv" else "parquet").load(path).createOrReplaceTempView(name)
    second = SparkRuntime(spark).fingerprint(source)
    spark.catalog.dropTempView(name)
    assert second is not None
    assert second["files"] == 2 * first["files"]
    assert second["digest"] != first["digest"]


def test_what_is_in_no_file_cannot_be_told_apart(spark):
    """So a job over it is never taken for done."""
    spark.range(3).createOrReplaceTempView("made_of_nothing")
    assert SparkRuntime(spark).fingerprint(DataSource("table", "made_of_nothing")) is None
    spark.catalog.dropTempView("made_of_nothing")


def test_images_are_held_out_wherever_their_folders_lie(spark):
    """A copy of the data for a test, or yesterday's folder, is split alike; so is a bare file name."""
    names = [f"{label}/{number}.png" for label in "ab" for number in range(200)]
    kept = []
    for root in ("file:/data/", "s3a://bucket/2026-01-01/photos/", ""):
        rows = spark.createDataFrame([(root + name, 0) for name in names], "path string, x int")
        _, held_out = SparkRuntime(spark).split(rows, 0.2, 0)
        kept.append(sorted(row.path.removeprefix(root) for row in held_out.collect()))
    assert kept[0] == kept[1] == kept[2]
    assert 50 < len(kept[0]) < 110
    bare = spark.createDataFrame([("1.png",)], "path string")
    assert sum(part.count() for part in SparkRuntime(spark).split(bare, 0.2, 0)) == 1
