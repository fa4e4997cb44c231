"""MixUp and CutMix in training: soft labels in a plain loop, whatever the ranks, the threads and where it resumes."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.mixing import BatchMixer
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.errors import ParameterError
from sparkopt.images import mixing_to_json
from sparkopt.launch import LocalCommunicator, LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep import networks
from tests.deep.rows import parted

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
DECODE = images.Compose([images.Decode("gray"), images.Rescale(1 / 255)])
MIXING = {
    "mixup": images.MixUp(0.4),
    "cutmix": images.CutMix(1.0),
    "either, at times": [images.MixUp(0.4, p=0.5), images.CutMix(1.0, p=0.7)],
}
CLASSES = 10


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """150 images, in batches of 16 on each of two streams: the last one has 11 rows."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (150, 8, 8, 1), dtype=np.uint8)
    rows = parted(
        {
            "image": [images.encode(one, "png") for one in pixels],
            "label": rng.integers(0, CLASSES, 150),
            "weight": rng.integers(0, 3, 150) / 2,
        },
        [90],
    )
    schema, folder = spark_schema(rows.schema), tmp_path_factory.mktemp("mixing")
    return {
        name: write_store(rows, Fields.of(schema, "image", "label", weight), str(folder / name))
        for name, weight in (("plain", None), ("weighted", "weight"))
    }


def config(index, mixing, **changes):
    pipeline = DECODE.to_json()
    given = dict(store=index.uri, epochs=2, batch_size=16, streams=2, seed=1)
    given["mixing"] = None if mixing is None else mixing_to_json(mixing)
    return TrainConfig(**{**given, "pipeline": pipeline, "evaluation_pipeline": pipeline, **changes})


def batches(config, epoch=0):
    loader = RankDataLoader(config, LocalCommunicator(), torch.device("cpu"))
    with loader.training(epoch, 0) as taken:
        return list(taken)


def soft_labels(batch):
    """Return each row's label as shares of classes, and its weight, of its two labels and their weights."""
    pairs, weights = batch.target.reshape(-1, 2), batch.weight.reshape(-1, 2)
    soft = torch.zeros(len(pairs), CLASSES)
    for place in (0, 1):
        soft += F.one_hot(pairs[:, place], CLASSES) * weights[:, place, None]
    weight = weights.sum(1)
    return soft / torch.where(weight > 0, weight, 1)[:, None], weight


def plain_loop(config):
    """The same training with soft labels, as torchvision's mixing makes them."""
    module = Recipe(networks.digits_cnn, "multinomial").build_module(config.seed)
    optimizer, losses = SGD(module.parameters()), []
    for epoch in range(config.epochs):
        for batch in batches(config, epoch):
            soft, weight = soft_labels(batch)
            value = (F.cross_entropy(module(batch.inputs[0]), soft, reduction="none") * weight).sum() / weight.sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses, module.state_dict()


@pytest.mark.parametrize("rows", ["plain", "weighted"])
@pytest.mark.parametrize("name", MIXING)
def test_it_is_training_on_soft_labels_on_one_rank_and_on_two(index, name, rows):
    settings = config(index[rows], MIXING[name])
    losses, state = plain_loop(settings)
    recipe = Recipe(networks.digits_cnn, "multinomial", SGD)
    for launcher in (LocalLauncher(), ProcessLauncher(2)) if name != "mixup" else (LocalLauncher(),):
        found = launcher.run(train, settings, recipe)[0]
        np.testing.assert_allclose(found.losses, losses, rtol=2e-5)
        for key, tensor in module_state(found.weights).items():
            np.testing.assert_allclose(tensor, state[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MIXING)
def test_each_row_is_mixed_with_one_of_its_stream(index, name):
    """By the shares of its labels; both labels are the rows' own."""
    mixed = batches(config(index["plain"], MIXING[name]))
    plain = batches(config(index["plain"], None))
    shares = []
    for batch, own in zip(mixed, plain, strict=True):
        assert batch.counted == own.counted == len(batch.inputs[0])
        pairs, weights = batch.target.reshape(-1, 2), batch.weight.reshape(-1, 2)
        assert torch.equal(pairs[:, 0], own.target)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
        half = -(-len(own.target) // 2)
        for stream in (slice(0, half), slice(half, None)):
            rows = own.inputs[0][stream]
            for image, row, label, share in zip(
                batch.inputs[0][stream], rows, pairs[stream, 1], weights[stream, 0], strict=True
            ):
                partners = rows[own.target[stream] == label]
                if "cutmix" in name:
                    same = (image == row).double().mean().item()
                    assert same in (1.0, pytest.approx(share.item(), abs=0.04))  # a row may be its own partner
                    assert any(((image == row) | (image == one)).all() for one in partners)
                elif name == "mixup":
                    near = [torch.allclose(image, share * row + (1 - share) * one, atol=1e-5) for one in partners]
                    assert any(near)
                shares.append(share.item())
    assert 0 <= min(shares) < 0.6
    assert "times" not in name or 1.0 in shares


def test_it_depends_on_seed_epoch_and_place_only(index):
    first = config(index["plain"], MIXING["cutmix"])

    def pixels(settings, epoch=0):
        return torch.cat([batch.inputs[0] for batch in batches(settings, epoch)])

    expected = pixels(first)
    threaded = dataclasses.replace(first, decode_threads=3, prefetch=2)
    assert torch.equal(pixels(threaded), expected)
    loader = RankDataLoader(first, LocalCommunicator(), torch.device("cpu"))
    with loader.training(0, 2) as taken:  # as after a checkpoint within the epoch
        assert torch.equal(torch.cat([batch.inputs[0] for batch in taken]), expected[64:])
    (batch, *_) = batches(config(index["plain"], None))
    steps = (images.CutMix(1.0),)
    found = [
        BatchMixer(steps, seed, epoch)(batch, stream, step).inputs[0].numpy().tobytes()
        for seed, epoch, stream, step in ((1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1))
    ]
    assert len(set(found)) == len(found)


def test_labels_that_the_loss_ignores_count_nothing(tmp_path):
    """As in the weighted pair of PyTorch's losses, whose classes may have weights."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 3, 40)
    label[::5] = -100
    rows = parted({"x": list(rng.normal(size=(40, 4)).astype(np.float32)), "label": label})
    fields = Fields.of(spark_schema(rows.schema), "x", "label")
    store = write_store(rows, fields, str(tmp_path / "rows"), ignored=-100)
    settings = TrainConfig(store.uri, 1, 40, 1, mixing=mixing_to_json(images.MixUp(1.0)))
    (batch,) = batches(settings)
    weights = torch.tensor([1.0, 2.0, 0.5])
    module = Recipe(networks.mlp, "multinomial").build_module(settings.seed)
    pairs, shares = batch.target.reshape(-1, 2).long(), batch.weight.reshape(-1, 2)
    output = module(batch.inputs[0])
    kept = pairs != -100
    counts = torch.where(kept, weights[torch.where(kept, pairs, 0)], 0) * shares
    value = sum(
        (F.cross_entropy(output, pairs[:, place], weights, reduction="none") * shares[:, place]).sum()
        for place in (0, 1)
    )
    found = LocalLauncher().run(train, settings, Recipe(networks.mlp, nn.CrossEntropyLoss(weights), SGD))[0]
    assert found.losses[0] == pytest.approx((value / counts.sum()).item(), rel=1e-5)


def test_masks_are_mixed_pixel_by_pixel(tmp_path):
    """The loss is of both masks by their shares, over the pixels that count: a mask may have none."""
    rng = np.random.default_rng(3)
    masks = rng.choice([0, 1, 2, 255], (30, 8, 8, 1), p=[0.4, 0.2, 0.1, 0.3]).astype(np.uint8)
    masks[4] = 255
    pictures = [images.encode(one, "png") for one in rng.integers(0, 256, masks.shape, dtype=np.uint8)]
    rows = parted({"image": pictures, "mask": [images.encode(one, "png") for one in masks]}, [17])
    fields = Fields.of(spark_schema(rows.schema), "image", "mask", None, "mask")
    settings = config(write_store(rows, fields, str(tmp_path / "rows"), ignored=255), images.MixUp(0.4), batch_size=4)
    recipe = Recipe(functools.partial(nn.Conv2d, 1, 3, 3, padding=1), nn.CrossEntropyLoss(ignore_index=255), SGD)
    module, losses = recipe.build_module(settings.seed), []
    optimizer = SGD(module.parameters())
    for epoch in range(settings.epochs):
        for batch in batches(settings, epoch):
            scores = module(batch.inputs[0]).repeat_interleave(2, 0)
            each = F.cross_entropy(scores, batch.target, ignore_index=255, reduction="none").sum((1, 2))
            value = (each * batch.weight).sum() / ((batch.target != 255).sum((1, 2)) * batch.weight).sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    for launcher in (LocalLauncher(), ProcessLauncher(2)):
        found = launcher.run(train, settings, recipe)[0]
        np.testing.assert_allclose(found.losses, losses, rtol=2e-5)


def test_numbers_are_mixed_too(tmp_path):
    """The gradient of a mixed regression is that of the mixed label."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(64, 3)).astype(np.float32)
    table = (X, X @ np.array([1.0, -2.0, 0.5], np.float32))
    estimator = TorchEstimator(
        module=functools.partial(nn.Linear, 3, 1), optimizer="adam", stepSize=0.05, epochs=60, launcher="local",
        batchMixing=images.MixUp(0.2), batchSize=16,
    )  # fmt: skip
    model = estimator.fit(table)
    weights = module_state(model.weights)["weight"]
    np.testing.assert_allclose(weights, [[1, -2, 0.5]], atol=0.05)


def test_it_is_kept_as_json():
    several = MIXING["either, at times"]
    estimator = TorchEstimator(module=networks.mlp, batchMixing=several)
    text = estimator.getOrDefault("batchMixing")
    assert json.loads(text) == [["MixUp", {"alpha": 0.4, "p": 0.5}], ["CutMix", {"alpha": 1.0, "p": 0.7}]]
    assert images.mixing_from_json(text) == tuple(several)
    assert estimator.setBatchMixing(text).getOrDefault("batchMixing") == text
    assert (
        estimator.setBatchMixing(images.CutMix()).getOrDefault("batchMixing")
        == '[["CutMix", {"alpha": 1.0, "p": 1.0}]]'
    )
    for wrong in ("[]", '[["Popen", {}]]', "mixup", [], [images.Invert()], 3, images.Invert()):
        with pytest.raises((ParameterError, TypeError), match=r"MixUp or images.CutMix"):
            estimator.setBatchMixing(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(batchSize=1), "batchMixing mixes the rows of a batch, and batchSize is 1"),
        (dict(featuresCol="ids"), "features column 'ids' holds whole numbers. Cast it to float"),
        (
            dict(featuresCol="vector", batchMixing=images.CutMix()),
            "CutMix takes one input of images.* are vector.* MixUp",
        ),
        (dict(featuresCol="x", batchMixing=images.CutMix()), r"CutMix takes one input of images.*Got rows of \(3,\)"),
        (
            dict(labelCol="many", featuresCol="picture", batchMixing=images.CutMix()),
            "for places of its own. Take MixUp",
        ),
    ],
)
def test_what_cannot_be_mixed_is_named(changes, message):
    rng = np.random.default_rng(0)
    vectors = [dict(type=1, size=None, indices=None, values=[0.0, 1.0]) for _ in range(8)]
    kind = pa.struct(
        [
            ("type", pa.int8()),
            ("size", pa.int32()),
            ("indices", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
        ]
    )
    table = pa.table(
        {
            "x": pa.array(list(rng.normal(size=(8, 3)))),
            "ids": pa.array([[1, 2]] * 8),
            "vector": pa.array(vectors, kind),
            "picture": pa.array([[[[0.5] * 4] * 4]] * 8),
            "many": pa.array([[[0.0, 1.0]] * 2] * 8),
            "label": rng.normal(size=8),
        }
    )
    options = dict(
        module=Summed, loss=losses, featuresCol="x", launcher="local", epochs=1, batchMixing=images.MixUp()
    )
    with pytest.raises(ParameterError, match=message):
        TorchEstimator(**{**options, **changes}).fit(table)


class Summed(nn.Module):
    """A number of each row, whatever its shape."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.float().flatten(1).sum(1) * self.scale


def losses(output, target):
    return (output - target.float().reshape(len(target), -1).sum(1)) ** 2
