"""Labels that belong to places of an image, as networks keep them: a mask, boxes or keypoints next to the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparkopt.errors import CorruptImageError, ParameterError
from sparkopt.images.decoding import decode_mask
from sparkopt.images.sample import Sample
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["LABEL_KINDS", "LabelTarget", "packed_points", "stacked_points"]

LABEL_KINDS = ("numbers", "mask", "boxes", "keypoints")
"""What a label is: numbers of the row, which no pipeline changes, or what a pipeline moves with the pixels."""


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
    """

    kind: str
    mask_fill: float = 0.0
    min_visibility: float = 0.0

    def sample(self, image: bytes, label: Any) -> Sample:
        """Return the sample of an image's bytes and its label: bytes of a mask, an array of one, or packed points.

        Raises
        ------
        CorruptImageError
            Where the label is damaged.
        """
        if self.kind == "mask":
            mask = label if isinstance(label, np.ndarray) else decode_mask(bytes(label))
            return Sample(image, mask=mask, mask_fill=self.mask_fill)
        points = _unpacked(label)
        try:
            if self.kind == "keypoints":
                return Sample(image, keypoints=points)
            more = points[:, 4:] if points.shape[1] > 4 else None
            return Sample(image, boxes=points[:, :4], labels=more, min_visibility=self.min_visibility)
        except ParameterError as error:
            raise CorruptImageError(f"corrupt: {error}") from None

    def label(self, sample: Sample) -> Array:
        """Return the label of a sample: int64 (height, width), or float32 (n, numbers of a box or keypoint)."""
        if self.kind == "mask":
            mask: Array = np.asarray(sample.mask).astype(np.int64)
            return mask
        if self.kind == "keypoints":
            return np.asarray(sample.keypoints, np.float32)
        boxes = np.asarray(sample.boxes, np.float32)
        return boxes if sample.labels is None else np.hstack([boxes, np.asarray(sample.labels, np.float32)])


def packed_points(rows: Any, width: int | None) -> bytes:
    """Return boxes or keypoints (lists of as many numbers each) as bytes: how many numbers, and the numbers.

    Raises
    ------
    ValueError
        Where they are no such lists, or have fewer numbers than ``width``, or another number where it is 2.
    """
    values = np.array([[np.nan if one is None else one for one in row] for row in rows], np.float32)
    if not len(values):
        return np.int32(width or 4).tobytes()
    if values.ndim != 2 or values.shape[1] < (width or 4) or (width == 2 and values.shape[1] != width):
        raise ValueError(f"has {values.shape[-1]} numbers where {width} are needed")
    return np.int32(values.shape[1]).tobytes() + values.tobytes()


def _unpacked(content: Any) -> Array:
    data = bytes(content)
    width = int(np.frombuffer(data[:4], np.int32)[0])
    return np.frombuffer(data[4:], np.float32).reshape(-1, width).astype(np.float64)


def stacked_points(labels: Sequence[Array]) -> Array:
    """Return boxes or keypoints of rows as one array (rows, most, numbers); rows that have fewer end in NaN."""
    most, width = (max(one.shape[axis] for one in labels) for axis in (0, 1))
    found: Array = np.full((len(labels), most, width), np.nan, np.float32)
    for row, one in enumerate(labels):
        found[row, : len(one), : one.shape[1]] = one
    return found
