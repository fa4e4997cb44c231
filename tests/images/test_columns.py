"""Columns that stages and functions of images are given: null or not, of other types, names with dots, an index."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import functions as SF
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from sparkopt import images
from sparkopt.errors import CorruptImageError, DataError, SchemaError
from sparkopt.images import BatchFunction, FrameFunction, ImageKernel, SampleFunction
from sparkopt.images.batches import POINTS
from sparkopt.ml.image import ImageNormalizer, ImageTransformer

DECODE = images.Compose([images.Decode(), images.Resize(8, 8)])
ENCODE = images.Compose([images.Decode(), images.Resize(8, 8), images.Encode("png")])
TARGETS = {"mask": "mask", "boxes": "boxes", "labels": "labels", "keypoints": "points"}


def picture(shade=90, size=(16, 20)):
    return images.encode(np.full((*size, 3), shade, np.uint8), "png")


def row(shade=90):
    mask = images.encode(np.full((16, 20, 1), 3, np.uint8), "png")
    return {
        "id": shade,
        "content": picture(shade),
        "mask": mask,
        "boxes": [[1.0, 2.0, 9.0, 12.0]],
        "labels": ["a"],
        "points": [[4.0, 5.0]],
    }


ROWS = [row(90), {**row(100), "content": b"no image"}, row(110)]
POINT_FIELD = pa.list_(pa.field("element", pa.list_(pa.field("element", pa.float64(), False)), False))
STRICT = pa.schema(
    [
        pa.field("id", pa.int64(), False),
        pa.field("content", pa.binary(), False),
        pa.field("mask", pa.binary(), False),
        pa.field("boxes", POINT_FIELD, False),
        pa.field("labels", pa.list_(pa.field("element", pa.string(), False)), False),
        pa.field("points", POINT_FIELD, False),
    ]
)
"""No column, list or element is nullable: as collect_list and literals have it."""
SPARK_POINTS = ArrayType(ArrayType(DoubleType(), False), False)
STRICT_SPARK = StructType(
    [
        StructField("id", IntegerType(), False),
        StructField("content", BinaryType(), False),
        StructField("mask", BinaryType(), False),
        StructField("boxes", SPARK_POINTS, False),
        StructField("labels", ArrayType(StringType(), False), False),
        StructField("points", SPARK_POINTS, False),
    ]
)


def sample_function(**columns):
    return SampleFunction(
        ImageKernel(DECODE), "content", "image", **(columns or TARGETS), error_column="error", drop_input=False
    )


FUNCTIONS = {
    "BatchFunction": BatchFunction(ImageKernel(ENCODE, "bytes"), "content", "image", "error"),
    **{
        f"SampleFunction {name}": sample_function(**{name: column})
        for name, column in TARGETS.items()
        if name != "labels"
    },
    "SampleFunction of all": sample_function(),
    "FrameFunction": FrameFunction(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_bad_row_makes_null_is_nullable(name):
    """Whatever the columns were, in the schema of Spark and of tables; the others stay as they are."""
    function = FUNCTIONS[name]
    given = pa.Table.from_pylist(ROWS, STRICT)
    table = function.applied(given)
    found, spark = table.to_arrow(), function.schema(STRICT_SPARK)
    assert found.schema.names == spark.names == table.names
    found.validate(full=True)
    changed = {column for column in found.column_names if found[column].null_count}
    targets = set(getattr(function, "_targets", []))
    assert changed >= targets | ({"image", "error"} & set(found.column_names))
    for column in found.column_names:
        is_made = column in targets or column not in STRICT.names or (name == "FrameFunction" and column == "content")
        assert found.schema.field(column).nullable == spark[column].nullable == is_made, column


def test_spark_takes_null_where_columns_were_not_nullable(spark):
    """The job ended in a NullPointerException of the JVM at the first bad image."""
    df = spark.createDataFrame(ROWS, STRICT_SPARK)
    both = sample_function()
    out = df.mapInArrow(both, both.schema(df.schema))
    assert out.where("labels IS NULL AND boxes IS NULL AND mask IS NULL AND points IS NULL").count() == 1
    assert {one.id: one.labels for one in out.collect()} == {90: ["a"], 100: None, 110: ["a"]}
    frames = FrameFunction()
    assert df.mapInArrow(frames, frames.schema(df.schema)).select(SF.length("content")).collect()


SQL = {
    ("boxes", "array<struct<x:double,y:double,w:double,h:double>>"): (
        "array(named_struct('x', 1D, 'y', 2D, 'w', 8D, 'h', 10D))",
        "SF.expr('transform(given, one -> array(one.x, one.y, one.x + one.w, one.y + one.h))')",
    ),
    ("boxes", "array<struct<xmin:double,ymin:double,xmax:double,ymax:double>>"): (
        "array(named_struct('xmin', 1D, 'ymin', 2D, 'xmax', 9D, 'ymax', 12D))",
        "SF.expr('transform(given, one -> array(one.xmin, one.ymin, one.xmax, one.ymax))')",
    ),
    ("boxes", "array<double>"): (
        "array(1D, 2D, 9D, 12D)",
        "SF.expr('if(size(given) = 0, array(), transform(sequence(1, size(given), 4), i -> slice(given, i, 4)))')",
    ),
    ("keypoints", "array<double>"): (
        "array(4D, 5D)",
        "SF.expr('if(size(given) = 0, array(), transform(sequence(1, size(given), 2), i -> slice(given, i, 2)))')",
    ),
    ("keypoints", "array<struct<x:double,y:double>>"): (
        "array(named_struct('x', 4D, 'y', 5D))",
        "SF.expr('transform(given, one -> array(one.x, one.y))')",
    ),
}


@pytest.mark.parametrize("case", SQL, ids=" ".join)
def test_the_expression_that_is_given_makes_targets(spark, case):
    target, kind = case
    made, expression = SQL[case]
    df = spark.createDataFrame(ROWS[:1], STRICT_SPARK).withColumn("given", SF.expr(made))
    function = sample_function(**{target: "given"})
    with pytest.raises(SchemaError, match="column 'given' must hold array<array<double>>") as refused:
        function.schema(df.schema)
    assert f"Got {kind} instead" in str(refused.value)
    assert expression in str(refused.value)
    right = df.withColumn("given", eval(expression, {"SF": SF}))  # as users paste it
    theirs = right.mapInArrow(function, function.schema(right.schema)).select("given").first().given
    ours = sample_function(**{target: "boxes" if target == "boxes" else "points"})
    expected = ours.applied(pa.Table.from_pylist(ROWS[:1], STRICT)).to_arrow()
    assert theirs == expected["boxes" if target == "boxes" else "points"][0].as_py()


STRUCTS = pa.struct({"left": pa.int32(), "top": pa.int32(), "width": pa.int32(), "height": pa.int32()})
ARROW = {
    "structs": (
        "boxes",
        pa.array([[{"left": 1, "top": 2, "width": 8, "height": 10}], []], pa.list_(STRUCTS)),
        [[[1, 2, 9, 12]], []],
    ),
    "flat boxes": ("boxes", pa.array([[1.0, 2.0, 9.0, 12.0], []]), [[[1, 2, 9, 12]], []]),
    "flat points": ("keypoints", pa.array([[4.0, 5.0, 6.0, 7.0], []]), [[[4, 5], [6, 7]], []]),
    "texts": ("boxes", pa.array(["1 2 9 12", ""]), None),
    "texts in lists": ("keypoints", pa.array([["4", "5"], []]), None),
    "structs of other names": ("boxes", pa.array([[{"a": 1, "b": 2}], []]), None),
    "one label": ("labels", pa.array(["a", "b"]), None),
    "paths of masks": ("mask", pa.array(["a.png", "b.png"]), None),
    "numbers": ("mask", pa.array([1, 2]), None),
}


@pytest.mark.parametrize("name", ARROW)
def test_targets_of_another_type_are_refused_before_rows_are_read(name):
    target, column, expected = ARROW[name]
    table = pa.table({"content": [picture()] * 2, "boxes": pa.array([[[1.0, 2, 9, 12]]] * 2), "given": column})
    columns = {"boxes": "boxes", "labels": "given"} if target == "labels" else {target: "given"}
    function = sample_function(**columns)
    with pytest.raises(SchemaError, match="column 'given' must hold ") as refused:
        function.applied(table)
    assert f"Got {column.type} instead" in str(refused.value)
    if expected is not None:
        made = str(refused.value).partition("; make ")[2].rpartition(" of it")[0]
        assert eval(made, {"table": table, "np": np}) == expected  # as users paste it


@pytest.mark.parametrize(
    "kind",
    [
        POINTS,
        pa.large_list(pa.large_list(pa.float32())),
        pa.list_(pa.list_(pa.int64(), 4)),
        pa.list_(pa.list_(pa.decimal128(9, 2))),
        pa.list_view(pa.list_view(pa.float64())),
    ],
    ids=str,
)
def test_boxes_of_any_lists_of_numbers_are_taken(kind):
    boxes = pa.array([[[1, 2, 9, 12]], []], kind)
    table = pa.table({"content": [picture()] * 2, "boxes": boxes})
    found = sample_function(boxes="boxes").applied(table).to_arrow()
    np.testing.assert_allclose(found["boxes"][0].as_py(), [[0.4, 1.0, 3.6, 6.0]])
    assert found["boxes"][1].as_py() == []


VIEWS = {
    "binary_view": pa.array([picture(), b"no image"]).cast(pa.binary_view()),
    "dictionary of binary": pa.array([picture(), b"no image"]).dictionary_encode(),
    "large_binary": pa.array([picture(), b"no image"], pa.large_binary()),
}


@pytest.mark.parametrize("name", VIEWS)
def test_columns_that_polars_gives_are_as_others(name):
    """It has views of bytes and of text, and categories as dictionaries: of images, masks, labels and keys."""
    plain = {
        "content": [picture(), b"no image"],
        "mask": [ROWS[0]["mask"]] * 2,
        "boxes": pa.array([[[1.0, 2, 9, 12]]] * 2),
        "labels": [["a"]] * 2,
        "key": ["x", "y"],
        "other": ["o", None],
    }
    views = pa.table(
        {
            "content": VIEWS[name],
            "mask": pa.array(plain["mask"]).cast(pa.binary_view()),
            "boxes": plain["boxes"],
            "labels": pa.array(plain["labels"], pa.large_list(pa.string_view())),
            "key": pa.array(plain["key"]).dictionary_encode(),
            "other": pa.array(plain["other"]).cast(pa.string_view()),
        }
    )
    random = images.Compose([images.Decode(), images.RandomRotation(20), images.Resize(8, 8)])
    for mode in ("PERMISSIVE", "DROPMALFORMED"):
        function = SampleFunction(
            ImageKernel(random, mode=mode), "content", "image", mask="mask", boxes="boxes", labels="labels",
            error_column="error", key_column="key",
        )  # fmt: skip
        found = function.applied(views).to_arrow()
        assert found.to_pylist() == function.applied(pa.table(plain)).to_arrow().to_pylist()
        assert len(found) == (2 if mode == "PERMISSIVE" else 1)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_paths_that_polars_gives_are_read(kind, tmp_path):
    (tmp_path / "one.png").write_bytes(picture())
    paths = pa.array([str(tmp_path / "one.png"), str(tmp_path / "none.png")]).cast(kind)
    function = BatchFunction(ImageKernel(DECODE), "content", "image", "error")
    found = function.applied(pa.table({"content": paths})).to_arrow()
    assert [error and error.partition(":")[0] for error in found["error"].to_pylist()] == [None, "unreadable"]


def frames_of(name):
    shades = [30, 60, 90, 120]
    content = [picture(shade) for shade in shades]
    content[1] = b"no image"
    index = {
        "shuffled": [7, 3, 9, 1],
        "repeated": [5, 5, 5, 5],
        "text": list("dcba"),
        "two levels": pd.MultiIndex.from_tuples([(1, "b"), (1, "a"), (0, "b"), (0, "a")]),
    }[name]
    return pd.DataFrame({"content": content, "shade": shades, "odd": [{1}, "a", None, 2.0]}, index=index)


STAGES = {
    "ImageTransformer": partial(
        ImageTransformer, pipeline=DECODE, inputCol="content", outputCol="made", output="array"
    ),
    "ImageNormalizerModel": lambda **options: ImageNormalizer(
        pipeline=DECODE, inputCol="content", outputCol="made", output="array", **options
    ).fit(pa.table({"content": [picture(10), picture(250)]})),
}


@pytest.mark.parametrize("index", ["shuffled", "repeated", "text", "two levels"])
@pytest.mark.parametrize("mode", ["PERMISSIVE", "DROPMALFORMED"])
@pytest.mark.parametrize("name", STAGES)
def test_pandas_keeps_its_index(name, mode, index):
    """Rows were numbered anew, so that a column of the result went to other rows of the user's frame."""
    stage, frame = STAGES[name](mode=mode), frames_of(index)
    found = stage.transform(frame.drop(columns="odd"))
    good = frame if mode == "PERMISSIVE" else frame.iloc[[0, 2, 3]]
    pd.testing.assert_frame_equal(found[["content", "shade"]], good[["content", "shade"]])
    alone = [stage.transform(pd.DataFrame({"content": [one]})) for one in good["content"]]
    for mine, other in zip(found["made"], alone, strict=True):
        np.testing.assert_array_equal(mine, other["made"].iloc[0])
    if index != "repeated":
        frame["made"] = found["made"]
        assert frame["made"].notna().tolist() == [True, False, True, True]


NAMES = ["meta.id", "a`b", "content.length"]


@pytest.mark.parametrize("other", NAMES)
def test_names_with_dots_are_found_by_stages(spark, other):
    frame = spark.createDataFrame([(picture(30), 1), (picture(60), 2)], ["content", other])
    stage = ImageTransformer(pipeline=DECODE, inputCol="content", outputCol="made", output="array")
    found = stage.transform(frame)
    assert found.columns == ["content", other, "made", "made_error"]
    assert sorted((row[1], row.made[0]) for row in found.collect()) == [(1, 30.0), (2, 60.0)]
    dotted = frame.withColumnRenamed("content", "my.photo")
    normal = ImageNormalizer(pipeline=DECODE, inputCol="my.photo", outputCol="made", keyCol=other).fit(dotted)
    np.testing.assert_allclose(normal.normalization.mean, 45)
    assert normal.transform(dotted).where("made IS NOT NULL").count() == 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_with_dots_are_refused_where_spark_does_not_find_them(name):
    schema = StructType([*STRICT_SPARK, StructField("meta.id", IntegerType())])
    with pytest.raises(SchemaError, match=r"'meta.id' has. Rename it, df.withColumnRenamed\('meta.id', 'meta_id'\)"):
        FUNCTIONS[name].schema(schema)


def test_boxes_that_are_shares_of_the_image_are_told_once(caplog, monkeypatch):
    """YOLO's: each is less than a pixel, so all of them are removed."""
    monkeypatch.setattr("sparkopt.images.sample._WARNED", [])
    table = pa.table({"content": [picture()] * 3, "boxes": pa.array([[[0.1, 0.2, 0.5, 0.6]]] * 3)})
    with caplog.at_level(logging.WARNING, "sparkopt"):
        found = sample_function(boxes="boxes").applied(table).to_arrow()
    assert found["boxes"].to_pylist() == [[], [], []]
    told = [record.getMessage() for record in caplog.records if "shares of the image" in record.getMessage()]
    assert len(told) == 1
    assert "[0.1, 0.2, 0.5, 0.6]" in told[0]


NOTHING = {
    "objects of None": pd.DataFrame({"content": pd.Series([None, None], dtype=object), "n": [1, 2]}),
    "NaN": pd.DataFrame({"content": [np.nan, np.nan], "n": [1, 2]}),
    "NA": pd.DataFrame({"content": [pd.NA, pd.NA], "n": [1, 2]}),
    "no rows": pd.DataFrame({"content": [picture()], "n": [1]}).iloc[:0],
    "no rows, no type": pd.DataFrame({"content": [], "n": []}),
    "Arrow's null": pa.table({"content": pa.nulls(2), "n": [1, 2]}),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_column_without_any_image_is_null_with_reasons(name):
    """Its type says nothing, and so a batch whose images are all missing ended the job."""
    rows = NOTHING[name]
    for pipeline in (DECODE, images.Compose([images.Resize(4, 4)])):
        found = ImageTransformer(pipeline=pipeline, inputCol="content", outputCol="made").transform(rows)
        made = found if isinstance(found, pa.Table) else pa.Table.from_pandas(found, preserve_index=False)
        assert made["made"].to_pylist() == [None] * len(rows)
        assert made["made_error"].to_pylist() == ["null: the row holds no image"] * len(rows)
    left = ImageTransformer(pipeline=DECODE, inputCol="content", outputCol="made", mode="DROPMALFORMED")
    assert len(left.transform(rows)) == 0
    if len(rows):
        with pytest.raises(CorruptImageError, match="null: the row holds no image"):
            left.copy({left.mode: "FAILFAST"}).transform(rows)
    with pytest.raises(DataError, match="holds no image that can be decoded"):
        ImageNormalizer(pipeline=DECODE, inputCol="content").fit(rows)
    frames = images.FrameFunction().applied(rows).to_arrow()
    assert frames["content"].to_pylist() == [None] * len(rows)


def test_a_column_of_nulls_of_spark_is_null_with_reasons(spark):
    rows = spark.sql("SELECT NULL AS content, 1 AS n")
    row = ImageTransformer(pipeline=DECODE, inputCol="content", outputCol="made").transform(rows).first()
    assert (row.made, row.made_error) == (None, "null: the row holds no image")
    value = rows.select(images.udf(DECODE, errors=True)("content").alias("made")).first().made
    assert (value.value, value.error) == (None, "null: the row holds no image")


def test_numbers_and_objects_are_refused_for_what_they_are():
    stage = ImageTransformer(pipeline=DECODE, inputCol="content", outputCol="made")
    with pytest.raises(SchemaError, match="column 'content' must hold encoded images.*Got double"):
        stage.transform(pd.DataFrame({"content": [np.nan, 1.0]}))
    with pytest.raises(SchemaError, match="column 'content' must hold encoded images.*Got object: .*1-dimensional"):
        stage.transform(pd.DataFrame({"content": [np.zeros((4, 4, 3), np.uint8)]}))


def test_paths_of_pathlib_are_read(tmp_path):
    (tmp_path / "one.png").write_bytes(picture())
    stage = ImageTransformer(pipeline=DECODE, inputCol="content", outputCol="made")
    found = stage.transform(pd.DataFrame({"content": [tmp_path / "one.png", None, tmp_path / "none.png"]}))
    assert [error and error.partition(":")[0] for error in found["made_error"]] == [None, "null", "unreadable"]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (
            pd.Series([1, None]),
            r"Got double, as pandas has integers of which some are missing: take astype\('Int64'\)",
        ),
        (pd.Series([True, False]), "Got bool"),
        (pd.to_datetime(pd.Series(["2024-01-01", "2024-01-02"])), "Got timestamp"),
    ],
    ids=["numbers", "booleans", "times"],
)
def test_columns_that_are_no_keys_are_refused_before_images_are_read(keys, found):
    frame = pd.DataFrame({"content": [b"never read"] * 2, "id": keys})
    with pytest.raises(
        SchemaError, match=f"column of row keys, 'id', must hold integers, strings or binary. {found}"
    ):
        ImageTransformer(pipeline=DECODE, inputCol="content", keyCol="id", mode="FAILFAST").transform(frame)


def test_columns_that_are_no_keys_are_refused_before_spark_runs_a_job(spark):
    rows = spark.sql("SELECT X'00' AS content, 1 AS id, CAST(1 AS DECIMAL(9, 0)) AS price")
    function = BatchFunction(ImageKernel(DECODE), "content", "image", key_column="price")
    with pytest.raises(SchemaError, match="row keys, 'price', must hold .* Got decimal"):
        function.schema(rows.schema)
    for kind in ("tinyint", "smallint", "int", "bigint", "string", "binary"):
        keyed = rows.selectExpr("content", f"CAST({'string(id)' if kind == 'binary' else 'id'} AS {kind}) AS price")
        assert function.schema(keyed.schema).names == ["price", "image"]
