"""Batches of tensors, and how they are made of stored rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparkopt.deep.cache import ImageCache
from sparkopt.errors import CorruptImageError, DataError
from sparkopt.images import Compose, row_rng
from sparkopt.images.label_targets import LabelTarget, stacked_points
from sparkopt.images.opencv import cv2
from sparkopt.shards.fields import LABEL, WEIGHT, Fields
from sparkopt.shards.groups import Columns
from sparkopt.shards.ragged import Ragged, RowArray
from sparkopt.typing import Array, Seed
from sparkopt.values import dataclass

__all__ = ["Batch", "Decoder", "on_device"]

_SPLIT = (np.uint8, np.uint16, np.float32, np.float64)
_MOST_SPLIT = 64
"""Types and channels of images that OpenCV surely splits in place."""


@dataclass(frozen=True)
class Batch:
    """Rows as tensors.

    Attributes
    ----------
    inputs : tuple of Tensor
        One for each argument of the module, (rows, …); images as (rows, channels, height, width). Images of bytes
        become floating-point numbers on the device: queues and copies then need a quarter of the memory.
    label : Tensor or None
        (rows, …).
    weight : Tensor of shape (rows,)
        float32; 0 for a repetition.
    counted : int
        Rows that are not repetitions: all, or none where no row is left and one is repeated.
    labels : tuple of Tensor, default ()
        Several labels in place of one.
    parts : tuple of int, default ()
        Rows of each stream, where it has those of several.
    """

    inputs: tuple[torch.Tensor, ...]
    label: torch.Tensor | None
    weight: torch.Tensor
    counted: int
    labels: tuple[torch.Tensor, ...] = ()
    parts: tuple[int, ...] = ()

    @property
    def target(self) -> torch.Tensor:
        """The label, where it is needed."""
        assert self.label is not None  # noqa: S101  # every store for training has one
        return self.label

    @property
    def targets(self) -> tuple[torch.Tensor, ...]:
        """All labels: several, one or none."""
        return self.labels if self.label is None else (self.label,)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``, as a network takes it; copies from pinned memory do not wait."""
        inputs = tuple(on_device(tensor, device) for tensor in self.inputs)
        return self._with(inputs, lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return the batch in pinned memory."""
        return self._with(tuple(t.pin_memory() for t in self.inputs), torch.Tensor.pin_memory)

    def _with(self, inputs: tuple[torch.Tensor, ...], moved: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        label = None if self.label is None else moved(self.label)
        return Batch(inputs, label, moved(self.weight), self.counted, tuple(map(moved, self.labels)), self.parts)

    def by_stream(self) -> list[Batch]:
        """Return the batches of the streams that this one is made of."""
        if len(self.parts) < 2:
            return [self]
        ends = list(itertools.accumulate(self.parts, initial=0))
        return [self._cut(slice(start, end)) for start, end in itertools.pairwise(ends)]

    def _cut(self, rows: slice) -> Batch:
        label = None if self.label is None else self.label[rows]
        inputs, labels = (tuple(tensor[rows] for tensor in found) for found in (self.inputs, self.labels))
        return Batch(inputs, label, self.weight[rows], rows.stop - rows.start, labels)


@dataclass(frozen=True)
class Decoder:
    """From stored columns to tensors.

    Parameters
    ----------
    fields : Fields
        What the columns are.
    pipeline : Compose or None
        What to do with each image.
    seed, epoch : int
        Random transforms depend on (seed, the image's content, epoch) only.
    cache : ImageCache or None, default None
        Where images are kept for later epochs; one cache for one pipeline, which is not random.
    target : LabelTarget or None, default None
        What labels are that the pipeline moves with the images.
    """

    fields: Fields
    pipeline: Compose | None = None
    seed: Seed = 0
    epoch: int = 0
    cache: ImageCache | None = None
    target: LabelTarget | None = None

    def inputs(self, columns: Columns) -> tuple[torch.Tensor, ...]:
        """Return the arguments of the module."""
        return tuple(tensor for entry in self.fields.inputs for tensor in self._tensors(columns[entry.name]))

    def batch(self, columns: Columns, counted: int) -> Batch:
        """Return a batch of which the first ``counted`` rows count."""
        label, several = _array(columns, LABEL), [_array(columns, entry.name) for entry in self.fields.labels]
        rows = len(next(iter(columns.values())))
        if self.target is not None and label is not None:
            encoded = _array(columns, self.fields.inputs[0].name)
            image, label = self._samples(encoded, label, self.target)
            inputs: tuple[torch.Tensor, ...] = (torch.from_numpy(image),)
        else:
            inputs = self.inputs(columns)
        weight = _array(columns, WEIGHT)
        weights = np.ones(rows, np.float32) if weight is None else np.array(weight, np.float32)
        weights[counted:] = 0.0
        target = None if label is None else torch.from_numpy(label)
        labels = tuple(torch.from_numpy(one) for one in several)
        return Batch(inputs, target, torch.from_numpy(weights), counted, labels)

    def _tensors(self, values: RowArray) -> list[torch.Tensor]:
        """Return the arguments of the module that are made of a column: lists are padded, and have a mask."""
        if not isinstance(values, Ragged):
            return [torch.from_numpy(self._images(values) if values.dtype == object else values)]
        arrays = values.padded() if values.is_list else (values.dense(),)
        return [torch.from_numpy(array) for array in arrays]

    def _images(self, encoded: Array) -> Array:
        """Return images as (rows, channels, height, width).

        In the order of their shape in memory too, or a network that asks for a view after a convolution would fail.
        """
        assert self.pipeline is not None  # noqa: S101  # the estimator refuses images without one
        prepare = self._preparing(self.pipeline)
        return self._stacked(encoded, lambda row, content: prepare(content))

    def _samples(self, encoded: Array, labels: Array, target: LabelTarget) -> tuple[Array, Array]:
        """Return images, and their labels as the pipeline leaves them: masks as one array, others ending in NaN."""
        pipeline, found = self.pipeline, list[Array]()
        assert pipeline is not None  # noqa: S101  # as above

        def prepare(row: int, content: bytes) -> Array:
            sample = target.sample(content, labels[row])
            rng = row_rng(self.seed, content, self.epoch) if pipeline.random else None
            try:
                result = pipeline(sample, rng)
            except DataError as error:  # such as a mask of another size than its image
                raise CorruptImageError(str(error)) from error
            found.append(target.label(result))
            image: Array = result.pixels
            return image

        images = self._stacked(encoded, prepare)
        return images, np.stack(found) if target.kind == "mask" else stacked_points(found)

    def _stacked(self, encoded: Array, prepare: Callable[[int, bytes], Array]) -> Array:
        first = batch = np.empty(0, np.uint8)
        for row, content in enumerate(encoded):
            try:
                image = prepare(row, content.to_pybytes())
            except CorruptImageError as error:
                raise CorruptImageError(
                    f"an image of {len(content)} bytes, row {row} of its batch: {error}. Set handleInvalid='skip' "
                    "to leave out what cannot be decoded, or repair the image."
                ) from error
            _check_image(image)
            if row == 0:
                first = image
                batch = np.empty((len(encoded), image.shape[2], *image.shape[:2]), image.dtype)
            if (image.shape, image.dtype) != (first.shape, first.dtype):
                raise DataError(
                    f"the pipeline gives images of {first.shape} {first.dtype} and of {image.shape} {image.dtype}; "
                    "a batch needs one shape and type. Add a Resize, or a Rescale."
                )
            _split(image, batch[row])
        return batch

    def _preparing(self, pipeline: Compose) -> Callable[[bytes], Array]:
        """Return what makes an image (height, width, channels) of its encoded bytes."""
        if pipeline.random:
            return lambda content: pipeline(content, row_rng(self.seed, content, self.epoch))
        cache = self.cache
        if cache is None:
            return pipeline

        def kept(content: bytes) -> Array:
            key = cache.key(content)
            image = cache.find(key)
            if image is None:
                image = pipeline(content)
                cache.keep(key, image)
            return image

        return kept


def _array(columns: Columns, name: str) -> Any:
    """Return a column that has rows of one shape, or None where there is none of the name."""
    return columns.get(name)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy an argument of the module to a device, and make numbers of bytes there; indices and masks stay."""
    moved = tensor.to(device, non_blocking=True)
    return moved if moved.is_floating_point() or moved.dtype in (torch.int64, torch.bool) else moved.float()


def _split(image: Array, planes: Array) -> None:
    """Write an image (height, width, channels) into planes; OpenCV is five times faster than a strided copy."""
    if 1 < len(planes) <= _MOST_SPLIT and image.dtype in _SPLIT and image.size:
        cv2.split(image, list(planes))
    else:  # where OpenCV would make arrays of its own, and leave the planes as they are
        planes[...] = np.moveaxis(image, 2, 0)


def _check_image(image: Any) -> None:
    """Refuse what is no image, such as a stack of several, for which a batch has no place."""
    if isinstance(image, np.ndarray) and image.ndim == 3:
        return
    given = f"an array of {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise DataError(
        f"the pipeline gives {given} where a network takes one image of (height, width, channels). Leave out the "
        "step that changes its axes."
    )
