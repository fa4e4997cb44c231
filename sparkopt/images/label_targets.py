"""Labels that belong to places of an image, as networks keep them: a mask, boxes or keypoints next to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, ParameterError
from sparkopt.images.decoding import decode_mask
from sparkopt.images.packing import is_packed, unpacked_array
from sparkopt.images.sample import BOX, KEYPOINT, Sample, odd_keypoint
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = [
    "LABEL_KINDS",
    "UNITS",
    "LabelTarget",
    "mask_of",
    "odd_point",
    "packed_points",
    "point_sizes",
    "points_of",
    "stacked_points",
]

LABEL_KINDS = ("numbers", "mask", "boxes", "keypoints")
"""What a label is: numbers of the row, which no pipeline changes, or what a pipeline moves with the pixels."""
_WIDTHS = {"boxes": 4, "keypoints": 2}


@dataclass(frozen=True)
class LabelTarget:
    """From an image and its label to a sample, and from the sample that a pipeline returns to the label.

    Parameters
    ----------
    kind : {"mask", "boxes", "keypoints"}
        What labels are.
    mask_fill : float, default 0
        Label of pixels that are outside of the image.
    min_visibility : float, default 0
        Boxes of which a smaller fraction of the area is left are removed.
    width : int, default 0
        Numbers of each box, for batches that have none.
    """

    kind: str
    mask_fill: float = 0.0
    min_visibility: float = 0.0
    width: int = 0

    def sample(self, image: bytes | Array, label: Any) -> Sample:
        """Return the sample of an image and its label: an encoded or packed mask, or packed points.

        Raises
        ------
        CorruptImageError
            Where the label is damaged.
        """
        try:
            if self.kind == "mask":
                return Sample(image, mask=_mask(bytes(label)), mask_fill=self.mask_fill)
            points = _unpacked(label)
            if self.kind == "keypoints":
                return Sample(image, keypoints=points)
            more = points[:, 4:] if points.shape[1] > 4 else None
            return Sample(image, boxes=points[:, :4], labels=more, min_visibility=self.min_visibility)
        except ParameterError as error:
            raise CorruptImageError(f"corrupt: {error}") from None

    def stacked(self, labels: Sequence[Array]) -> Array:
        """Return labels of rows as one array: masks (rows, height, width), others (rows, most, numbers)."""
        return np.stack(labels) if self.kind == "mask" else stacked_points(labels, self.width)

    def label(self, sample: Sample) -> Array:
        """Return the label of a sample: a mask (height, width), or float32 (n, numbers of a box or keypoint).

        Masks of whole numbers are int64, as losses take classes, and others float32.
        """
        if self.kind == "mask":
            found = np.asarray(sample.mask)
            found = found[:, :, 0] if found.ndim == 3 and found.shape[2] == 1 else found
            mask: Array = found.astype(np.float32 if found.dtype.kind == "f" else np.int64)
            return mask
        if self.kind == "keypoints":
            return np.asarray(sample.keypoints, np.float32)
        boxes = np.asarray(sample.boxes, np.float32)
        return boxes if sample.labels is None else np.hstack([boxes, np.asarray(sample.labels, np.float32)])


def mask_of(shape: Any, dtype: Any, data: Any) -> Array:
    """Return the mask of a tensor's shape, type and bytes.

    Raises
    ------
    TypeError, ValueError
        Where they do not belong together, or are no mask.
    """
    if None in (shape, dtype, data):
        raise ValueError("a part of the tensor is null")
    kind = np.dtype(dtype)
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise ValueError(f"a tensor of {kind.name} holds no labels")
    if len(shape) not in (2, 3):
        raise ValueError(f"its shape is {shape}, and a mask's is [height, width]")
    mask: Array = np.frombuffer(data, kind).reshape(shape)
    return mask.astype(np.float32) if kind.kind == "f" else mask


def _mask(data: bytes) -> Array:
    if is_packed(data):
        return unpacked_array(data)
    try:
        return decode_mask(data)
    except CorruptImageError as error:
        raise CorruptImageError(f"{error} (the mask)") from error


UNITS: Mapping[str, str] = MappingProxyType({"boxes": "numbers in each box", "keypoints": "keypoints"})
"""What all rows of a network have as many of."""


def points_of(rows: Any, kind: str) -> Array:
    """Return the boxes or keypoints of a row as numbers, float32 (n, numbers); null is NaN.

    Raises
    ------
    ValueError
        Where they are no lists of as many numbers, or have fewer than four, or other than two.
    """
    values: Array = np.array([[np.nan if one is None else one for one in row] for row in rows], np.float32)
    width = _WIDTHS[kind]
    if not len(values):
        return np.empty((0, width), np.float32)
    if values.ndim != 2 or values.shape[1] < width or (kind == "keypoints" and values.shape[1] != width):
        raise ValueError(f"has {values.shape[-1]} numbers where {width} are needed")
    return values


def odd_point(points: Array, kind: str) -> str | None:
    """Return why boxes or keypoints cannot be trained on; None where they can be.

    Parameters
    ----------
    points : ndarray of shape (n, numbers)
        Boxes, which must be finite, as a network's loss takes NaN for what is not there; or keypoints, of which both
        numbers may be NaN, where one is not there.
    kind : {"boxes", "keypoints"}
        Which of them.
    """
    if kind == "keypoints":
        place = odd_keypoint(points)
        return None if place is None else f"keypoint {place} {_odd(points[place])}; {KEYPOINT}"
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        return f"box {bad[0]} {_odd(points[bad[0]])}; its numbers must be finite"
    bad = np.flatnonzero((points[:, :2] > points[:, 2:4]).any(axis=1))
    return f"box {bad[0]} {_odd(points[bad[0]])}; it must have {BOX}" if len(bad) else None


def _odd(numbers: Array) -> str:
    return f"is {numbers.tolist()}"


def packed_points(points: Array) -> bytes:
    """Return boxes or keypoints as bytes: how many numbers each has, and the numbers."""
    return np.int32(points.shape[1]).tobytes() + points.tobytes()


def point_sizes(packed: pa.Array, kind: str) -> Array:
    """Return what all rows must have as many of (see ``UNITS``), int64 (rows,); -1 of rows without boxes."""
    found = np.empty(len(packed), np.int64)
    for row, content in enumerate(packed.to_pylist()):
        points = _unpacked(content)
        found[row] = len(points) if kind == "keypoints" else points.shape[1] if len(points) else -1
    return found


def _unpacked(content: Any) -> Array:
    data = bytes(content)
    width = int(np.frombuffer(data[:4], np.int32)[0])
    return np.frombuffer(data[4:], np.float32).reshape(-1, width).astype(np.float64)


def stacked_points(labels: Sequence[Array], width: int = 0) -> Array:
    """Return boxes or keypoints of rows as one array (rows, most, numbers); rows that have fewer end in NaN.

    ``width`` is how many numbers each has; rows without any do not know.
    """
    most, wide = (max(one.shape[axis] for one in labels) for axis in (0, 1))
    found: Array = np.full((len(labels), most, max(wide, width)), np.nan, np.float32)
    for row, one in enumerate(labels):
        found[row, : len(one), : one.shape[1]] = one
    return found
