"""Batches of tensors, and how they are made of stored rows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sparkopt.deep.cache import ImageCache
from sparkopt.errors import CorruptImageError, DataError
from sparkopt.images import Compose, row_rng
from sparkopt.images.arrow import FAILURES, reason_of
from sparkopt.images.label_targets import LabelTarget
from sparkopt.images.opencv import cv2
from sparkopt.shards.dense import opened
from sparkopt.shards.fields import LABEL, WEIGHT, Field, Fields
from sparkopt.shards.groups import Columns
from sparkopt.shards.places import place_of
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
    look : callable or None, default None
        Is given each mask after the pipeline, and its place; it raises DataError for one that cannot be trained on.
    """

    fields: Fields
    pipeline: Compose | None = None
    seed: Seed = 0
    epoch: int = 0
    cache: ImageCache | None = None
    target: LabelTarget | None = None
    look: Callable[[Array, str], None] | None = None

    def inputs(self, columns: Columns, place: Callable[[int], str] | None = None) -> tuple[torch.Tensor, ...]:
        """Return the arguments of the module; ``place`` says where a row comes from, if the columns do not."""
        at = place or functools.partial(place_of, columns)
        return tuple(t for entry in self.fields.inputs for t in self._tensors(entry, columns[entry.name], at))

    def batch(self, columns: Columns, counted: int) -> Batch:
        """Return a batch of which the first ``counted`` rows count."""
        label, several = _array(columns, LABEL), [_array(columns, entry.name) for entry in self.fields.labels]
        rows = len(next(iter(columns.values())))
        if self.target is not None and label is not None:
            image, label = self._samples(columns, label, self.target)
            inputs: tuple[torch.Tensor, ...] = (torch.from_numpy(image),)
        else:
            inputs = self.inputs(columns)
        weight = _array(columns, WEIGHT)
        weights = np.ones(rows, np.float32) if weight is None else np.array(weight, np.float32)
        weights[counted:] = 0.0
        target = None if label is None else torch.from_numpy(label)
        labels = tuple(torch.from_numpy(one) for one in several)
        return Batch(inputs, target, torch.from_numpy(weights), counted, labels)

    def _tensors(self, entry: Field, values: RowArray, place: Callable[[int], str]) -> list[torch.Tensor]:
        """Return the arguments of the module that are made of a column: lists are padded, and have a mask."""
        if not isinstance(values, Ragged):
            is_encoded = values.dtype == object
            return [torch.from_numpy(self._images(entry, values, place) if is_encoded else values)]
        arrays = values.padded() if values.is_list else (values.dense(),)
        return [torch.from_numpy(array) for array in arrays]

    def _images(self, entry: Field, encoded: Array, place: Callable[[int], str]) -> Array:
        """Return images as (rows, channels, height, width).

        In the order of their shape in memory too, or a network that asks for a view after a convolution would fail.
        """
        assert self.pipeline is not None  # noqa: S101  # the estimator refuses images without one
        title, prepare = _title(entry), self._preparing(self.pipeline, entry)

        def made(row: int, content: bytes) -> Array:
            with _naming(title, place, row):
                return prepare(content)

        return self._stacked(encoded, made, title, place)

    def _samples(self, columns: Columns, labels: Array, target: LabelTarget) -> tuple[Array, Array]:
        """Return images, and their labels as the pipeline leaves them."""
        pipeline, found, place = self.pipeline, list[Array](), functools.partial(place_of, columns)
        (image_entry, *_), label_entry = self.fields.inputs, self.fields.label
        assert pipeline is not None and label_entry is not None  # noqa: S101, PT018  # as above
        image_title, title = _title(image_entry), _title(label_entry)
        both = f"{image_title} with {title}"

        def made(row: int, content: bytes) -> Array:
            with _naming(title, place, row):
                sample = target.sample(opened(image_entry, content), labels[row])
            with _naming(image_title, place, row, both):
                rng = row_rng(self.seed, content, self.epoch) if pipeline.random else None
                result = pipeline(sample, rng)
            if self.look is not None and target.kind == "mask":
                self.look(np.asarray(result.mask), f"{title}, {place(row)}")
            found.append(target.label(result))
            if target.kind == "mask" and found[-1].shape[2:] != found[0].shape[2:]:
                raise DataError(
                    f"{title}, {place(row)}: the mask has the shape {found[-1].shape}, and others "
                    f"{found[0].shape}; a batch needs as many layers of each."
                )
            image: Array = result.pixels
            return image

        images = self._stacked(columns[image_entry.name], made, image_title, place)
        return images, target.stacked(found)

    def _stacked(
        self, encoded: Any, made: Callable[[int, bytes], Array], title: str, place: Callable[[int], str]
    ) -> Array:
        first = batch = np.empty(0, np.uint8)
        for row, content in enumerate(encoded):
            image = made(row, content.to_pybytes())
            _check_image(image)
            if row == 0:
                first = image
                batch = np.empty((len(encoded), image.shape[2], *image.shape[:2]), image.dtype)
            if (image.shape, image.dtype) != (first.shape, first.dtype):
                raise DataError(
                    f"{title}, {place(row)}: the pipeline gives images of {first.shape} {first.dtype} and of "
                    f"{image.shape} {image.dtype}; a batch needs one shape and type. Add a Resize, or a Rescale."
                )
            _split(image, batch[row])
        return batch

    def _preparing(self, pipeline: Compose, entry: Field) -> Callable[[bytes], Array]:
        """Return what makes an image (height, width, channels) of its bytes."""
        if pipeline.random:
            return lambda content: pipeline(opened(entry, content), row_rng(self.seed, content, self.epoch))
        cache = self.cache
        if cache is None:
            return lambda content: pipeline(opened(entry, content))

        def kept(content: bytes) -> Array:
            key = cache.key(content)
            image = cache.find(key)
            if image is None:
                image = pipeline(opened(entry, content))
                cache.keep(key, image)
            return image

        return kept


def _title(entry: Field) -> str:
    return f"{entry.role} column {entry.title!r}"


@contextmanager
def _naming(title: str, place: Callable[[int], str], row: int, both: str | None = None) -> Iterator[None]:
    """Say of what cannot be decoded where it is: in a column, or in either of ``both`` where no decoder said so."""
    try:
        yield
    except FAILURES as error:
        named = title if both is None or isinstance(error, CorruptImageError) else both
        raise CorruptImageError(
            f"{named}, {place(row)}: {reason_of(error).rstrip('.')}. Set handleInvalid='skip' to leave out what "
            "cannot be decoded, or repair it."
        ) from error


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
