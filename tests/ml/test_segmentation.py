"""Metrics of masks, against scikit-learn's on all pixels, in each form of masks, on tables and on Spark."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score

from sparkopt.errors import DataError, SchemaError
from sparkopt.ml import segmentation_metrics

TENSOR = pa.struct([("shape", pa.list_(pa.int32())), ("dtype", pa.string()), ("data", pa.binary())])
CLASSES, IGNORED = 5, 255


def tensor(array):
    return {"shape": list(array.shape), "dtype": array.dtype.name, "data": array.tobytes()}


def encoded(mask):
    return cv2.imencode(".png", mask.astype(np.uint8))[1].tobytes()


def scores(mask):
    """Scores of which the highest is the mask's."""
    noise = np.random.default_rng(1).random((CLASSES, *mask.shape)).astype(np.float32)
    return noise + (np.arange(CLASSES)[:, None, None] == mask).astype(np.float32)


FORMS = {
    "pixels": (pa.list_(pa.float32()), lambda mask: mask.reshape(-1).tolist()),
    "arrays": (pa.list_(pa.list_(pa.int32())), lambda mask: mask.tolist()),
    "tensor": (TENSOR, lambda mask: tensor(mask.astype(np.uint8))),
    "tensor of a channel": (TENSOR, lambda mask: tensor(mask[..., None].astype(np.int64))),
    "encoded": (pa.binary(), encoded),
}
SCORES = {
    "scores": (TENSOR, lambda mask: tensor(scores(mask))),
    "scores in arrays": (
        pa.list_(pa.list_(pa.list_(pa.float32()))),
        lambda mask: scores(mask).tolist(),
    ),
}


@pytest.fixture(scope="module")
def masks():
    """True and predicted masks of unlike sizes; class 3 is in neither, and class 4 in predictions only."""
    rng = np.random.default_rng(0)
    truth, answers = [], []
    for size in [(6, 7), (5, 5), (9, 4)]:
        mask = rng.integers(0, 3, size)
        answer = np.where(rng.random(size) < 0.6, mask, rng.choice([0, 1, 2, 4], size))
        truth.append(np.where(rng.random(size) < 0.15, IGNORED, mask))
        answers.append(answer)
    return truth, answers


def rows_of(masks, label="tensor", prediction="pixels"):
    truth, answers = masks
    (kind, make), (other, answer) = FORMS[label], (FORMS | SCORES)[prediction]
    return pa.table({"label": pa.array(map(make, truth), kind), "prediction": pa.array(map(answer, answers), other)})


def check_against_sklearn(found, masks):
    truth, answers = (np.concatenate([mask.reshape(-1) for mask in each]) for each in masks)
    truth, answers = truth[truth != IGNORED], answers[truth != IGNORED]
    assert found.classes.tolist() == [0, 1, 2, 4]
    np.testing.assert_array_equal(found.confusion_matrix, confusion_matrix(truth, answers))
    np.testing.assert_allclose(found.iou, jaccard_score(truth, answers, average=None, zero_division=0))
    np.testing.assert_allclose(found.dice, f1_score(truth, answers, average=None, zero_division=0))
    assert found.mean_iou == pytest.approx(jaccard_score(truth, answers, average="macro", zero_division=0))
    assert found.mean_dice == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0))
    assert found.pixel_accuracy == pytest.approx(accuracy_score(truth, answers))
    assert (found.rows, found.invalid) == (3, 0)


@pytest.mark.parametrize("prediction", [*FORMS, *SCORES])
@pytest.mark.parametrize("label", ["arrays", "tensor", "tensor of a channel", "encoded"])
def test_masks_of_every_form_are_compared_as_scikit_learn_does(label, prediction, masks):
    check_against_sklearn(segmentation_metrics(rows_of(masks, label, prediction), ignore_index=IGNORED), masks)


@pytest.mark.parametrize("prediction", [*FORMS, *SCORES])
@pytest.mark.parametrize("parts", [1, 7])
def test_spark_counts_the_same(prediction, parts, masks, spark):
    """Of seven partitions four are empty at least."""
    df = spark.createDataFrame(rows_of(masks, "encoded", prediction)).repartition(parts)
    check_against_sklearn(segmentation_metrics(df, ignore_index=IGNORED), masks)


def test_all_classes_have_a_row_where_their_number_is_given(masks):
    found = segmentation_metrics(rows_of(masks), ignore_index=IGNORED, num_classes=CLASSES)
    assert found.confusion_matrix.shape == (5, 5)
    assert np.isnan(found.iou[3])
    assert found.mean_iou == segmentation_metrics(rows_of(masks), ignore_index=IGNORED).mean_iou


def test_numbers_of_objects_are_refused():
    numbers = np.arange(8193).reshape(1, -1).tolist()
    with pytest.raises(DataError, match="masks have 8,193 classes, and at most 8,192 are compared"):
        segmentation_metrics(pa.table({"label": numbers, "prediction": numbers}))


@pytest.mark.parametrize("largest", [3, 40, 1500])
@pytest.mark.parametrize("pixels", [1, 200, 5000])
def test_few_and_many_classes_are_counted_as_scikit_learn_does(largest, pixels):
    rng = np.random.default_rng(largest + pixels)
    truth, answers = rng.integers(0, largest + 1, (2, 3, pixels))
    found = segmentation_metrics(pa.table({"label": truth.tolist(), "prediction": answers.tolist()}))
    np.testing.assert_array_equal(found.confusion_matrix, confusion_matrix(truth.ravel(), answers.ravel()))


def test_torch_computes_the_same_of_scores(masks):
    torch = pytest.importorskip("torch")
    truth, answers = masks
    matrix = torch.zeros(25, dtype=torch.int64)
    for mask, answer in zip(truth, answers, strict=True):
        chosen = torch.from_numpy(scores(answer)).argmax(0)
        kept = torch.from_numpy(mask) != IGNORED
        matrix += torch.bincount(torch.from_numpy(mask)[kept] * 5 + chosen[kept], minlength=25)
    rows = rows_of(masks, prediction="scores")
    found = segmentation_metrics(rows, ignore_index=IGNORED, num_classes=CLASSES)
    assert found.confusion_matrix.tolist() == matrix.reshape(5, 5).tolist()


BAD = {
    "null prediction": ("prediction", None, "prediction column 'prediction' is null"),
    "null label": ("label", None, "label column 'label' is null"),
    "broken mask": ("label", b"no image", "label column 'label': not an image"),
    "another size": ("prediction", [0.0, 1.0], "the prediction has shape (2,) and the label (6, 7)"),
    "a fraction": ("prediction", [0.5] * 42, "prediction has a pixel of 0.5; classes are 0 to 65535"),
}


def bad_rows(masks, name):
    column, value, _ = BAD[name]
    rows = rows_of(masks, "encoded")
    values = [value, *rows[column].to_pylist()[1:]]
    place = rows.schema.get_field_index(column)
    return rows.set_column(place, column, pa.array(values, rows.schema.field(column).type))


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_row_is_an_error_or_left_out(name, masks):
    rows = bad_rows(masks, name)
    with pytest.raises(DataError) as error:
        segmentation_metrics(rows, ignore_index=IGNORED)
    assert "row 0 of its partition: " in str(error.value)
    assert BAD[name][2] in str(error.value), str(error.value)
    found = segmentation_metrics(rows, ignore_index=IGNORED, invalid="skip")
    assert (found.rows, found.invalid) == (2, 1)


def test_an_invalid_row_on_spark(masks, spark):
    df = spark.createDataFrame(bad_rows(masks, "null prediction"))
    with pytest.raises(DataError, match="prediction column 'prediction' is null"):
        segmentation_metrics(df, ignore_index=IGNORED)
    assert segmentation_metrics(df, ignore_index=IGNORED, invalid="skip").invalid == 1


def test_what_cannot_be_compared_is_refused(masks):
    rows = rows_of(masks)
    with pytest.raises(DataError, match=r"label has a pixel of 255; classes are 0 to 4\. Leave such pixels out"):
        segmentation_metrics(rows, num_classes=5)
    with pytest.raises(DataError, match="no pixels to evaluate"):
        segmentation_metrics(rows.slice(0, 0))
    with pytest.raises(SchemaError, match="label column 'label' has type bigint; masks are arrays"):
        segmentation_metrics(rows.set_column(0, "label", pa.array([1, 2, 3])))
