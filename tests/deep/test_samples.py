"""Networks on masks, boxes and keypoints: the image pipeline moves the labels with the pixels."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.launch import LocalCommunicator, LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.rows import parted

HEIGHT, WIDTH, ROWS = 24, 32, 30
PLAIN = images.Compose([images.Decode("gray"), images.Resize(12, 16), images.Rescale(1 / 255)])
MOVING = images.Compose(
    [images.Decode("gray"), images.RandomRotation(30), images.RandomHorizontalFlip(), *PLAIN.transforms[1:]]
)
KINDS = ("mask", "tensor", "boxes", "keypoints")


def rows(count=ROWS):
    """Images with a bright rectangle, and where it is: as a mask, as boxes with a class, and as its corners."""
    rng = np.random.default_rng(3)
    found = {name: [] for name in ("image", *KINDS)}
    for number in range(count):
        left, top = int(rng.integers(2, 14)), int(rng.integers(2, 10))
        right, bottom = left + int(rng.integers(6, 14)), top + int(rng.integers(6, 12))
        pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 1), dtype=np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[top:bottom, left:right] = 1
        pixels[mask == 1] += 180
        found["image"].append(images.encode(pixels, "png"))
        found["mask"].append(images.encode(mask[..., None], "png"))
        found["tensor"].append({"shape": [HEIGHT, WIDTH], "dtype": "int64", "data": mask.astype(np.int64).tobytes()})
        others = [[0.0, 0.0, 5.0, 5.0, 2.0]] * (number % 3)
        found["boxes"].append([[left, top, right, bottom, 1.0], *others])
        found["keypoints"].append([[left, top], [right, bottom], [None, None]])
    tensor = pa.struct([("shape", pa.list_(pa.int32())), ("dtype", pa.string()), ("data", pa.binary())])
    points = pa.list_(pa.list_(pa.float64()))
    types = {"image": pa.binary(), "mask": pa.binary(), "tensor": tensor, "boxes": points, "keypoints": points}
    return pa.table({name: pa.array(values, types[name]) for name, values in found.items()})


def kind_of(name):
    return "mask" if name == "tensor" else name


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, table = tmp_path_factory.mktemp("samples"), rows()
    parts = parted(table, [17])
    return {
        name: write_store(
            parts, Fields.of(spark_schema(parts.schema), "image", name, None, kind_of(name)), str(folder / name)
        ).uri
        for name in KINDS
    }


def config(store, **changes):
    given = dict(store=store, epochs=1, batch_size=5, streams=2, seed=4)
    given |= dict(pipeline=MOVING.to_json(), evaluation_pipeline=PLAIN.to_json())
    return TrainConfig(**{**given, **changes})


def batches(settings, epoch=0):
    with RankDataLoader(settings, LocalCommunicator(), torch.device("cpu")).training(epoch, 0) as taken:
        return list(taken)


def expected_of(table, name, epoch, fill=0.0):
    """Each image after the pipeline, as bytes, and its label: by a Sample of it."""
    found = {}
    for row in table.to_pylist():
        given = {"mask_fill": fill}
        if name in ("mask", "tensor"):
            given["mask"] = images.decode_mask(row["mask"])
        elif name == "boxes":
            given |= dict(boxes=[box[:4] for box in row["boxes"]], labels=[box[4:] for box in row["boxes"]])
        else:
            given["keypoints"] = [[np.nan if one is None else one for one in point] for point in row["keypoints"]]
        result = MOVING(images.Sample(row["image"], **given), images.row_rng(4, row["image"], epoch))
        label = result.mask if "mask" in given else result.keypoints
        if name == "boxes":
            label = np.hstack([result.boxes, result.labels])
        found[result.pixels.transpose(2, 0, 1).tobytes()] = label
    return found


@pytest.mark.parametrize("name", KINDS)
def test_labels_move_with_the_pixels(stores, name):
    expected, seen = expected_of(rows(), name, 1), 0
    for batch in batches(config(stores[name]), epoch=1):
        assert batch.target.dtype == (torch.int64 if kind_of(name) == "mask" else torch.float32)
        for image, label in zip(batch.inputs[0], batch.target.numpy(), strict=True):
            own = expected[image.numpy().tobytes()]
            np.testing.assert_allclose(label[: len(own)], own, rtol=1e-6)
            assert np.isnan(label[len(own) :]).all()
            seen += 1
    assert seen == ROWS


def test_pixels_outside_have_the_label_that_is_asked_for(stores):
    expected = expected_of(rows(), "mask", 0, fill=255)
    (batch, *_) = batches(config(stores["mask"], mask_fill=255))
    assert (batch.target == 255).any()
    for image, label in zip(batch.inputs[0], batch.target.numpy(), strict=True):
        np.testing.assert_array_equal(label, expected[image.numpy().tobytes()])


class Segmenting(nn.Module):
    """Scores of two classes for each pixel."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))

    def forward(self, x):
        return self.body(x)


class Locating(nn.Module):
    """Two places of an image, or one box and its class."""

    def __init__(self, numbers=4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 16), nn.ReLU(), nn.Linear(16, numbers))

    def forward(self, x):
        return self.body(x)


def of_what_is_there(output, target):
    """The squared error of the numbers of a row that are there, up to as many as the network gives."""
    flat = target.flatten(1)[:, : output.shape[1]]
    there = ~torch.isnan(flat)
    return torch.where(there, output - torch.where(there, flat, 0), 0).square().mean(1)


NETWORKS = {
    "mask": (Segmenting, nn.CrossEntropyLoss(ignore_index=255)),
    "tensor": (Segmenting, "multinomial"),
    "boxes": (functools.partial(Locating, 5), of_what_is_there),
    "keypoints": (Locating, of_what_is_there),
}


def trained(communicator, settings):
    optimizer = functools.partial(torch.optim.SGD, lr=0.01)
    return {
        name: train(communicator, settings[name], Recipe(*NETWORKS[name], optimizer)) for name in KINDS
    }  # fmt: skip


def test_two_ranks_are_one(stores):
    settings = {name: config(stores[name], mask_fill=255 if name == "mask" else 0) for name in KINDS}
    one, two = (launcher.run(trained, settings)[0] for launcher in (LocalLauncher(), ProcessLauncher(2)))
    for name in KINDS:
        assert len(one[name].losses) == 3
        np.testing.assert_allclose(two[name].losses, one[name].losses, rtol=1e-5)
        for key, tensor in module_state(one[name].weights).items():
            np.testing.assert_allclose(module_state(two[name].weights)[key], tensor, rtol=1e-4, atol=1e-6)


def estimator(name="mask", **changes):
    module, loss = NETWORKS[name]
    given = dict(module=module, loss=loss, featuresCol="image", labelCol=name, labelKind=kind_of(name), batchSize=8)
    given |= dict(imagePipeline=MOVING, evaluationPipeline=PLAIN, launcher="local", epochs=2, stepSize=0.02)
    return TorchEstimator(**{**given, **changes})


def test_a_network_learns_to_segment():
    model = estimator(epochs=12, maskFill=255, validationFraction=0.2).fit(rows())
    history = model.summary.history
    assert history[-1]["validation"] < 0.1 < history[0]["validation"]
    found = model.transform(rows(4))["prediction"].to_pylist()
    truth = [PLAIN(images.Sample(image, mask=images.decode_mask(mask))).mask for image, mask in zip(
        rows(4)["image"].to_pylist(), rows(4)["mask"].to_pylist(), strict=True
    )]  # fmt: skip
    assert np.mean([np.reshape(one, own.shape) == own for one, own in zip(found, truth, strict=True)]) > 0.9


def test_rows_whose_label_does_not_fit_are_left_out():
    table = rows(12).to_pydict()
    table["mask"][2] = b"no mask"
    table["mask"][5] = images.encode(np.zeros((3, 3, 1), np.uint8), "png")
    table["mask"][7] = None
    table["image"][9] = b"no image"
    broken = pa.table({name: pa.array(values, rows(1).schema.field(name).type) for name, values in table.items()})
    model = estimator(handleInvalid="skip").fit(broken)
    assert model.summary.receipt.rows == 8
    with pytest.raises(CorruptImageError, match="the mask has 3 x 3 pixels, and the image 24 x 32"):
        estimator().fit(broken.slice(4, 2))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (dict(labelKind="masks"), ParameterError, "labelKind must be one of"),
        (dict(minVisibility=2.0), ParameterError, "minVisibility must be in"),
        (dict(labelKind="numbers"), SchemaError, "masks are labels with labelKind='mask'"),
        (dict(labelCol="boxes"), SchemaError, "'boxes' has type array.*; masks are bytes or paths"),
        (dict(labelKind="boxes"), SchemaError, "'mask' has type binary; boxes are arrays of arrays of numbers"),
        (dict(featuresCol="boxes"), SchemaError, "labelKind='mask' needs one column of features, of images.*boxes"),
        (dict(labelKind="boxes", labelCol="keypoints"), DataError, r"row 0 is .*must be \[x_min, y_min, x_max"),
        (dict(labelKind="keypoints", labelCol="boxes"), DataError, r"row 0 is .*must be \[x, y\]"),
        (
            dict(labelKind="boxes", labelCol="boxes", batchMixing=images.MixUp()), ParameterError,
            "batchMixing mixes labels by their loss, and boxes",
        ),
        (dict(batchMixing=images.CutMix()), ParameterError, "CutMix mixes labels by area"),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes, kind, message):
    with pytest.raises(kind, match=message):
        estimator(**changes).fit(rows(6))
