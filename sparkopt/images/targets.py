"""Samples of columns: an image with its mask, boxes and keypoints, through one pipeline, on Spark or on tables."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, ParameterError, SchemaError
from sparkopt.images.arrow import Gathered, tensors
from sparkopt.images.batches import POINTS, BatchFunction
from sparkopt.images.decoding import decode_mask
from sparkopt.images.parameters import Fill
from sparkopt.images.sample import Sample, checked_mask, odd_keypoint
from sparkopt.images.target_types import check_target
from sparkopt.io.arrow import array_of, binary_values
from sparkopt.io.pixel_structs import holds_tensor
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["SampleFunction"]

T = TypeVar("T")


@dataclass(frozen=True)
class SampleFunction(BatchFunction):
    """A pipeline of images and their targets as a function of batches: for ``DataFrame.mapInArrow``, or a table.

    The columns of targets are replaced by what the pipeline makes of them; where an image is bad they are null.

    Parameters
    ----------
    kernel : ImageKernel
        The pipeline, its output type, its mode and its seed.
    input_column, output_column : str
        Columns of the images and of the results; the same name replaces the column.
    mask : str, optional
        Column of masks: encoded label images (binary; a palette's indices are the labels), or tensors
        (struct<shape, dtype, data>). The result is a tensor.
    boxes : str, optional
        Column of boxes, array<array<number>>: [x_min, y_min, x_max, y_max] in pixels. The result is
        array<array<double>>.
    labels : str, optional
        Column of arrays with one element for each box, which is removed with it.
    keypoints : str, optional
        Column of points, array<array<number>>: [x, y] in pixels. Those that leave the image become NaN.
    min_visibility, min_area, mask_fill
        As of :class:`~sparkopt.images.Sample`.
    error_column, key_column, drop_input
        As of :class:`~sparkopt.images.BatchFunction`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode(), images.HorizontalFlip(), images.Resize(8, 8)])
    >>> flip = images.SampleFunction(images.ImageKernel(pipeline), "content", "image", boxes="boxes")
    >>> rows = images.read("photos").to_arrow().slice(0, 2)
    >>> rows = rows.append_column("boxes", pa.array([[[0.0, 0.0, 1.0, 1.0]], []]))
    >>> len(flip.applied(rows).to_arrow()["boxes"].to_pylist())
    2
    """

    mask: str | None = None
    boxes: str | None = None
    labels: str | None = None
    keypoints: str | None = None
    min_visibility: float = 0.0
    min_area: float = 1.0
    mask_fill: Fill = 0.0

    def __post_init__(self) -> None:
        if self.labels is not None and self.boxes is None:
            raise ParameterError("labels needs boxes: a label belongs to a box.")
        if not (self.mask or self.boxes or self.keypoints):
            raise ParameterError("give a column of masks, boxes or keypoints; without any use BatchFunction.")

    @property
    def _targets(self) -> list[str]:
        return [name for name in (self.mask, self.boxes, self.labels, self.keypoints) if name is not None]

    def _changed(self, tensor: T, points: T, kinds: Callable[[str], T]) -> dict[str, T]:
        types = {self.mask: tensor, self.boxes: points, self.keypoints: points}
        if self.labels is not None:
            types[self.labels] = kinds(self.labels)
        return {name: kind for name, kind in types.items() if name is not None}

    def _check_types(self, kinds: Callable[[str], Any]) -> None:
        for target in ("mask", "boxes", "labels", "keypoints"):
            column = getattr(self, target)
            if column is not None:
                check_target(column, kinds(column), target)

    def _pieces(self, batch: pa.RecordBatch, keys: pa.Array | None) -> Iterator[tuple[pa.Array, pa.Array, _Kept]]:
        targets = _Targets(self, batch)
        for values, errors in self.kernel.pieces(batch.column(self.input_column), keys, targets):
            yield values, errors, targets.taken()

    def _target_columns(self, rows: pa.RecordBatch, kept: _Kept) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        if self.mask is not None:
            columns[self.mask] = tensors(kept.masks)
        for name, field in ((self.boxes, "boxes"), (self.keypoints, "keypoints")):
            if name is not None:
                columns[name] = _point_lists(kept.others[field])
        if self.labels is not None:
            labels = [None if one is None else one.tolist() for one in kept.others["labels"]]
            columns[self.labels] = pa.array(labels, rows.column(self.labels).type)
        return columns


@dataclass(eq=False)
class _Kept:
    """What is kept of samples; None of a bad image's.

    Attributes
    ----------
    others : dict of str to list
        Their boxes, labels and keypoints.
    masks : Gathered
        Their masks, one after another.
    """

    others: dict[str, list[Any]]
    masks: Gathered


class _Targets:
    """The targets of a batch's rows."""

    def __init__(self, function: SampleFunction, batch: pa.RecordBatch) -> None:
        self._function, self._left = function, len(batch)
        self._bare = Sample(
            None,
            min_visibility=function.min_visibility,
            min_area=function.min_area,
            mask_fill=function.mask_fill,
        )
        self._columns = {
            name: _rows(batch.column(column), _WIDTHS.get(name))
            for name in ("boxes", "labels", "keypoints")
            if (column := getattr(function, name)) is not None
        }
        self._are_right = function.labels is None and all(map(_are_right, self._columns, self._columns.values()))
        self._masks = None if function.mask is None else _masks(batch.column(function.mask), function.mask)
        self._kept = self._none()

    def of(self, index: int, image: Any) -> Sample:
        """Return the sample of a row; CorruptImageError where it has no targets."""
        found: dict[str, Any] = {"image": image}
        for name, values in self._columns.items():
            if values[index] is None:
                raise CorruptImageError(f"null: the row holds no {name}")
            found[name] = values[index]
        try:
            if self._masks is not None:
                found["mask"] = checked_mask(self._masks(index), self._bare.mask_fill)
            return self._bare.changed(**found) if self._are_right else dataclasses.replace(self._bare, **found)
        except ParameterError as error:
            raise CorruptImageError(f"corrupt: {error}") from None

    def keep(self, sample: Sample | None) -> None:
        """Keep the targets, and a copy of the mask, whose memory the next ones take while it is in the cache."""
        if self._masks is not None:
            self._kept.masks.add(None if sample is None else sample.mask)
        for name, values in self._kept.others.items():
            values.append(None if sample is None else getattr(sample, name))
        self._left -= 1

    def taken(self) -> _Kept:
        """Return what was kept since the last time."""
        kept, self._kept = self._kept, self._none()
        return kept

    def _none(self) -> _Kept:
        return _Kept(
            {name: [] for name in self._columns}, Gathered(None, self._function.kernel.max_bytes, self._left)
        )


_WIDTHS = {"boxes": 4, "keypoints": 2}


def _rows(column: pa.Array, width: int | None) -> list[Any]:
    """Return the boxes or keypoints of each row: arrays where all are whole, else lists, which a sample checks."""
    kind = column.type
    is_nested = pa.types.is_list(kind) and pa.types.is_list(kind.value_type)
    if width is None or not is_nested or not pa.types.is_floating(kind.value_type.value_type):
        return list(column.to_pylist())
    points = column.values
    ends = points.offsets.to_numpy()
    if points.null_count or points.values.null_count or (np.diff(ends) != width).any():
        return list(column.to_pylist())
    flat = points.values.to_numpy().astype(np.float64)
    begin = ends[column.offsets.to_numpy()]
    rows = [flat[start:end].reshape(-1, width) for start, end in itertools.pairwise(begin.tolist())]
    if not column.null_count:
        return rows
    return [row if is_there else None for row, is_there in zip(rows, column.is_valid().to_pylist(), strict=True)]


def _are_right(name: str, rows: list[Any]) -> bool:
    """Whether no sample need check its boxes or keypoints: of all rows at once, that takes less time."""
    there = [row for row in rows if row is not None]
    if not there or not all(isinstance(row, np.ndarray) for row in there):
        return not there
    flat = np.concatenate(there)
    return odd_keypoint(flat) is None if name == "keypoints" else bool((flat[:, :2] <= flat[:, 2:]).all())


def _point_lists(found: Sequence[Array | None]) -> pa.Array:
    """Return boxes or keypoints as lists of lists."""
    there = [one for one in found if one is not None]
    if not there:
        return pa.nulls(len(found), POINTS)
    flat = np.concatenate(there)
    inner = np.arange(0, flat.size + 1, flat.shape[1], dtype=np.int32)
    ends = np.array([0, *itertools.accumulate(0 if one is None else len(one) for one in found)], np.int32)
    missing = None if len(there) == len(found) else pa.array([one is None for one in found])
    points = pa.ListArray.from_arrays(array_of(inner), array_of(flat.reshape(-1)))
    return pa.ListArray.from_arrays(array_of(ends), points, mask=missing)


def _masks(column: pa.Array, name: str) -> Callable[[int], Array]:
    """Return what makes the mask of a row."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return functools.partial(_decoded, binary_values(column))
    if pa.types.is_struct(kind) and holds_tensor(field.name for field in kind):
        return _TensorMasks(column)
    raise SchemaError(
        f"column {name!r} must hold encoded masks (binary) or tensors (struct<shape, dtype, data>). "
        f"Got {kind} instead."
    )


def _decoded(contents: list[pa.Buffer | None], row: int) -> Array:
    content = contents[row]
    if content is None:
        raise CorruptImageError("null: the row holds no mask")
    try:
        return decode_mask(content.to_pybytes())
    except CorruptImageError as error:
        raise CorruptImageError(f"{error} (the mask)") from error


class _TensorMasks:
    """Masks as numbers, which stay where they are."""

    def __init__(self, column: pa.StructArray) -> None:
        fields = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
        self._shapes, self._dtypes = fields["shape"].to_pylist(), fields["dtype"].to_pylist()
        self._buffers = binary_values(fields["data"])
        self._is_there = column.is_valid().to_pylist() if column.null_count else None

    def __call__(self, row: int) -> Array:
        if self._is_there is not None and not self._is_there[row]:
            raise CorruptImageError("null: the row holds no mask")
        data: Any = self._buffers[row]
        try:
            found: Array = np.frombuffer(data, self._dtypes[row]).reshape(self._shapes[row])
        except (TypeError, ValueError) as error:
            raise CorruptImageError(f"corrupt: the mask is no tensor: {error}") from None
        return found
