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
from sparkopt.errors import DataError, ParameterError
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
    "channels first twice": ([DECODE, images.ToCHW(), images.ToCHW()], "has ToCHW before its end"),
    "channels first at times": ([DECODE, images.ToCHW(p=0.5)], "has ToCHW before its end, or for some images only"),
    "channels first by chance": (
        [DECODE, images.RandomChoice([images.ToCHW(), SCALE])],
        "has ToCHW before its end, or for some images only",
    ),
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
