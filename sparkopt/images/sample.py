"""An image with its targets (a mask, boxes, keypoints), which a pipeline moves as it moves the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images.geometry import GeometricMap, Size, inverse
from sparkopt.images.parameters import Fill
from sparkopt.images.sampling import sample_labels
from sparkopt.typing import Array, Floats

__all__ = ["Sample", "moved"]

_EMPTY = 1e-9


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and what belongs to it. A pipeline of a sample returns a sample.

    Parameters
    ----------
    image : bytes or ndarray of shape (height, width, channels)
        An encoded or a decoded image.
    mask : ndarray of shape (height, width) or (height, width, layers), optional
        Labels of pixels, of the image's size once it is upright; up to four layers. They are sampled by "nearest".
    boxes : array of shape (n, 4), optional
        (x_min, y_min, x_max, y_max) in pixels; a box of the whole image is (0, 0, width, height). They are clipped to
        the image, and those of which too little is left are removed.
    labels : array of shape (n, …), optional
        One for each box, removed with it.
    keypoints : array of shape (m, 2), optional
        (x, y) in pixels; those that leave the image become NaN, so that each keeps its place.
    min_visibility : float, default 0
        Boxes of which a smaller fraction of the area is left are removed.
    min_area : float, default 1
        Boxes of a smaller area, in pixels of the result, are removed.
    mask_fill : float, default 0
        Label of pixels outside the image.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt import images
    >>> one = images.Sample(np.zeros((40, 60, 3), np.uint8), boxes=[[10, 5, 30, 25]], labels=[7])
    >>> pipeline = images.Compose([images.HorizontalFlip(), images.Resize(20, 30)])
    >>> pipeline(one).boxes.tolist()
    [[15.0, 2.5, 25.0, 12.5]]
    """

    image: Any
    mask: Any = None
    boxes: Any = None
    labels: Any = None
    keypoints: Any = None
    min_visibility: float = 0.0
    min_area: float = 1.0
    mask_fill: Fill = 0.0

    def __post_init__(self) -> None:
        for name, width in (("boxes", 4), ("keypoints", 2)):
            value = getattr(self, name)
            if value is None or (
                isinstance(value, np.ndarray) and value.dtype == float and value.shape[1:] == (width,)
            ):
                continue
            try:
                found = (
                    np.asarray(value, np.float64).reshape(-1, width)
                    if np.size(value) == 0
                    else np.asarray(value, np.float64)
                )
            except (TypeError, ValueError):
                found = np.empty(0)
            if found.ndim != 2 or found.shape[1] != width:
                raise ParameterError(f"{name} must be numbers of shape (n, {width}). Got {value!r} instead.")
            object.__setattr__(self, name, found)
        if self.labels is not None:
            object.__setattr__(self, "labels", np.asarray(self.labels))
            if self.boxes is None or len(self.labels) != len(self.boxes):
                raise ParameterError("labels must be one for each of the boxes.")
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim not in (2, 3):
                raise ParameterError(f"mask must have the shape (height, width[, layers]). Got {mask.shape} instead.")
            object.__setattr__(self, "mask", mask)

    @property
    def pixels(self) -> Array:
        """The decoded image."""
        found: Array = self.image
        return found

    @property
    def has_targets(self) -> bool:
        """Whether there is anything beside the image."""
        return self.mask is not None or self.boxes is not None or self.keypoints is not None

    def changed(self, **values: Any) -> Sample:
        """Return the sample with other values, which are not checked again: a pipeline does this for each step."""
        other: Sample = object.__new__(Sample)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(values)
        return other

    def check_size(self, size: Size) -> None:
        """Raise DataError where the mask is not of the upright image's size."""
        if self.mask is not None and self.mask.shape[:2] != size:
            raise DataError(
                f"corrupt: the mask has {self.mask.shape[0]} x {self.mask.shape[1]} pixels, and the image "
                f"{size[0]} x {size[1]}"
            )

    def with_points(self, move: Any, size: Size) -> Sample:
        """Return the sample with boxes and keypoints moved by a function of points, and clipped to ``size``."""
        boxes, labels, keypoints = self.boxes, self.labels, self.keypoints
        if boxes is not None:
            found = _bounds(move(_corner_points(boxes)))
            boxes, kept = self._clipped(found, size)
            labels = None if labels is None else labels[kept]
        if keypoints is not None and len(keypoints):
            keypoints = _inside(move(keypoints), size)
        return self.changed(boxes=boxes, labels=labels, keypoints=keypoints)

    def _clipped(self, boxes: Floats, size: Size, whole: Floats | None = None) -> tuple[Floats, Array]:
        """Return the boxes that are visible enough, clipped, and which they are."""
        clipped = np.clip(boxes, 0, (size[1], size[0]) * 2)
        area, full = _area(clipped), _area(boxes if whole is None else whole)
        kept = (area >= max(self.min_area, _EMPTY)) & (area >= self.min_visibility * full * (1 - 1e-9))
        return clipped[kept], kept


def moved(sample: Sample, geometry: GeometricMap) -> Sample:
    """Return the targets of a sample as a map moves them; the image is left alone."""
    mask = sample.mask
    if mask is not None:
        layers = mask if mask.ndim == 3 else mask[:, :, np.newaxis]
        mask = sample_labels(layers, geometry, sample.mask_fill)
        mask = np.ascontiguousarray(mask if sample.mask.ndim == 3 else mask[:, :, 0])
    boxes, labels, keypoints = sample.boxes, sample.labels, sample.keypoints
    stages = [*geometry.clips, (geometry.matrix, geometry.size)]
    if boxes is not None and len(boxes):
        boxes, kept = _moved_boxes(sample, stages)
        labels = None if labels is None else labels[kept]
    if keypoints is not None and len(keypoints):
        for matrix, size in stages:
            keypoints = np.where(np.isnan(_inside(_projected(matrix, keypoints), size)), np.nan, keypoints)
        keypoints = _projected(geometry.matrix, keypoints)
    return sample.changed(mask=mask, boxes=boxes, labels=labels, keypoints=keypoints)


def _moved_boxes(sample: Sample, stages: list[tuple[Floats, Size]]) -> tuple[Floats, Array]:
    """Return boxes after a map, clipped where an image between was cut, and which of them are kept."""
    final = stages[-1][0]
    if all(_is_upright(matrix) for matrix, _ in stages):
        return _upright_boxes(sample, stages)
    corners = _corner_points(sample.boxes)
    whole, is_cut = _bounds(_projected(final, corners)), False
    for matrix, size in stages[:-1]:
        points = _projected(matrix, corners)
        limits = np.array([size[1], size[0]], float)
        outside = ((points < -_EMPTY) | (points > limits + _EMPTY)).any(axis=1).reshape(-1, 4).any(axis=1)
        if outside.any():
            is_cut = True
            cut = _projected(inverse(matrix), _corner_points(np.clip(_bounds(points), 0, np.tile(limits, 2))))
            corners = np.where(np.repeat(outside, 4)[:, np.newaxis], cut, corners)
    found = _bounds(_projected(final, corners)) if is_cut else whole
    return sample._clipped(found, stages[-1][1], whole)


def _is_upright(matrix: Floats) -> bool:
    """Whether a map only scales, flips and shifts, so that boxes stay boxes."""
    (_, a, _), (b, _, _), (c, d, one) = matrix.tolist()
    return bool(a == b == c == d == 0 and one == 1)


def _upright_boxes(sample: Sample, stages: list[tuple[Floats, Size]]) -> tuple[Floats, Array]:
    """Do what ``_moved_boxes`` does by maps that leave boxes boxes, in less time."""
    boxes, whole = sample.boxes, _scaled(stages[-1][0], sample.boxes)
    for matrix, (height, width) in stages[:-1]:
        found, limits = _scaled(matrix, boxes), np.array([width, height, width, height], float)
        outside: Array = np.any((found < -_EMPTY) | (found > limits + _EMPTY), axis=1)
        if outside.any():
            cut = _scaled(inverse(matrix), np.clip(found, 0, limits))
            boxes = np.where(outside[:, np.newaxis], cut, boxes)
    found = whole if boxes is sample.boxes else _scaled(stages[-1][0], boxes)
    return sample._clipped(found, stages[-1][1], whole)


def _scaled(matrix: Floats, boxes: Floats) -> Floats:
    (x, _, left), (_, y, top), _ = matrix.tolist()
    found = boxes * (x, y, x, y) + (left, top, left, top)
    if x < 0:
        found[:, [0, 2]] = found[:, [2, 0]]
    if y < 0:
        found[:, [1, 3]] = found[:, [3, 1]]
    moved: Floats = found
    return moved


def _corner_points(boxes: Floats) -> Floats:
    """Return the four corners of each box, shape (4 n, 2)."""
    points: Floats = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    return points


def _bounds(points: Floats) -> Floats:
    """Return the box around each four points."""
    four = points.reshape(-1, 4, 2)
    return np.concatenate([four.min(axis=1), four.max(axis=1)], axis=1)


def _area(boxes: Floats) -> Floats:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area: Floats = sides[:, 0] * sides[:, 1]
    return area


def _projected(matrix: Floats, points: Floats) -> Floats:
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    found: Floats = mapped[:, :2] / mapped[:, 2:]
    return found


def _inside(points: Floats, size: Size) -> Floats:
    """Return points, with NaN for those outside an image."""
    x, y = points.T
    good = (x >= 0) & (x <= size[1]) & (y >= 0) & (y <= size[0])
    return np.where(good[:, np.newaxis], points, np.nan)
