"""What is wrong with the images of a network, or with masks, boxes and keypoints, is named: column, row, way out."""

from __future__ import annotations

import functools
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparkopt import images
from sparkopt.deep import RowStore, TorchEstimator
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from tests.deep.rows import parted

HEIGHT, WIDTH, ROWS, ENDS, BAD = 8, 10, 24, [9], 13
"""Rows, of which the tenth begins the second partition, so that the bad one is its row 4."""
AT = "partition 1, row 4"
PLAIN = images.Compose([images.Decode("gray"), images.Rescale(1 / 255)])
TURNED = images.Compose([images.Decode("gray"), images.Rotate(45), images.Rescale(1 / 255)])


class Scores(nn.Module):
    """Some scores for each pixel; one without a dimension of its own where ``outputs`` is None."""

    def __init__(self, outputs=3):
        super().__init__()
        self.layer, self.is_flat = nn.Conv2d(1, outputs or 1, 1), outputs is None

    def forward(self, x):
        found = self.layer(x)
        return found[:, 0] if self.is_flat else found


class Numbers(nn.Module):
    """Some numbers for an image."""

    def __init__(self, numbers=4):
        super().__init__()
        self.layer = nn.Linear(HEIGHT * WIDTH, numbers)

    def forward(self, x):
        return self.layer(x.flatten(1))


def encoded(values):
    return images.encode(np.asarray(values, np.uint8)[..., None], "png")


def mask(value=1, kind=np.uint8):
    found = np.zeros((HEIGHT, WIDTH), kind)
    found[2:5, 3:7] = value
    return found


def picture(number):
    return encoded(np.full((HEIGHT, WIDTH), 9 * number))


def table(**changed):
    """Rows of images with their labels, some of which are others at ``BAD``."""
    points = pa.list_(pa.list_(pa.float64()))
    columns = {
        "image": ([picture(row) for row in range(ROWS)], pa.binary()),
        "mask": ([encoded(mask())] * ROWS, pa.binary()),
        "boxes": ([[[1.0, 2.0, 3.0, 4.0, 7.0]] * (row % 3) for row in range(ROWS)], points),
        "keypoints": ([[[1.0, 2.0], [None, None], [5.0, 6.0]]] * ROWS, points),
        "label": (list(range(ROWS)), pa.float64()),
    }
    found = {}
    for name, (values, kind) in columns.items():
        rows = [changed.get(name, value) if row == BAD else value for row, value in enumerate(values)]
        found[name] = pa.array(rows, kind)
    return pa.table(found)


def estimator(label="mask", **changes):
    given = dict(module=Scores, loss="multinomial", featuresCol="image", labelCol=label, labelKind=label)
    given |= dict(imagePipeline=PLAIN, evaluationPipeline=PLAIN, launcher="local", epochs=1, batchSize=5)
    return TorchEstimator(**{**given, **changes})


def refused(error, rows, *parts, **changes):
    """Fit, and see that one line of an error has all parts."""
    with pytest.raises(error) as found:
        estimator(**changes).fit(rows)
    assert len(str(found.value).splitlines()) == 1
    for part in parts:
        assert part in str(found.value)


MASK = "label column 'mask', "
OUTPUTS = "the loss takes the whole numbers 0 to 2, one for each of the module's 3 outputs"
INSTEAD = "the loss leave such pixels out by ignore_index="
UNIT = "the loss takes labels from 0 to 1. Divide a mask of 0 and 255 by 255."
CLASSES = {
    "too large": ("multinomial", Scores, 7, ("a pixel is 7", OUTPUTS, "Give the module more outputs", f"{INSTEAD}7")),
    "not declared": (nn.CrossEntropyLoss(), Scores, 255, ("a pixel is 255", OUTPUTS, f"{INSTEAD}255")),
    "another declared": (nn.CrossEntropyLoss(ignore_index=255), Scores, 3, ("a pixel is 3", OUTPUTS, f"{INSTEAD}3")),
    "a function": (F.cross_entropy, Scores, 7, ("a pixel is 7", OUTPUTS)),
    "of settings": (functools.partial(F.cross_entropy, ignore_index=9), Scores, 7, ("a pixel is 7", OUTPUTS)),
    "below 0": ("multinomial", Scores, -1, ("a pixel is -1", OUTPUTS, f"{INSTEAD}-1")),
    "of one class": ("logistic", functools.partial(Scores, None), 255, ("a pixel is 255", UNIT)),
    "counts": ("poisson", functools.partial(Scores, None), -3, ("a pixel is -3", "the loss takes counts >= 0")),
}


def rows_with(value):
    """Rows of which the bad one's mask has a value, as tensors: files hold none below 0."""
    found = [mask(value if row == BAD else 1, np.int64) for row in range(ROWS)]
    return table().set_column(1, "mask", pa.array([tensor(one) for one in found]))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_that_is_none_of_the_outputs_is_named(name):
    loss, module, value, parts = CLASSES[name]
    rows = rows_with(value) if value < 0 else table(mask=encoded(mask(value)))
    refused(DataError, parted(rows, ENDS), MASK + AT, *parts, loss=loss, module=module)
    refused(DataError, parted(rows.slice(BAD, 3)), f"{MASK}partition 0, row 0", *parts, loss=loss, module=module)


@pytest.mark.parametrize(("fill", "loss"), [(255, "multinomial"), (-1, F.cross_entropy), (4, nn.NLLLoss())])
def test_what_a_pipeline_adds_outside_must_be_a_class_or_ignored(fill, loss):
    parts = (f"a pixel is {fill}; {OUTPUTS}. That is maskFill, the label of pixels outside", f"ignore_index={fill}")
    refused(DataError, table(), MASK, *parts, loss=loss, maskFill=float(fill), imagePipeline=TURNED)
    declared = nn.CrossEntropyLoss(ignore_index=fill)
    assert estimator(loss=declared, maskFill=float(fill), imagePipeline=TURNED).fit(table()).summary.receipt.rows


def test_rows_held_out_are_looked_at_too():
    aside = pa.array([row == BAD for row in range(ROWS)])
    rows = parted(table(mask=encoded(mask(7))).append_column("aside", aside), ENDS)
    refused(DataError, rows, MASK + AT, OUTPUTS, validationIndicatorCol="aside")


def test_rows_are_numbered_as_the_user_has_them():
    """Whatever was left out before them, or held out, and whatever a batch is."""
    rows = table(mask=encoded(mask(7))).to_pydict()
    rows["image"][2] = rows["image"][10] = b"no image"
    rows["aside"] = [row % 2 == 0 for row in range(ROWS)]
    given = dict(handleInvalid="skip", validationIndicatorCol="aside")
    for size in (1, 7):
        refused(DataError, parted(rows, ENDS), MASK + AT, batchSize=size, **given)


class Own(nn.Module):
    """A loss of a user's own, which leaves labels out by itself."""

    def forward(self, output, target):
        return own(output, target)


SEEN: list[torch.dtype] = []


def own(output, target):
    SEEN.append(target.dtype)
    return F.cross_entropy(output, target, ignore_index=7, reduction="none").mean((1, 2))


def squared(output, target):
    SEEN.append(target.dtype)
    return (output - target).square().mean((1, 2))


def step(module, batch):
    return own(module(batch.inputs[0]), batch.label)


class Watched(nn.CrossEntropyLoss):
    """PyTorch's, which tells what it is given."""

    def forward(self, output, target):
        SEEN.append(target.dtype)
        return super().forward(output, target)


OWN = {
    "a function": dict(loss=own),
    "of settings": dict(loss=functools.partial(own)),
    "a module": dict(loss=Own()),
    "of classes": dict(loss=own, task="classes"),
    "a step": dict(step=step, loss=None),
    "of PyTorch's class": dict(loss=Watched(ignore_index=7)),
}


@pytest.mark.parametrize("name", OWN)
def test_every_loss_is_given_masks_as_classes(name):
    SEEN.clear()
    changes = {key: value for key, value in OWN[name].items() if value is not None}
    given = dict(module=Scores, featuresCol="image", labelCol="mask", labelKind="mask", imagePipeline=PLAIN)
    fitted = TorchEstimator(**given, launcher="local", epochs=1, **changes).fit(table(mask=encoded(mask(7))))
    assert set(SEEN) == {torch.int64}
    assert fitted.summary.receipt.rows == ROWS


def test_pytorchs_losses_of_numbers_are_given_numbers():
    """As without masks: they do not take whole ones."""
    for loss in (nn.MSELoss(), F.mse_loss, "squared_error", nn.L1Loss()):
        assert estimator(loss=loss, module=functools.partial(Scores, None)).fit(table()).summary.receipt.rows == ROWS


def test_one_channel_of_a_network_is_a_mask_s():
    """As (rows, height, width) is: to the same losses and predictions."""
    found = []
    for outputs in (1, None):
        model = estimator(loss="logistic", module=functools.partial(Scores, outputs), metrics={}).fit(table())
        predicted = model.transform(table())
        assert len(predicted["prediction"][0]) == HEIGHT * WIDTH
        found.append((model.summary.objectiveHistory, predicted["probability"].to_pylist()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(one, torch.int64) for one in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")]
    + [("float32", torch.float32), ("float64", torch.float32)],
)
def test_a_tensor_of_any_type_is_a_mask(kind, dtype):
    """Fractions stay what they are, such as depths; whole numbers are classes."""
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) / 2).astype(kind)
    seen = []

    def watched(output, target):
        seen.append(target)
        return output.mean((1, 2))

    rows = pa.table({"image": [picture(3)] * 4, "mask": pa.array([tensor(values)] * 4)})
    estimator(loss=watched, module=functools.partial(Scores, None)).fit(rows)
    assert {one.dtype for one in seen} == {dtype}
    np.testing.assert_array_equal(seen[0][0].numpy(), values)


def test_a_loss_of_the_users_own_that_finds_no_class_says_what_there_is():
    rows = table(mask=encoded(mask(9)))
    refused(DataError, rows, "the loss fails on labels (0 to 9), where the module gives (3, 8, 10) a row", loss=own)


IMAGE = "features column 'image', "
SMALL = images.Compose([images.Decode("gray"), images.CenterCrop(HEIGHT, WIDTH), images.Rescale(1 / 255)])
COLORS = images.encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "png")
DAMAGED = {
    "no image": (dict(image=b"no image"), {}, (IMAGE, "not an image: neither JPEG")),
    "an empty image": (dict(image=b""), {}, (IMAGE, "empty: the value holds no bytes")),
    "a truncated image": (dict(image=picture(3)[:50]), {}, (IMAGE, "truncated: the PNG ends before")),
    "too small": (
        dict(image=encoded(np.zeros((4, 4))), mask=encoded(np.zeros((4, 4)))),
        dict(imagePipeline=SMALL, evaluationPipeline=SMALL),
        (IMAGE[:-2], "too small: the crop needs 8 x 10 pixels, the image has 4 x 4"),
    ),
    "no mask": (dict(mask=b"no mask"), {}, (MASK, "not an image", "(the mask)")),
    "a truncated mask": (dict(mask=encoded(mask())[:50]), {}, (MASK, "truncated", "(the mask)")),
    "a mask of colours": (dict(mask=COLORS), {}, (MASK, "a mask of 3 channels")),
    "another size": (
        dict(mask=encoded(mask()[:5])),
        {},
        (IMAGE[:-2] + " with " + MASK, "corrupt: the mask has 5 x 10 pixels, and the image 8 x 10"),
    ),
    "a null mask": (dict(mask=None), {}, (MASK, "is null")),
    "a null image": (dict(image=None), {}, (IMAGE, "is null")),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("batch", [1, 5])
def test_what_is_damaged_is_named_by_its_column_and_row(name, batch):
    changed, changes, parts = DAMAGED[name]
    rows = parted(table(**changed), ENDS)
    refused((CorruptImageError, DataError), rows, AT, *parts, "handleInvalid='skip'", batchSize=batch, **changes)
    fitted = estimator(handleInvalid="skip", **changes).fit(rows)
    assert (fitted.summary.receipt.skipped, fitted.summary.receipt.rows) == (1, ROWS - 1)


@pytest.mark.parametrize("name", [name for name in DAMAGED if "image" in DAMAGED[name][0]])
def test_images_of_other_labels_are_named_alike(name):
    changed, changes, parts = DAMAGED[name]
    given = dict(label="label", labelKind="numbers", module=functools.partial(Numbers, 1), loss="squared_error")
    rows = parted(table(**changed), ENDS)
    refused((CorruptImageError, DataError), rows, AT, *parts, **given, **changes)
    model = estimator(**given, handleInvalid="skip", **changes).fit(rows)
    assert model.summary.receipt.skipped == 1
    strict = model.copy().setHandleInvalid("error")
    for read in (strict.transform, strict.evaluate):
        with pytest.raises((CorruptImageError, DataError)) as error:
            read(table(**changed))
        assert f"{IMAGE}row {BAD}" in str(error.value)
        assert parts[-1] in str(error.value)


def test_paths_are_named(tmp_path):
    rows = table(mask=b"no mask").to_pydict()
    for name in ("image", "mask"):
        for row, content in enumerate(rows[name]):
            file = tmp_path / f"{name} {row}.png"
            file.write_bytes(content)
            rows[name][row] = str(file)
    place = f"{MASK}{AT} (image '{tmp_path}/image {BAD}.png', mask '{tmp_path}/mask {BAD}.png'): not an image"
    refused(CorruptImageError, parted(rows, ENDS), place)
    (tmp_path / f"image {BAD}.png").write_bytes(b"no image")
    model = estimator(handleInvalid="skip").fit(parted(rows, ENDS))
    with pytest.raises(CorruptImageError, match=re.escape(f"{IMAGE}row {BAD} (image '{tmp_path}/image {BAD}.png')")):
        model.copy().setHandleInvalid("error").transform(pa.table(rows))


def test_images_of_unlike_sizes_are_named():
    rows = parted(table(image=encoded(np.zeros((4, 4))), mask=encoded(np.zeros((4, 4)))), ENDS)
    refused(DataError, rows, "of (8, 10, 1) float32 and of (4, 4, 1) float32; a batch needs one shape", IMAGE)


POINTS = {
    "infinite keypoints": ("keypoints", [[np.inf, 1], [2, 3], [4, 5]], "keypoint 0 is [inf, 1.0]; both numbers"),
    "half a keypoint": ("keypoints", [[1, 1], [2, 3], [4, None]], "keypoint 2 is [4.0, nan]; both numbers must be"),
    "infinite boxes": ("boxes", [[1, 2, 3, 4, 5], [1, 2, np.inf, 4, 5]], "box 1 is [1.0, 2.0, inf, 4.0, 5.0]; its"),
    "a box of NaN": ("boxes", [[np.nan, 1, 2, 3, 4]], "box 0 is [nan, 1.0, 2.0, 3.0, 4.0]; its numbers must"),
    "a box of no class": ("boxes", [[0, 1, 2, 3, None]], "box 0 is [0.0, 1.0, 2.0, 3.0, nan]; its numbers must be"),
    "sides": ("boxes", [[5, 5, 2, 3, 1]], "box 0 is [5.0, 5.0, 2.0, 3.0, 1.0]; it must have x_min <= x_max"),
    "null": ("boxes", None, "is null"),
}


def absolute(output, target):
    """A loss that leaves out what is not there."""
    flat = target.flatten(1)
    return torch.where(torch.isnan(flat), 0, flat).abs().sum(1) + output.square().sum(1)


def of_points(label, **changes):
    return dict(label=label, module=Numbers, loss=absolute, **changes)


@pytest.mark.parametrize("name", POINTS)
def test_boxes_and_keypoints_that_are_none_are_invalid_rows(name):
    label, value, message = POINTS[name]
    rows = parted(table(**{label: value}), ENDS)
    refused(DataError, rows, f"label column {label!r}, {AT}", message, "handleInvalid='skip'", **of_points(label))
    fitted = estimator(**of_points(label, handleInvalid="skip")).fit(rows)
    assert (fitted.summary.receipt.skipped, fitted.summary.receipt.rows) == (1, ROWS - 1)


UNLIKE = {
    "fewer keypoints": ("keypoints", [[1, 2]], "has 1 keypoints", "Give [null, null] for those that are not there."),
    "no keypoints": ("keypoints", [], "has 0 keypoints", "Give [null, null]"),
    "more keypoints": ("keypoints", [[1, 2]] * 4, "has 4 keypoints", "row 0 has 3"),
    "boxes of no class": ("boxes", [[1, 2, 3, 4]], "has 4 numbers in each box", "has 5"),
    "boxes of more": ("boxes", [[1, 2, 3, 4, 5, 6]], "has 6 numbers in each box", "has 5"),
}


@pytest.mark.parametrize("name", UNLIKE)
@pytest.mark.parametrize("ends", [ENDS, [], [BAD, BAD + 1]], ids=["among others", "in one partition", "alone"])
def test_a_row_that_differs_from_the_others_is_named(name, ends):
    label, value, *parts = UNLIKE[name]
    number = {1: BAD - ENDS[0], 0: BAD, 2: 0}[len(ends)]
    place = f"label column {label!r}, partition {min(len(ends), 1)}, row {number} has"
    for mode in ("error", "skip"):  # it is no missing value
        rows = parted(table(**{label: value}), ends)
        refused(DataError, rows, place, *parts, **of_points(label, handleInvalid=mode))


def test_batches_without_boxes_have_the_numbers_of_others():
    shapes = set()

    def watched(output, target):
        shapes.add(target.shape[1:])
        return output.square().sum(1)

    estimator(**{**of_points("boxes"), "loss": watched, "batchSize": 1}).fit(table())
    assert shapes == {(0, 5), (1, 5), (2, 5)}


def tensor(values):
    values = np.asarray(values)
    return {"shape": list(values.shape), "dtype": values.dtype.name, "data": values.tobytes()}


TENSORS = {
    "wide labels": (tensor(mask(2**40, np.int64)), "corrupt: mask must have labels of 32 bits"),
    "another size": (tensor(mask()[:5]), "corrupt: the mask has 5 x 10 pixels, and the image 8 x 10"),
    "no type": ({**tensor(mask()), "dtype": "labels"}, "is no mask: data type 'labels' not understood"),
    "null as type": ({**tensor(mask()), "dtype": None}, "is no mask: a part of the tensor is null"),
    "another type": ({**tensor(mask()), "dtype": "complex64"}, "is no mask: a tensor of complex64 holds no labels"),
    "no shape": ({**tensor(mask()), "shape": [80]}, "is no mask: its shape is [80], and a mask's is [height, width]"),
    "half": ({**tensor(mask()), "data": b"1"}, "is no mask: cannot reshape array of size 1"),
    "NaN": (tensor(mask(np.nan, np.float32)), "is nan at a pixel"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_no_masks_are_invalid_rows(name):
    value, message = TENSORS[name]
    masks = [value if row == BAD else tensor(mask()) for row in range(ROWS)]
    rows = parted(table().set_column(1, "mask", pa.array(masks)), ENDS)
    refused((CorruptImageError, DataError), rows, MASK + AT, message, "handleInvalid='skip'")
    fitted = estimator(handleInvalid="skip").fit(rows)
    assert (fitted.summary.receipt.skipped, fitted.summary.receipt.rows) == (1, ROWS - 1)


def test_tensors_are_of_their_images_sizes():
    """And a layer of its own is none."""
    cut = images.Compose([images.Decode("gray"), images.Resize(HEIGHT, WIDTH, "nearest"), images.Rescale(1 / 255)])
    sides = [(HEIGHT * (1 + row % 2), WIDTH * (1 + row % 3)) for row in range(ROWS)]
    labels = [np.kron(mask(), np.ones((high // HEIGHT, wide // WIDTH), np.uint8)) for high, wide in sides]
    kinds = {
        "files": [encoded(one) for one in labels],
        "tensors": [tensor(one) for one in labels],
        "layers": [tensor(one[..., None].astype(np.int32)) for one in labels],
    }
    pictures = pa.array([encoded(np.full(side, 9 * row)) for row, side in enumerate(sides)])
    found = []
    for masks in kinds.values():
        rows = pa.table({"image": pictures, "mask": pa.array(masks)})
        found.append(estimator(imagePipeline=cut, evaluationPipeline=cut).fit(rows).summary.objectiveHistory)
    assert found[0] == found[1] == found[2]


def test_masks_of_unlike_layers_are_named():
    two = np.stack([mask(), mask()], 2)
    masks = [tensor(two if row == BAD else mask()) for row in range(ROWS)]
    rows = parted(table().set_column(1, "mask", pa.array(masks)), ENDS)
    refused(DataError, rows, MASK, "the mask has the shape (8, 10", "a batch needs as many layers of each")


def test_what_cannot_be_mixed_is_refused_before_rows_are_read():
    given = dict(batchMixing=images.CutMix(), storePath="/nowhere/at/all")
    refused(ParameterError, table(), "CutMix mixes labels by area, and label column 'mask' holds masks", **given)


def test_a_store_knows_its_rows(tmp_path):
    """And is the same whether others were left out or not."""
    rows = table(mask=encoded(mask(7)))
    store = RowStore.write(parted(rows, ENDS), str(tmp_path / "rows"), estimator())
    refused(DataError, RowStore.open(str(tmp_path / "rows")), MASK + AT)
    bad = table(image=b"no image")
    skipped = RowStore.write(bad, str(tmp_path / "skipped"), estimator(handleInvalid="skip"))
    whole = RowStore.write(bad.filter(pa.array(np.arange(ROWS) != BAD)), str(tmp_path / "whole"), estimator())
    assert skipped.index.fingerprint == whole.index.fingerprint
    assert skipped.index.bytes == whole.index.bytes
    assert store.index.fingerprint != whole.index.fingerprint


def test_processes_name_it_too():
    loss, _, value, parts = CLASSES["another declared"]
    rows = parted(table(mask=encoded(mask(value))), ENDS)
    refused(DataError, rows, MASK + AT, *parts, loss=loss, launcher="torch", numProc=2)


def test_masks_are_not_evaluated_afterwards():
    model = estimator().fit(table())
    with pytest.raises(SchemaError, match="'mask' holds bytes, and evaluate compares predictions with numbers. Of"):
        model.setLabelCol("mask").evaluate(table())


@pytest.mark.usefixtures("minutes")
def test_on_spark(spark):
    for changed, error, parts in (
        (dict(mask=encoded(mask(7))), DataError, (MASK, "a pixel is 7", OUTPUTS)),
        (dict(mask=b"no mask"), CorruptImageError, (MASK, "not an image")),
        (dict(image=b"no image"), CorruptImageError, (IMAGE, "not an image")),
    ):
        frame = spark.createDataFrame(table(**changed)).coalesce(1)
        refused(error, frame, f"partition 0, row {BAD}", *parts, launcher="torch", numProc=2)
        refused(error, frame, f"partition 0, row {BAD}", *parts)
    frame = spark.createDataFrame(table(keypoints=[[1.0, 2.0]])).coalesce(1)
    refused(DataError, frame, f"row {BAD} has 1 keypoints", **of_points("keypoints"))
