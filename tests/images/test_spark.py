"""On Spark: the same results as on one machine, whatever the partitioning; bad images are counted, never lost."""

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import functions as SF
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DoubleType,
    IntegerType,
    MapType,
    StringType,
    StructField,
    StructType,
)

from sparkopt import images
from sparkopt.errors import CorruptImageError, ParameterError, SchemaError
from sparkopt.images.spark import _BOUNDS
from sparkopt.ml.image import ImageNormalizer, ImageTransformer

PLAIN = images.Compose([images.Decode(), images.Resize(12, 10), images.Rescale(1 / 255)])
AUGMENTED = images.Compose(
    [images.Decode(), images.RandomResizedCrop(12, 10), images.RandomHorizontalFlip(), images.ColorJitter(0.3, 0.3)]
)


@pytest.fixture(scope="module")
def good(photograph):
    return [images.encode(photograph[i : i + 60, 2 * i : 2 * i + 80], "png") for i in range(30)]


@pytest.fixture(scope="module")
def frame(spark, good, broken):
    rows = [(i, data, float(i % 2)) for i, data in enumerate(good)]
    rows += [(100 + i, data, 0.0) for i, (data, _) in enumerate(broken.values())]
    return spark.createDataFrame(rows, "id long, content binary, label double").repartition(3).cache()


@pytest.mark.parametrize("output", ["vector", "array", "tensor"])
def test_an_expression_gives_what_the_pipeline_gives(frame, good, output):
    rows = frame.where("id < 100").select("id", images.udf(PLAIN, output)("content").alias("x")).collect()
    assert len(rows) == len(good)
    for row in rows:
        expected = PLAIN(good[row.id])
        if output == "tensor":
            assert tuple(row.x.shape) == expected.shape
            actual = np.frombuffer(row.x.data, row.x.dtype).reshape(row.x.shape)
        else:
            actual = np.array(row.x).reshape(expected.shape)
        np.testing.assert_array_equal(actual, expected)


def test_image_rows_go_out_and_come_in_again(frame, good):
    decoded = frame.where("id < 3").select(
        "id", images.udf(images.Compose([images.Decode()]), "image")("content").alias("image")
    )
    first = decoded.orderBy("id").first().image
    np.testing.assert_array_equal(
        np.frombuffer(first.data, np.uint8).reshape(60, 80, 3)[..., ::-1],
        images.decode(good[0]),  # Spark keeps BGR
    )
    again = decoded.select("id", images.udf(PLAIN, "array")("image").alias("x")).orderBy("id").first()
    np.testing.assert_array_equal(np.array(again.x, np.float32), PLAIN(good[0]).ravel())


def test_rows_of_spark_s_own_readers(spark, photograph, save, tmp_path):
    """Its image reader decodes in Java, its binary one not at all: of lossless files both give the same."""
    modes = {"one": "L", "three": "RGB", "four": "RGBA"}
    for name, mode in modes.items():
        (tmp_path / f"{name}.png").write_bytes(save(photograph[:40, :50], "PNG", mode))
    steps = [images.Resize(12, 10), images.HorizontalFlip(), images.Rescale(1 / 255)]
    decoded = spark.read.format("image").load(str(tmp_path)).selectExpr("image.origin as path", "image")
    stored = spark.read.format("binaryFile").load(str(tmp_path)).select("path", "content")
    found = {
        row.path.rpartition("/")[2]: row.x
        for row in decoded.select("path", images.udf(images.Compose(steps))("image").alias("x")).collect()
    }
    assert {name: len(row.data) // (4 * 12 * 10) for name, row in found.items()} == {
        "one.png": 1,
        "three.png": 3,
        "four.png": 4,
    }
    for name, color in (("one", "gray"), ("three", "rgb"), ("four", "rgba")):
        pipeline = images.Compose([images.Decode(color), *steps])
        rows = stored.where(f"path like '%/{name}.png'").select(images.udf(pipeline)("content").alias("x"))
        assert rows.first().x == found[f"{name}.png"]


def test_image_rows_with_their_errors(frame, good, broken):
    decode = images.Compose([images.Decode()])
    expression = images.udf(decode, "image", errors=True)("content").alias("x")
    rows = {row.id: row.x for row in frame.select("id", expression).collect()}
    batches = images.BatchFunction(images.ImageKernel(decode, "image"), "content", "value", "error")
    mapped = {row.id: row for row in frame.mapInArrow(batches, batches.schema(frame.schema)).collect()}
    assert len(rows) == len(mapped) == len(good) + len(broken)
    for index, row in rows.items():
        assert (row.value, row.error) == (mapped[index].value, mapped[index].error)
        assert (row.value is None) == (row.error is not None) == (index >= 100)


def test_paths_and_encoded_output(spark, good, tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(good[0])
    paths = [(f"file:{path}",), (str(path),), (str(tmp_path / "none.png"),)]
    encode = images.udf(images.Compose([images.Decode(), images.Encode("png")]), "bytes", errors=True)
    rows = [row.x for row in spark.createDataFrame(paths, "path string").select(encode("path").alias("x")).collect()]
    for row in rows[:2]:
        np.testing.assert_array_equal(images.decode(bytes(row.value)), images.decode(good[0]))
    assert rows[2].value is None
    assert rows[2].error.startswith("unreadable: ")


@pytest.mark.parametrize("keyed", [True, False])
def test_randomness_belongs_to_the_row(frame, good, keyed):
    rows = frame.where("id < 100")
    key = ["id"] if keyed else []

    def augmented(dataset, **options):
        expression = images.udf(AUGMENTED, "tensor", seed=5, **options)("content", *key)
        return {row.id: bytes(row.x.data) for row in dataset.select("id", expression.alias("x")).collect()}

    first = augmented(rows.repartition(1))
    assert first == augmented(rows.repartition(7), max_bytes=100)
    batches = images.BatchFunction(
        images.ImageKernel(AUGMENTED, seed=5), "content", "x", key_column="id" if keyed else None
    )
    mapped = rows.repartition(2, "id").mapInArrow(batches, batches.schema(rows.schema))
    assert first == {row.id: bytes(row.x.data) for row in mapped.collect()}
    here = {i: AUGMENTED(data, images.row_rng(5, i if keyed else data)).tobytes() for i, data in enumerate(good)}
    assert first == here
    other = augmented(rows, epoch=1)
    assert sum(first[i] != other[i] for i in first) > 25


def test_permissive_loses_nothing_and_gives_each_reason(frame, good, broken):
    stage = ImageTransformer(pipeline=PLAIN, inputCol="content")
    result = stage.transform(frame)
    assert result.columns == ["id", "content", "label", "features", "features_error"]
    rows = {row.id: row for row in result.collect()}
    assert len(rows) == len(good) + len(broken)
    assert all(rows[i].features is not None and rows[i].features_error is None for i in range(len(good)))
    for i, (name, (_, reason)) in enumerate(broken.items()):
        assert rows[100 + i].features is None, name
        assert rows[100 + i].features_error.startswith(f"{reason}:"), name


def test_dropmalformed_drops_and_failfast_fails(frame, good):
    stage = ImageTransformer(pipeline=PLAIN, inputCol="content", mode="DROPMALFORMED")
    kept = stage.transform(frame)
    assert kept.columns == ["id", "content", "label", "features"]
    assert sorted(row.id for row in kept.select("id", "features").collect()) == list(range(len(good)))
    batches = images.BatchFunction(images.ImageKernel(PLAIN, mode="DROPMALFORMED"), "content", "x")
    assert frame.mapInArrow(batches, batches.schema(frame.schema)).count() == len(good)
    strict = stage.copy({stage.mode: "FAILFAST"})
    assert strict.transform(frame.where("id < 100")).count() == len(good)
    for action in ("collect", "count"):  # where no column is used too
        with pytest.raises(Exception, match="Mode PERMISSIVE gives null for such rows"):
            getattr(strict.transform(frame), action)()


def test_a_filter_on_the_result_does_not_decode_twice(frame):
    result = ImageTransformer(pipeline=PLAIN, inputCol="content").transform(frame).where("features_error is null")
    plan = result._jdf.queryExecution().optimizedPlan().toString()
    assert plan.count("MapInArrow") == 1
    assert "EvalPython" not in plan


def test_other_columns_and_their_metadata_pass_through(spark, good):
    labels = {"ml_attr": {"type": "nominal", "vals": ["a", "b"]}}
    rows = [(Vectors.dense([1.0, 2.0]), good[0], 1.0, {"k": [1, 2]}), (Vectors.sparse(2, {1: 3.0}), b"", 0.0, None)]
    kind = StructType(
        [
            StructField("other", VectorUDT()),
            StructField("content", BinaryType()),
            StructField("label", DoubleType(), metadata=labels),
            StructField("nested", MapType(StringType(), ArrayType(IntegerType()))),
        ]
    )
    dataset = spark.createDataFrame(rows, kind)
    result = ImageTransformer(pipeline=PLAIN, inputCol="content").transform(dataset)
    assert result.schema["label"].metadata == labels
    assert result.schema["other"].dataType == VectorUDT()
    back = [(row.other, bytes(row.content), row.label, row.nested) for row in result.collect()]
    assert back == rows


def test_batches_from_parquet_are_bounded_in_bytes(spark, tmp_path):
    content = bytes(100_000)
    frame = spark.createDataFrame([(i,) for i in range(200)], "id long").select(SF.lit(content).alias("content"))
    frame.coalesce(1).write.parquet(str(tmp_path / "images"))

    def count(batches):
        for batch in batches:
            yield pa.RecordBatch.from_arrays([pa.array([batch.num_rows]), pa.array([batch.nbytes])], ["n", "size"])

    before = {name: spark.conf.get(name) for name in _BOUNDS}
    try:
        images.bound_batches(spark)
        stored = spark.read.parquet(str(tmp_path / "images"))
        counts = stored.mapInArrow(count, "n long, size long").collect()
        plan = stored.select(images.udf(PLAIN)("content"))._jdf.queryExecution().executedPlan().toString()
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    assert sum(row.n for row in counts) == 200
    assert max(row["size"] for row in counts) < 5_000_000 < 200 * len(content)
    assert "ColumnarToRow" in plan  # an expression is then fed with rows too, which Spark batches by their bytes


def test_a_pipeline_into_a_model_is_saved_and_loaded(frame, tmp_path):
    stage = ImageTransformer(pipeline=PLAIN, inputCol="content", mode="DROPMALFORMED")
    model = Pipeline(stages=[stage, LogisticRegression(maxIter=3)]).fit(frame)
    model.save(str(tmp_path / "model"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    assert loaded.stages[0].getPipeline() == PLAIN
    first, second = (m.transform(frame).select("id", "prediction").orderBy("id").collect() for m in (model, loaded))
    assert first == second
    assert len(first) == 30


def test_the_normalizer_learns_what_numpy_computes(frame, good, tmp_path):
    pixels = np.concatenate([PLAIN(data).reshape(-1, 3) for data in good]).astype(float)
    model = ImageNormalizer(pipeline=PLAIN, inputCol="content", mode="DROPMALFORMED").fit(frame)
    np.testing.assert_allclose(model.normalization.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.normalization.std, pixels.std(axis=0), rtol=1e-6)
    model.save(str(tmp_path / "model"))
    result = type(model).load(str(tmp_path / "model")).transform(frame).select("features").collect()
    values = np.array([row.features.toArray() for row in result]).reshape(-1, 3)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-5)


def test_the_normalizer_looks_at_every_image_once(spark, frame, good, broken):
    opened = spark.sparkContext.accumulator(0)

    def count(content):
        opened.add(1)
        return content

    counted = frame.withColumn("content", SF.udf(count, BinaryType())("content"))
    ImageNormalizer(pipeline=PLAIN, inputCol="content").fit(counted)
    assert opened.value == len(good) + len(broken)


def test_output_is_handed_on_in_pieces_of_bounded_size(good):
    kernel = images.ImageKernel(PLAIN, max_bytes=5000)  # an image is 1440 bytes
    pieces = list(kernel(pa.array([*good, b"broken"])))
    assert [len(values) for values, _ in pieces] == [3] * 9 + [4]
    assert all(values.nbytes < 5000 + 500 for values, _ in pieces)
    assert len(list(images.ImageKernel(PLAIN, max_bytes=1)(pa.array(good)))) == len(good)  # larger ones go alone
    assert pieces[-1][1].to_pylist()[-1].startswith("not an image:")


def test_mistakes_are_told_before_any_job(frame):
    with pytest.raises(SchemaError, match=r"column 'label' must hold encoded images .* Got double"):
        ImageTransformer(pipeline=PLAIN, inputCol="label").transform(frame)
    with pytest.raises(SchemaError, match="there is no column 'picture'"):
        ImageTransformer(pipeline=PLAIN, inputCol="picture").transform(frame)
    with pytest.raises(SchemaError, match="column 'label' is there already"):
        ImageTransformer(pipeline=PLAIN, inputCol="content", outputCol="label").transform(frame)
    with pytest.raises(ParameterError, match="does not end in Encode"):
        images.udf(PLAIN, "bytes")
    with pytest.raises(ParameterError, match="DROPMALFORMED cannot drop rows from inside an expression"):
        images.udf(PLAIN, mode="DROPMALFORMED")
    with pytest.raises(ParameterError, match="mode must be one of"):
        ImageTransformer(pipeline=PLAIN, inputCol="content", mode="permissive").transform(frame)


def test_what_spark_listed_is_opened_whatever_its_name(spark, tmp_path):
    names = ["a%20b.png", "a b.png", "50%.PNG", "q%20x#y.png", "ünï.png", "kind=a,b.png"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(images.encode(np.zeros((1, number + 1, 3), np.uint8), "png"))
    widths = images.udf(images.Compose([images.Decode()]))("path")
    rows = images.read(spark, str(tmp_path)).select("path", widths.alias("found")).collect()
    assert {row.path.rpartition("/")[2]: row.found.shape[1] for row in rows} == dict(zip(names, range(1, 7)))  # noqa: B905


def test_failfast_names_the_row(broken):
    kernel = images.ImageKernel(PLAIN, mode="FAILFAST")
    with pytest.raises(CorruptImageError, match="the row of key 'b'"):
        list(kernel(pa.array([broken["empty"][0]]), pa.array(["b"])))
