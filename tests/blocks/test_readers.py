"""Readers: whoever reads a table's rows, the blocks hold the same bits in the same partitions."""

from __future__ import annotations

import decimal
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns
from sparkopt.blocks.scan import SETTING, parquet_scan
from sparkopt.errors import DataError, ParameterError
from sparkopt.ml import LogisticRegression
from sparkopt.validation import Interval
from tests.tiers import needs

ROWS, WIDTH = 600, 5
NAMES = [f"x{j}" for j in range(WIDTH)]


def numbers() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.round(rng.normal(size=(ROWS, WIDTH)) * (rng.random((ROWS, WIDTH)) < 0.6), 3)


def table(spark):
    """One table with features in every form, and every other column that training takes."""
    X = numbers()
    rng = np.random.default_rng(1)
    sparse = [Vectors.sparse(40, {int(j): float(v) for j, v in enumerate(x) if v}) for x in X]
    dense = [Vectors.dense(x) for x in X]
    rows = [
        (
            dense[i],
            sparse[i],
            Vectors.dense(sparse[i].toArray()) if i % 3 == 0 else sparse[i],
            X[i].tolist(),
            [int(v * 10) for v in X[i]],
            *X[i].tolist(),
            float(rng.random() > 0.5),
            float(rng.random() + 0.5),
            bool(rng.random() > 0.8),
            int(i % 3),
            decimal.Decimal(int(X[i, 0] * 1000)).scaleb(-2),
            "May" if i % 2 else "June",
        )
        for i in range(ROWS)
    ]
    names = ["dense", "sparse", "mixed", "doubles", "longs", *NAMES, "label", "weight", "held_out", "fold"]
    made = spark.createDataFrame(rows, [*names, "tenths", "month"])
    return made.select(
        "*",
        F.col("doubles").cast("array<float>").alias("floats"),
        *[
            F.round(F.col("x0") * 10).cast(kind).alias(kind)
            for kind in ("byte", "short", "int", "long", "float", "boolean", "decimal(20,2)")
        ],
        F.col("tenths").cast("decimal(12,2)").alias("amount"),
        F.col("x1").alias("a name, with `ticks`."),
        F.struct("x0", "x1").alias("inner"),
    ).repartition(2)


@pytest.fixture(scope="module")
def written(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "a b"
    table(spark).write.parquet(str(folder / "rows"))
    return folder


@pytest.fixture(autouse=True)
def settings(spark):
    yield
    for name in (SETTING, "spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"):
        spark.conf.unset(name)


def contents(store):
    """All of a store's blocks, by partition, as bytes."""

    def of(part, blocks):
        found = [blocks[index] for index in range(len(blocks.starts) - 1)] + list(blocks.validation())
        return [
            (
                [b.X.tobytes()] if isinstance(b.X, np.ndarray) else [a.tobytes() for a in (b.X.data, b.X.indices)],
                b.X.shape,
                b.X.dtype.name,
                *(None if v is None else v.tobytes() for v in (b.y, b.weight, b.offset)),
                b.fold,
                b.is_validation,
            )
            for b in found
        ]

    return {result.partition: result.value for result in store.collect(of)}


def read_both(spark, df, features, **columns):
    """Return what reads the rows by default, after checking that Spark's reader gives the same blocks."""
    found = []
    for chosen in ("auto", "spark"):
        spark.conf.set(SETTING, chosen)
        with BlockStore.write(df, Columns(features, "label", **columns), Interval()) as store:
            found.append((store.reader, contents(store), store.moments.mean.tobytes(), store.partitions))
    assert found[0][1:] == found[1][1:]
    assert sum(shape[0] for blocks in found[0][1].values() for _, shape, *_ in blocks) > 0
    assert found[1][0].startswith("spark")
    return found[0][0]


BY_ARROW = {
    "dense Vectors": "dense",
    "sparse Vectors": "sparse",
    "mixed Vectors": "mixed",
    "array<float>": "floats",
    "array<double>": "doubles",
    "array<bigint>": "longs",
    "columns": NAMES,
    "columns of all types": ["byte", "short", "int", "long", "float", "boolean", "amount", "x1"],
    "narrow columns": ["byte", "short", "float"],
    "odd names": ["x0", "a name, with `ticks`."],
}


@pytest.mark.parametrize("features", BY_ARROW.values(), ids=BY_ARROW)
def test_every_kind_of_features(spark, written, features):
    df = spark.read.parquet(str(written / "rows"))
    assert read_both(spark, df, features) == "arrow: Parquet files, 2"


OTHERS = {
    "weight": {"weight": "weight"},
    "integer weight": {"weight": "int"},
    "offset": {"offset": "amount"},
    "validation": {"validation": "held_out"},
    "fold": {"fold": "fold"},
    "all": {"weight": "weight", "offset": "x1", "validation": "held_out", "fold": "fold"},
}


@pytest.mark.parametrize("columns", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("features", ["mixed", pytest.param("floats", marks=needs("minutes"))])
def test_every_other_column(spark, written, features, columns):
    df = spark.read.parquet(str(written / "rows")).withColumn("int", F.col("short").cast("int") + F.lit(0))
    if columns.get("weight") == "int":
        df = spark.read.parquet(str(written / "rows")).withColumn("int", F.col("fold").cast("double"))
    assert read_both(spark, df, features, **columns).startswith("arrow")


def projected(df):
    return df.select(F.col("dense").alias("doubles"), F.col("fold").cast("double").alias("label"))


def viewed(df):
    df.createOrReplaceTempView("reader_rows")
    return df.sparkSession.sql("SELECT doubles, x0 + 0 AS unused, label FROM reader_rows")


def assembled(df, **options):
    inputs = options.pop("inputs", ["x0", "int", "float"])
    maker = VectorAssembler(inputCols=inputs, outputCol="made", **options)
    return maker.transform(df).select(F.col("made").alias("doubles"), "label")


def partitioned(df):
    folder = df.inputFiles()[0].removeprefix("file://").rsplit("/", 2)[0].replace("%20", " ") + "/by_fold"
    df.write.partitionBy("fold", "month").mode("overwrite").parquet(folder)
    return df.sparkSession.read.parquet(folder)


def small_files(df):
    folder = df.inputFiles()[0].removeprefix("file://").rsplit("/", 2)[0].replace("%20", " ") + "/small"
    empty = df.where("x0 > 1000")
    df.repartition(20).write.mode("overwrite").parquet(folder)
    empty.write.mode("append").parquet(folder)
    return df.sparkSession.read.parquet(folder)


def saved(df):
    folder = df.inputFiles()[0].removeprefix("file://").rsplit("/", 2)[0].replace("%20", " ") + "/table"
    df.sparkSession.sql("DROP TABLE IF EXISTS reader_table")
    df.drop("a name, with `ticks`.").write.option("path", folder).mode("overwrite").saveAsTable("reader_table")
    return df.sparkSession.table("reader_table")


def holes(df):
    folder = df.inputFiles()[0].removeprefix("file://").rsplit("/", 2)[0].replace("%20", " ") + "/holes"
    made = df.select(
        F.when(F.col("x0") < 1, F.col("x0")).alias("x0"),
        F.when(F.col("x1") > 1, float("nan")).otherwise(F.when(F.col("x2") != 0, F.col("x1"))).alias("x1"),
        *("x2", "doubles", "label"),
    )
    made.write.mode("overwrite").parquet(folder)
    return df.sparkSession.read.parquet(folder)


FRAMES = {
    "a projection": (projected, "arrow"),
    "a view": (viewed, "arrow"),
    "assembled": (assembled, "arrow"),
    "assembled, mostly zeros": (
        lambda df: assembled(df.withColumn("y", F.col("x0")), inputs=["boolean"] * 9),
        "arrow",
    ),
    "assembled, nulls kept": (lambda df: assembled(df, handleInvalid="keep"), "arrow"),
    "partitioned by folder": (partitioned, "arrow"),
    "one folder": (lambda df: partitioned(df).where("month = 'May'"), "arrow"),
    "many small files, an empty one": (small_files, "arrow"),
    "a table of the catalogue": (saved, "arrow"),
    "a filter": (lambda df: df.where("x0 > 0"), "arrow"),
    "a filter of several columns": (lambda df: df.where("NOT (x0 >= 0.5 OR short IN (1, 2)) AND float < 9"), "arrow"),
    "a filter of text": (lambda df: df.where("month = 'May' AND x0 IS NOT NULL"), "arrow"),
    "a filter of what was renamed": (
        lambda df: df.selectExpr("x1 AS z", "doubles", "label").where("z <= 0"),
        "arrow",
    ),
    "a filter of folders": (lambda df: partitioned(df).where("fold > 0 AND (x0 = 0 OR month = 'May')"), "arrow"),
    "without nulls": (lambda df: holes(df).dropna(), "arrow"),
    "without rows of two nulls": (lambda df: holes(df).dropna(thresh=3, subset=["x0", "x1", "x2", "label"]), "arrow"),
    "NaN is above all numbers": (lambda df: holes(df).where("x1 > 0.5"), "arrow"),
    "a filter that computes": (lambda df: df.where("x0 + x1 > 0"), "spark: it computes Add"),
    "a filter of dates": (lambda df: df.where("current_date() > date'2020-01-01'"), "arrow"),  # Spark folds it
    "a pattern": (lambda df: df.where("month LIKE '%a%'"), "spark: it filters by Contains"),
    "cached": (lambda df: df.cache(), "spark: its plan has InMemoryTableScan"),
    "joined": (lambda df: df.join(df.select("month").distinct(), "month"), "spark: its plan has"),
    "repartitioned": (lambda df: df.repartition(3, "x1"), "spark: its plan has"),
    "computed": (lambda df: df.withColumn("label", F.col("label") * 2), "spark: it computes Multiply"),
    "a string cast": (lambda df: df.withColumn("label", F.lit("1").cast("double")), "spark: it computes"),
    "a field": (lambda df: df.withColumn("label", F.col("inner.x0")), "spark: it computes"),
}


@pytest.mark.parametrize(("change", "expected"), FRAMES.values(), ids=FRAMES)
def test_every_kind_of_dataframe(spark, written, change, expected):
    df = change(spark.read.parquet(str(written / "rows")))
    try:
        assert read_both(spark, df, "doubles").startswith(expected)
    finally:
        df.unpersist()


def test_a_number_of_the_folders_names_is_a_column(spark, written):
    df = partitioned(spark.read.parquet(str(written / "rows")))
    assert read_both(spark, df, ["fold", "x0"], fold="fold").startswith("arrow")


SOURCES = {
    "orc": lambda df, path: (df.write.orc(path), df.sparkSession.read.orc(path))[1],
    "csv": lambda df, path: (
        df.select(*NAMES, "label").write.csv(path, header=True),
        df.sparkSession.read.csv(path, header=True, inferSchema=True),
    )[1],
    "memory": lambda df, path: df.sparkSession.createDataFrame(df.select(*NAMES, "label").collect()),
    "big decimals": lambda df, path: df.withColumn("x0", F.col("decimal(20,2)")),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_not_parquet_is_sparks(spark, written, tmp_path, source):
    df = SOURCES[source](
        spark.read.parquet(str(written / "rows")).drop("inner", "a name, with `ticks`."), str(tmp_path / "t")
    )
    assert read_both(spark, df, NAMES).startswith("spark")


def other_writer(folder, name, kind, groups=ROWS, values=None):
    X = numbers().astype(np.float32) if values is None else values
    y = pa.array((X[:, 0] > 0).astype(float))
    flat = pa.array(X.reshape(-1))
    if kind == "fixed":
        features = pa.FixedSizeListArray.from_arrays(flat, X.shape[1])
    elif kind == "large":
        features = pa.LargeListArray.from_arrays(pa.array(np.arange(len(X) + 1) * X.shape[1]), flat)
    else:
        features = pa.ListArray.from_arrays(pa.array(np.arange(len(X) + 1, dtype=np.int32) * X.shape[1]), flat)
    folder.mkdir(exist_ok=True)
    parquet.write_table(pa.table({"features": features, "label": y}), folder / name, row_group_size=groups)


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_files_of_other_writers_cut_into_partitions(spark, tmp_path, kind):
    """Row groups go to the partition that has their middle, whoever reads."""
    other_writer(tmp_path / "t", "one.parquet", kind, groups=50)
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4000")
    spark.conf.set("spark.sql.files.openCostInBytes", "0")
    df = spark.read.parquet(str(tmp_path / "t"))
    assert df.rdd.getNumPartitions() > 3
    assert read_both(spark, df, "features").startswith("arrow")


def test_wide_rows_come_in_small_batches(spark, tmp_path, monkeypatch):
    other_writer(tmp_path / "t", "one.parquet", "list")
    df = spark.read.parquet(str(tmp_path / "t"))
    reader = parquet_scan(Columns("features", "label").select(df))
    monkeypatch.setattr("sparkopt.machine.part.BATCH_BYTES", 1000)
    batches = [batch for parts in reader.partitions for batch in reader.reader(parts)]
    assert sum(batch.num_rows for batch in batches) == ROWS
    assert max(batch.nbytes for batch in batches) < 2000


def test_files_that_disagree_with_the_table_are_left_to_spark(spark, tmp_path):
    other_writer(tmp_path / "t", "a.parquet", "list")
    df = spark.read.schema("features array<double>, label double").parquet(str(tmp_path / "t"))
    with BlockStore.write(df, Columns("features", "label"), Interval()) as store:
        assert store.reader.startswith("spark: ")
        assert store.reader.endswith("a.parquet has column 'features' as list<element: float>")


def test_a_column_that_a_file_lacks_is_null_as_spark_has_it(spark, tmp_path):
    parquet.write_table(pa.table({"x": [1.0, 2.0], "label": [0.0, 1.0]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "b.parquet")
    df = spark.read.schema("x double, label double").parquet(str(tmp_path))
    with pytest.raises(DataError, match="label column 'label', partition ., row 0 is null"):
        BlockStore.write(df, Columns(["x"], "label"), Interval())


BAD = {
    "null label": ("floats", "IF(x0 > 2, NULL, label)"),
    "null features": ("IF(x0 > 2, NULL, floats)", "label"),
    "NaN": ("array(IF(x0 > 2, double('NaN'), x1))", "label"),
    "lengths": ("IF(x0 > 2, array(x1, x2), array(x1))", "label"),
    "null entry": ("array(IF(x0 > 2, NULL, x1))", "label"),
}


@pytest.mark.parametrize(("features", "label"), BAD.values(), ids=BAD)
def test_a_bad_row_is_the_same_line(spark, written, tmp_path, features, label):
    rows = spark.read.parquet(str(written / "rows"))
    rows.selectExpr(f"{features} AS features", f"{label} AS label").write.parquet(str(tmp_path / "bad"))
    df = spark.read.parquet(str(tmp_path / "bad"))
    errors = []
    for chosen in ("auto", "spark"):
        spark.conf.set(SETTING, chosen)
        with pytest.raises(DataError) as error:
            BlockStore.write(df, Columns("features", "label"), Interval())
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert "partition" in errors[0]


def remove_blocks(store):
    for result in store.collect(lambda part, blocks: blocks.path):
        os.unlink(result.value)


def test_lost_blocks_are_read_again_from_the_files(spark, written):
    df = spark.read.parquet(str(written / "rows"))
    with BlockStore.write(df, Columns("mixed", "label"), Interval()) as store:
        before = contents(store)
        remove_blocks(store)
        assert contents(store) == before


def test_a_file_that_was_replaced_is_one_error_and_never_a_model_of_both(spark, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        other_writer(tmp_path / "t", name, "list")
    df = spark.read.parquet(str(tmp_path / "t"))
    with BlockStore.write(df, Columns("features", "label"), Interval()) as store:
        assert store.reader.startswith("arrow")
        remove_blocks(store)
        other_writer(tmp_path / "t", "a.parquet", "list", values=numbers()[::-1].astype(np.float32) * 2)
        with pytest.raises(DataError, match=r"a\.parquet was changed after it was listed"):
            contents(store)


def test_a_file_that_is_gone_is_one_error(spark, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        other_writer(tmp_path / "t", name, "list")
    df = spark.read.parquet(str(tmp_path / "t"))
    (tmp_path / "t" / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"b\.parquet is gone: it was deleted after the files were listed") as error:
        BlockStore.write(df, Columns("features", "label"), Interval())
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.usefixtures("minutes")
def test_files_that_spark_reads_are_named_when_they_change_or_go(spark, tmp_path):
    spark.range(100).selectExpr("rand(1) AS a", "rand(2) AS label").coalesce(1).write.csv(str(tmp_path / "t"))
    df = spark.read.csv(str(tmp_path / "t"), schema="a double, label double")
    with BlockStore.write(df, Columns(["a"], "label"), Interval()) as store:
        remove_blocks(store)
        (part,) = (tmp_path / "t").glob("part-*")
        text = part.read_text()
        part.write_text(text.replace("0.5", "0.6"))
        (tmp_path / "t" / f".{part.name}.crc").unlink()
        with pytest.raises(DataError, match=r"partition 0 are not .*values in its 100 rows changed.*read from .*csv"):
            contents(store)
        part.unlink()
        with pytest.raises(DataError, match=r"csv is gone: it was deleted") as error:
            contents(store)
    assert len(str(error.value).splitlines()) == 1


def test_replaced_before_the_fit_spark_reads_what_is_there(spark, tmp_path):
    other_writer(tmp_path / "t", "a.parquet", "list")
    df = spark.read.parquet(str(tmp_path / "t"))
    df.count()
    other_writer(tmp_path / "t", "a.parquet", "list", values=numbers().astype(np.float32) * 2)
    with BlockStore.write(df, Columns("features", "label"), Interval()) as store:
        assert store.reader.startswith("spark: ")
        assert "was changed after it was listed" in store.reader


def test_a_reader_that_there_is_not_is_refused(spark, written):
    df = spark.read.parquet(str(written / "rows"))
    spark.conf.set(SETTING, "arrow")
    with pytest.raises(ParameterError, match=r"spark\.sparkopt\.reader must be one of 'auto', 'spark'"):
        BlockStore.write(df, Columns("floats", "label"), Interval())


def test_receipt_and_plan_say_who_reads(spark, written, caplog):
    df = spark.read.parquet(str(written / "rows")).withColumnRenamed("dense", "features")
    with caplog.at_level("INFO", logger="sparkopt"):
        receipt = LogisticRegression(maxIter=2).fit(df).summary.receipt
    assert receipt.reader == "arrow: Parquet files, 2"
    assert "read by   arrow: Parquet files, 2" in str(receipt)
    assert "rows were read by arrow: Parquet files, 2" in caplog.text
    assert "reader         arrow: Parquet files, 2" in str(LogisticRegression().explain(df))
    spark.conf.set(SETTING, "spark")
    assert f"reader         spark: {SETTING} is 'spark'" in str(LogisticRegression().explain(df))
