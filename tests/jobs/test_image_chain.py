"""From pictures to a network and its scores: what preprocess-images writes is what train-deep takes, form by form."""

from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import ArrayType, BinaryType, DoubleType, FloatType, StringType, StructField, StructType

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import SchemaError
from sparkopt.images.arrow import OUTPUTS, arrow_type
from sparkopt.jobs import preprocess_images
from sparkopt.jobs.image_columns import FILES, ImageColumn, check_image_column
from tests.jobs.test_machine import call
from tests.tiers import needs

FORMS = {"tensor": "tensor", "image": "image", "bytes": "encoded", "array": None, "vector": None}
"""What train-deep takes each form of preprocess-images for; None is refused."""
REFUSED = {
    "array": (ArrayType(FloatType()), "holds arrays (array)"),
    "vector": (VectorUDT(), "holds Vectors (vector)"),
    "number": (DoubleType(), "holds numbers"),
}


def test_every_form_of_the_images_has_a_row():
    assert set(FORMS) == set(OUTPUTS) == set(preprocess_images.FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_train_deep_takes_the_forms_that_keep_the_shape_of_images(form):
    schema = spark_schema(pa.schema([pa.field("features", arrow_type(form))]))
    if FORMS[form] is not None:
        assert check_image_column(schema, "features") == FORMS[form]
        return
    with pytest.raises(SchemaError, match=rf"features column 'features' holds \w+ \({form}\), and the network takes"):
        check_image_column(schema, "features")


@pytest.mark.parametrize("kind", REFUSED)
def test_other_columns_are_refused_by_name_and_with_the_way_out(kind):
    found, held = REFUSED[kind]
    with pytest.raises(SchemaError) as error:
        check_image_column(StructType([StructField("x", found)]), "x")
    assert f"features column 'x' {held}" in str(error.value)
    assert "preprocess-images --features --form tensor" in str(error.value)


def test_a_missing_column_names_the_one_of_images():
    schema = StructType([StructField("image", BinaryType()), StructField("path", StringType())])
    with pytest.raises(SchemaError, match="'features' does not exist.*Give --features image"):
        check_image_column(schema, "features")
    assert check_image_column(schema, "path") == "encoded"


@pytest.mark.parametrize(
    ("column", "flags", "steps"),
    [
        (FILES, [], ["Decode", "Resize", "Rescale"]),
        (ImageColumn("x"), [], ["Decode", "Rescale"]),
        (ImageColumn("x"), ["--image-size", "8"], ["Decode", "Resize", "Rescale"]),
        (ImageColumn("x", False, 3), [], ["Rescale"]),
        (ImageColumn("x", False, 3, is_whole=False), [], ["ToCHW"]),
        (ImageColumn("x", False, 3, is_whole=False), ["--image-size", "8"], ["Resize"]),
    ],
)
def test_images_are_prepared_by_what_the_column_holds(column, flags, steps):
    from sparkopt.jobs import train_deep

    args = train_deep.JOB.parser().read(["--parquet", "x", *flags])
    training, evaluation = column.pipelines(args)
    assert [type(step).__name__ for step in evaluation.transforms] == steps
    assert training.to_json() == evaluation.to_json()


def test_a_form_without_features_is_refused(capsys, tmp_path):
    flags = ["--input", tmp_path, "--output", tmp_path / "out", "--form", "tensor"]
    code, _, err = call(capsys, "preprocess-images", *flags)
    assert code == 2
    assert "--form tensor is for --features" in err


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red cats and blue dogs, of which a file is damaged and one empty."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for channel, name in ((2, "cat"), (0, "dog")):
        (folder / name).mkdir()
        for number in range(30):
            pixels = rng.integers(0, 60, (12, 14, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    (folder / "cat" / "damaged.png").write_bytes(b"no image")
    (folder / "dog" / "empty.png").write_bytes(b"")
    return folder


def preprocessed(capsys, photos, form, output, on):
    flags = ["--features", "--form", form, "--color", "rgb", "--size", "8", "--encoding", "png", "--on", on]
    code, _, err = call(capsys, "preprocess-images", "--input", photos, *flags, "--output", output)
    assert code == 0, err


TRAINING = [
    "--launcher",
    "local",
    "--widths",
    "8",
    "--epochs",
    "12",
    "--step-size",
    "0.02",
    "--handle-invalid",
    "skip",
]


def chained(capsys, train, test, output, flags=()):
    """Train, evaluate and score; return the metrics of the test's rows and what was scored."""
    code, _, err = call(capsys, "train-deep", "--parquet", train, *TRAINING, *flags, "--output", output / "deep")
    assert code == 0, err
    given = ["--model", output / "deep", "--parquet", test, "--handle-invalid", "keep"]
    code, _, err = call(capsys, "evaluate", *given, "--output", output / "gate")
    assert code == 0, err
    code, _, err = call(capsys, "score", *given, "--output", output / "scored")
    assert code == 0, err
    metrics = json.loads((output / "gate" / "metrics.json").read_text())["metrics"]
    return metrics, ds.dataset(output / "scored", format="parquet").to_table().to_pylist()


@pytest.mark.parametrize("on", ["machine", pytest.param("spark", marks=needs("minutes"))])
@pytest.mark.parametrize(
    "form", ["tensor", *(pytest.param(form, marks=needs("minutes")) for form in ("image", "bytes"))]
)
def test_from_pictures_to_scores(form, on, photos, spark, capsys, tmp_path):
    rows = tmp_path / "rows"
    preprocessed(capsys, photos, form, rows, on)
    flags = ["--color", "rgb"] if form == "bytes" else []
    metrics, scored = chained(capsys, rows / "split=train", rows / "split=test", tmp_path, flags)
    valid = [row for row in scored if row["prediction"] is not None]
    assert metrics["accuracy"] == np.mean([row["prediction"] == row["label"] for row in valid]) > 0.9
    assert (metrics["rows"], metrics["rows"] + metrics["invalid"]) == (len(valid), len(scored))
    assert {row["path"].rpartition("/")[2] for row in scored if row["prediction"] is None} <= {
        "damaged.png",
        "empty.png",
    }


def test_names_of_classes_are_labels_too(photos, spark, capsys, tmp_path):
    preprocessed(capsys, photos, "tensor", tmp_path / "rows", "machine")
    for split in ("train", "test"):
        rows = ds.dataset(tmp_path / "rows" / f"split={split}", format="parquet").to_table()
        names = pa.array([path.split("/")[-2] for path in rows["path"].to_pylist()])
        (tmp_path / split).mkdir()
        pq.write_table(rows.drop_columns("label").append_column("kind", names), tmp_path / split / "rows.parquet")
    metrics, scored = chained(capsys, tmp_path / "train", tmp_path / "test", tmp_path, ["--label", "kind"])
    assert json.loads((tmp_path / "deep" / "metrics.json").read_text())["labels"] == ["cat", "dog"]
    valid = [row for row in scored if row["prediction"] is not None]
    right = [row["kind"] == ["cat", "dog"][int(row["prediction"])] for row in valid]
    assert metrics["accuracy"] == np.mean(right) > 0.9


@pytest.mark.parametrize(
    ("form", "flags", "message"),
    [
        ("array", [], "features column 'features' holds arrays (array), and the network takes images"),
        ("tensor", ["--label", "kind"], "preprocess-images --features writes the number of each image's folder."),
        ("tensor", ["--color", "gray"], "has decoded ones of 3 channels. Leave it out"),
        ("tensor", ["--label", "path"], "is 'x' in every row"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(form, flags, message, photos, spark, capsys, tmp_path):
    preprocessed(capsys, photos, form, tmp_path / "rows", "machine")
    if "path" in flags:
        rows = ds.dataset(tmp_path / "rows" / "split=train", format="parquet").to_table()
        same = pa.array(["x"] * len(rows))
        rows = rows.set_column(rows.schema.get_field_index("path"), "path", same)
        pq.write_table(rows, tmp_path / "one.parquet")
    data = tmp_path / ("one.parquet" if "path" in flags else "rows/split=train")
    code, _, err = call(capsys, "train-deep", "--parquet", data, *TRAINING, *flags, "--output", tmp_path / "deep")
    assert (code, "Traceback" in err) == (1, False), err
    assert message in err
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("on", ["machine", pytest.param("spark", marks=needs("minutes"))])
def test_a_network_of_masks_is_evaluated(on, request, capsys, tmp_path):
    """Its metrics are scikit-learn's on what transform gives, without the pixels of 255; a null mask is left out."""
    torch = pytest.importorskip("torch")
    from sklearn.metrics import f1_score, jaccard_score

    from sparkopt.deep import TorchEstimator

    if on == "spark":
        request.getfixturevalue("spark")
    rng = np.random.default_rng(0)
    pixels = rng.random((12, 6, 5, 3)).astype(np.float32)
    masks = np.where(rng.random((12, 6, 5)) < 0.1, 255, (pixels[..., 0] > 0.5)).astype(np.uint8)
    rows = pa.table(
        {
            "image": [{"shape": [6, 5, 3], "dtype": "float32", "data": one.tobytes()} for one in pixels],
            "mask": [cv2.imencode(".png", one)[1].tobytes() for one in masks],
        }
    )
    trained = TorchEstimator(
        module=functools.partial(torch.nn.Conv2d, 3, 2, 1),
        loss=torch.nn.CrossEntropyLoss(ignore_index=255),
        featuresCol="image",
        labelCol="mask",
        labelKind="mask",
        imagePipeline=images.Compose([images.ToCHW()]),
        launcher="local",
        epochs=3,
    ).fit(rows)
    trained.write().save(str(tmp_path / "model"))
    pq.write_table(
        rows.set_column(1, "mask", pa.array([None, *rows["mask"].to_pylist()[1:]])), tmp_path / "r.parquet"
    )
    flags = ["--ignore-index", "255", "--handle-invalid", "skip", "--on", on, "--output", tmp_path / "gate"]
    code, _, err = call(
        capsys, "evaluate", "--model", tmp_path / "model", "--parquet", tmp_path / "r.parquet", *flags
    )
    assert code == 0, err
    found = json.loads((tmp_path / "gate" / "metrics.json").read_text())
    answers = np.array(trained.transform(rows)["prediction"].to_pylist())[1:].reshape(-1)
    truth = masks[1:].reshape(-1)
    truth, answers = truth[truth != 255], answers[truth != 255]
    assert found["metrics"]["meanIoU"] == pytest.approx(jaccard_score(truth, answers, average="macro"))
    assert found["metrics"]["meanDice"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found["metrics"]["pixelAccuracy"] == pytest.approx(np.mean(truth == answers))
    assert (found["metrics"]["rows"], found["metrics"]["invalid"]) == (11, 1)
    iou = jaccard_score(truth, answers, average=None)
    assert [one["iou"] for one in found["by_class"].values()] == pytest.approx(iou.tolist())
    assert found["gate"]["metric"] == "meanIoU"
