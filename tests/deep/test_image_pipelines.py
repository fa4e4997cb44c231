"""What a network is given of an image pipeline: one image of a row, its channels where they belong."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt import images
from sparkopt.deep import RowStore, TorchEstimator
from sparkopt.deep.batch import Decoder
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.machine import Table, TablePart
from sparkopt.shards.fields import Field, Fields
from sparkopt.shards.groups import contents
from sparkopt.values import dataclass

DECODE, SCALE = images.Decode(), images.Rescale(1 / 255)
PLAIN = images.Compose([DECODE, SCALE])
HEIGHT, WIDTH, ROWS = 4, 5, 12


class ChannelsFirst(nn.Module):
    """Takes images with three channels first only, and gives a multiple of the mean of the first."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        assert x.shape[1:] == (3, HEIGHT, WIDTH), x.shape
        return x[:, 0].mean((1, 2)).unsqueeze(1) * self.scale


def pixels():
    return np.random.default_rng(4).integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), dtype=np.uint8)


def rows():
    return pa.table({"image": [images.encode(one, "png") for one in pixels()], "label": np.arange(ROWS) / ROWS})


def estimator(**options):
    given = dict(module=ChannelsFirst, featuresCol="image", imagePipeline=PLAIN, launcher="local", batchSize=4)
    return TorchEstimator(**{**given, "epochs": 2, **options})


NO_IMAGE = {
    "five crops": ([DECODE, images.FiveCrop(4, 4), SCALE], "has FiveCrop, which makes several images of one"),
    "tiles": ([DECODE, images.Tiles(4, 4), images.ToCHW()], "has Tiles, which makes several images of one"),
    "bytes": ([DECODE, images.Encode("png")], "ends in Encode, which leaves bytes"),
    "of decoded images": ([SCALE], "must begin with Decode: the images are encoded"),
    "of nothing": ([], "must begin with Decode: the images are encoded"),
    "channels first too early": ([DECODE, images.ToCHW(), SCALE], "has ToCHW before its end"),
    "channels first at times": ([DECODE, images.ToCHW(p=0.5)], "has ToCHW before its end, or for some images only"),
}


class Unread(TablePart):
    """Rows that must not be read."""

    name, rows, bytes = "unread", 2, 100

    def batches(self, columns=None):
        raise AssertionError("rows were read")


@pytest.mark.parametrize("name", ["imagePipeline", "evaluationPipeline"])
@pytest.mark.parametrize(("steps", "message"), NO_IMAGE.values(), ids=NO_IMAGE)
def test_a_pipeline_that_gives_no_image_is_refused_before_rows_are_read(name, steps, message):
    pipelines = {"imagePipeline": PLAIN, "evaluationPipeline": PLAIN, name: images.Compose(steps)}
    unread = Table(pa.schema({"label": pa.float64(), "image": pa.binary()}), (Unread(),))
    with pytest.raises(ParameterError, match=f"^{name} {message}") as error:
        estimator(**pipelines).fit(unread)
    assert len(str(error.value).splitlines()) == 1


def test_a_store_and_a_model_refuse_it_too(tmp_path):
    crops = images.Compose([DECODE, images.FiveCrop(4, 4)])
    with pytest.raises(ParameterError, match="^imagePipeline has FiveCrop"):
        RowStore.write(rows(), str(tmp_path / "refused"), estimator(imagePipeline=crops))
    store = RowStore.write(rows(), str(tmp_path / "rows"), estimator())
    with pytest.raises(ParameterError, match="^imagePipeline has FiveCrop"):
        estimator(imagePipeline=crops).fit(store)
    model = estimator().fit(store)
    with pytest.raises(ParameterError, match="^evaluationPipeline has FiveCrop"):
        model.copy().setEvaluationPipeline(crops).transform(rows())


def test_channels_are_first_once_whether_a_pipeline_says_so_or_not():
    found = []
    for steps in ([DECODE, SCALE], [DECODE, SCALE, images.ToCHW()]):
        model = estimator(imagePipeline=images.Compose(steps)).fit(rows())
        predicted = model.transform(rows())["prediction"].to_pylist()
        expected = pixels()[..., 0].mean((1, 2)) / 255 * model.module.scale.item()
        np.testing.assert_allclose(predicted, expected, rtol=1e-5)
        found.append((model.summary.objectiveHistory, predicted))
    assert found[0] == found[1]


def image_row(one, origin=None):
    """A row of Spark's image schema: its colours are in the order BGR."""
    height, width, channels = one.shape
    data = np.ascontiguousarray(one[..., ::-1]).tobytes()
    return {"origin": origin, "height": height, "width": width, "nChannels": channels, "mode": 16, "data": data}


def tensor_row(one):
    return {"shape": list(one.shape), "dtype": one.dtype.name, "data": one.tobytes()}


FORMS = {
    "bytes": lambda one: images.encode(one, "png"),
    "uint8 tensors": tensor_row,
    "float32 tensors": lambda one: tensor_row(one.astype(np.float32)),
    "image rows": image_row,
}


def in_form(form, given=None):
    return pa.table({"image": [FORMS[form](one) for one in (pixels() if given is None else given)], "label": LABELS})


LABELS = np.arange(ROWS) / ROWS


@pytest.mark.parametrize("begins", ["with Decode", "with the first step"])
@pytest.mark.parametrize("form", FORMS)
def test_a_pipeline_prepares_images_in_every_form_that_columns_have(form, begins, tmp_path):
    """In training, in scoring, from a store, and where pipelines are chained: by no other numbers than of bytes."""
    if form == "bytes" and begins != "with Decode":
        return  # which test_a_pipeline_that_gives_no_image_is_refused_before_rows_are_read has
    pipeline = PLAIN if begins == "with Decode" else images.Compose([SCALE])
    expected = estimator().fit(rows())
    found = estimator(imagePipeline=pipeline).fit(in_form(form))
    assert found.summary.objectiveHistory == expected.summary.objectiveHistory
    predicted = found.transform(in_form(form))["prediction"].to_pylist()
    np.testing.assert_allclose(predicted, pixels()[..., 0].mean((1, 2)) / 255 * found.module.scale.item(), rtol=1e-5)
    store = RowStore.write(in_form(form), str(tmp_path / "rows"), estimator(imagePipeline=pipeline))
    stored = estimator(imagePipeline=pipeline).fit(store)
    assert stored.summary.objectiveHistory == expected.summary.objectiveHistory
    kernel = images.ImageKernel(pipeline)
    chained = images.BatchFunction(kernel, "image", "made").applied(in_form(form)).to_arrow()["made"].to_pylist()
    for row, one in zip(chained, pixels(), strict=True):
        made = np.frombuffer(row["data"], row["dtype"]).reshape(row["shape"])
        np.testing.assert_allclose(made, one / 255, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_training_augments_images_in_every_form(form):
    """A flip from left to right in every epoch turns the mean of the left column to that of the right one."""

    class Left(nn.Module):
        seen: list = []

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.3))

        def forward(self, x):
            self.seen.append(x.detach().clone())
            return x[:, 0, :, 0].mean(1, keepdim=True) * self.scale

    flip = images.Compose([DECODE, images.RandomHorizontalFlip(1.0), SCALE])
    model = estimator(module=Left, imagePipeline=flip, evaluationPipeline=PLAIN, epochs=1).fit(in_form(form))
    seen = torch.cat(Left.seen[-3:]).numpy()  # the batches of the epoch
    flipped = pixels()[:, :, ::-1].transpose(0, 3, 1, 2) / 255
    order = lambda batch: batch.reshape(len(batch), -1)[np.lexsort(batch.reshape(len(batch), -1).T)]  # noqa: E731
    np.testing.assert_allclose(order(seen), order(flipped), atol=1e-6)
    predicted = model.transform(in_form(form))["prediction"].to_pylist()
    np.testing.assert_allclose(predicted, pixels()[:, :, 0, 0].mean(1) / 255 * model.module.scale.item(), rtol=1e-5)


WRONG = {
    "null": (None, "row 5 is null"),
    "a part that is null": ({"shape": None, "dtype": "uint8", "data": b""}, "row 5 is no image: null"),
    "fewer bytes": (
        {"shape": [4, 5, 3], "dtype": "uint8", "data": b"123"},
        "row 5 is no image: corrupt: the image is",
    ),
    "a vector": (tensor_row(np.zeros(60, np.uint8)), r"row 5 is no image: unsupported: image must have the shape"),
    "int64": (tensor_row(np.zeros((4, 5, 3), np.int64)), "row 5 is no image: unsupported: image must hold values of"),
    "NaN": (tensor_row(np.full((4, 5, 3), np.nan, np.float32)), "row 5 is nan at a pixel"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_tensor_is_an_invalid_row(wrong, message):
    given = in_form("uint8 tensors")["image"].to_pylist()
    given[5] = wrong
    table = pa.table({"image": given, "label": LABELS})
    with pytest.raises(DataError, match=message):
        estimator().fit(table)
    model = estimator(handleInvalid="skip").fit(table)
    assert model.summary.receipt.rows == ROWS - 1
    scored = model.copy().setHandleInvalid("keep").transform(table)["prediction"].to_pylist()
    assert [row for row, one in enumerate(scored) if one is None] == [5]


NUMBERS = {
    "vectors": pa.array([[1.0, 2.0]] * ROWS),
    "numbers": pa.array([1.0] * ROWS),
    "arrays": pa.array([[[1.0], [2.0]]] * ROWS),
}


@pytest.mark.parametrize("name", ["imagePipeline", "evaluationPipeline"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_pipeline_that_no_column_needs_is_refused(kind, name):
    table = pa.table({"image": NUMBERS[kind], "label": LABELS})
    with pytest.raises(SchemaError, match=f"^{name} is set, and the features image hold numbers"):
        estimator(**{"imagePipeline": None, name: PLAIN}).fit(table)


def test_a_store_of_numbers_refuses_a_pipeline(tmp_path):
    store = RowStore.write(in_form("uint8 tensors"), str(tmp_path / "rows"), estimator(imagePipeline=None))
    with pytest.raises(SchemaError, match="one of images where it was written with imagePipeline"):
        estimator().fit(store)


def test_the_origin_of_an_image_row_is_named():
    given = [image_row(one, f"/photos/{place}.png") for place, one in enumerate(pixels())]
    given[5]["mode"] = 5
    with pytest.raises(DataError, match=r"row 5 is no image: unsupported: OpenCV type 5"):
        estimator().fit(pa.table({"image": given, "label": LABELS}))
    small = images.Compose([DECODE, images.CenterCrop(4, 6), SCALE])
    with pytest.raises(CorruptImageError, match=r"row 0 \(image '/photos/0.png'\)"):
        estimator(imagePipeline=small).fit(pa.table({"image": [given[0]], "label": LABELS[:1]}))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "float32 tensors"])
def test_sparks_rows_are_those_of_a_table(form, spark):
    expected = estimator().fit(in_form(form))
    df = spark.createDataFrame(in_form(form)).coalesce(1)
    found = estimator().fit(df)
    assert found.summary.objectiveHistory == expected.summary.objectiveHistory
    predicted = [row["prediction"] for row in found.transform(df).collect()]
    np.testing.assert_allclose(predicted, expected.transform(in_form(form))["prediction"].to_pylist(), rtol=1e-6)


@dataclass(frozen=True)
class Returning(images.ImageTransform):
    """Gives values of any shape and type, as a step of a user's own may; which, the image's first value says."""

    shape: tuple[int, ...]
    dtype: str = "uint8"

    def apply(self, image, rng):
        return values(int(image[0, 0, 0]), self.shape).astype(self.dtype)


class Lifting(images.ImageTransform):
    """Makes float32 of some images only."""

    def apply(self, image, rng):
        return image.astype(np.float32) if image[0, 0, 0] else image


def values(seed, shape):
    return np.random.default_rng(seed).integers(0, 2, shape)


def batch(*steps):
    """Two images after steps, as a batch has them."""
    content = [images.encode(np.full((2, 3, 1), one, np.uint8), "png") for one in (0, 1)]
    pipeline = images.Compose([images.Decode("gray"), *steps])
    decoder = Decoder(Fields((Field("input0", ("image",), "bytes"),)), pipeline)
    return decoder.inputs({"input0": contents(pa.array(content))})[0].numpy()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "bool", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 64, 65, 130, 600])
def test_images_of_any_type_and_channels_are_in_their_batch(channels, dtype):
    """Where OpenCV split an image into arrays of its own, the batch would be memory that nobody wrote."""
    shape = (4, 3, channels)
    found = batch(Returning(shape, dtype))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, [values(seed, shape).transpose(2, 0, 1) for seed in (0, 1)])


OTHERS = {
    "a vector": (Returning((4,)), "an array of (4,) where a network takes one image of (height, width, channels)"),
    "a plane": (Returning((4, 3)), "an array of (4, 3) where"),
    "a stack": (Returning((5, 4, 3, 1)), "an array of (5, 4, 3, 1) where"),
    "five crops": (images.FiveCrop(2, 2), "an array of (5, 2, 2, 1) where"),
    "a file": (images.Encode("png"), "gives bytes where"),
    "two types": (Lifting(), "of (2, 3, 1) uint8 and of (2, 3, 1) float32; a batch needs one shape and type"),
}


@pytest.mark.parametrize(("step", "message"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_image_has_no_place_in_a_batch(step, message):
    with pytest.raises(DataError, match=re.escape(message)):
        batch(step)
