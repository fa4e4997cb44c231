"""An image with its targets (a mask, boxes, keypoints), which a pipeline moves as it moves the pixels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images.geometry import REMEMBERED, GeometricMap, Size, inverse
from sparkopt.images.parameters import Fill
from sparkopt.images.sampling import sample_labels
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["BOX", "KEYPOINT", "Sample", "checked_mask", "moved", "odd_keypoint", "warn_of_shares"]

_LOG = logging.getLogger(__name__)
BOX = "x_min <= x_max and y_min <= y_max"
KEYPOINT = "both numbers must be finite, or both NaN for one that is not there"
_EMPTY = 1e-9
_FEW = 8
_TOO_WIDE = tuple(map(np.dtype, ("uint32", "int64", "uint64")))
_Box: TypeAlias = tuple[float, float, float, float]


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
        (x, y) in pixels; those that leave the image become (NaN, NaN), so that each keeps its place, and those that
        are not there may be given so. Infinity, and one NaN alone, are refused.
    min_visibility : float, default 0
        Boxes of which a smaller fraction of the area is left are removed.
    min_area : float, default 1
        Boxes of a smaller area, in pixels of the result, are removed.
    mask_fill : float, default 0
        Label of pixels outside the image. Masks of a type that does not hold it, as bytes do not hold -100, become
        int32; so do those of uint32 and 64 bits, and bool becomes uint8: OpenCV samples no others.

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
            object.__setattr__(self, name, _points(name, value, width))
        self._check_points()
        if self.labels is not None:
            object.__setattr__(self, "labels", np.asarray(self.labels))
            if self.boxes is None or self.labels.ndim == 0 or len(self.labels) != len(self.boxes):
                raise ParameterError("labels must be one for each of the boxes.")
        if self.mask is not None:
            object.__setattr__(self, "mask", checked_mask(self.mask, self.mask_fill))

    def _check_points(self) -> None:
        if self.boxes is not None and not (self.boxes[:, :2] <= self.boxes[:, 2:]).all():
            first = next(box for box in self.boxes.tolist() if not (box[0] <= box[2] and box[1] <= box[3]))
            raise ParameterError(
                f"boxes must be [x_min, y_min, x_max, y_max] with {BOX}. Got {first} "
                "instead; of [x, y, width, height] make [x, y, x + width, y + height]."
            )
        odd = None if self.keypoints is None else odd_keypoint(self.keypoints)
        if odd is not None:
            raise ParameterError(
                f"keypoints must be [x, y]. Keypoint {odd} is {self.keypoints[odd].tolist()}; {KEYPOINT}."
            )

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
        if boxes is not None and len(boxes):
            found = _bounds(move(_corner_points(boxes)))
            boxes, kept = self._clipped(found, _window(size))
            labels = None if labels is None else labels[kept]
        if keypoints is not None and len(keypoints):
            keypoints = _inside(move(keypoints), size)
        return self.changed(boxes=boxes, labels=labels, keypoints=keypoints)

    def _clipped(self, boxes: Floats, window: Floats, whole: Floats | None = None) -> tuple[Floats, Array]:
        """Return the boxes that are visible enough, clipped to a window, and which they are."""
        clipped = np.minimum(np.maximum(boxes, window[0]), window[1])
        area = _area(clipped)
        kept = area >= max(self.min_area, _EMPTY)
        if self.min_visibility > 0:
            kept &= area >= self.min_visibility * _area(boxes if whole is None else whole) * (1 - 1e-9)
        return (clipped if kept.all() else clipped[kept]), kept


def _points(name: str, value: Any, width: int) -> Floats:
    """Return boxes or keypoints as numbers, (n, width)."""
    try:
        found = np.asarray(value, np.float64)
        found = found.reshape(-1, width) if np.size(value) == 0 else found
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim != 2 or found.shape[1] != width:
        raise ParameterError(f"{name} must be numbers of shape (n, {width}). Got {value!r} instead.")
    return found


def checked_mask(given: Any, fill: Fill) -> Array:
    """Return labels in a type that OpenCV samples and that holds the label of pixels outside, as bytes no -100.

    Raises
    ------
    ParameterError
        If they are no array of two or three axes, or have more than 32 bits.
    """
    mask: Array = np.asarray(given)
    if mask.ndim not in (2, 3):
        raise ParameterError(f"mask must have the shape (height, width[, layers]). Got {mask.shape} instead.")
    if mask.dtype == np.uint8 and fill == 0:  # nearly all are
        return mask
    if mask.dtype == bool:
        mask = mask.view(np.uint8)
    if mask.dtype.kind not in "iu":
        return mask
    limits, wide = np.iinfo(mask.dtype), np.iinfo(np.int32)
    is_held = all(limits.min <= value <= limits.max for value in (fill if isinstance(fill, tuple) else (fill,)))
    if is_held and mask.dtype not in _TOO_WIDE:
        return mask
    if mask.size and not wide.min <= mask.min() <= mask.max() <= wide.max:
        raise ParameterError(f"mask must have labels of 32 bits. Got {mask.min()} to {mask.max()} instead.")
    return mask.astype(np.int32)


def odd_keypoint(points: Floats) -> int | None:
    """Return the first keypoint that is infinite, or has one NaN; None where there is none."""
    finite = np.isfinite(points)
    if finite.all():  # nearly all are
        return None
    good = finite.all(axis=1) | np.isnan(points).all(axis=1)
    return None if good.all() else int(np.flatnonzero(~good)[0])


def warn_of_shares(given: Sample, left: Sample) -> None:
    """Say, once in a process, that boxes which seem to be shares of the image's sides were all removed."""
    boxes = given.boxes
    if len(left.boxes) or not len(boxes) or not (boxes >= 0).all() or not (boxes <= 1).all():
        return
    if not _WARNED:
        box = boxes[0].tolist()
        _LOG.warning(
            "boxes as %s are smaller than a pixel, and removed. They must be [x_min, y_min, x_max, y_max] in pixels: "
            "multiply those that are shares of the image's sides, as YOLO's are, by its width and height.",
            box,
        )
        _WARNED.append(box)


_WARNED: list[list[float]] = []
"""The box that this process has warned of."""


def moved(sample: Sample, geometry: GeometricMap) -> Sample:
    """Return the targets of a sample as a map moves them; the image is left alone."""
    mask = sample.mask
    if mask is not None:
        layers = mask if mask.ndim == 3 else mask[:, :, np.newaxis]
        mask = sample_labels(layers, geometry, sample.mask_fill)
        mask = np.ascontiguousarray(mask if sample.mask.ndim == 3 else mask[:, :, 0])
    boxes, labels, keypoints = sample.boxes, sample.labels, sample.keypoints
    if boxes is not None and len(boxes):
        scaling = _scaling(geometry)
        if scaling is None:
            boxes, kept = _moved_boxes(sample, _stages(geometry))
        else:
            boxes, kept = _few_boxes(sample, scaling) if len(boxes) <= _FEW else _many_boxes(sample, scaling)
        labels = None if labels is None else labels[kept]
    if keypoints is not None and len(keypoints):
        for matrix, size in _stages(geometry):
            keypoints = np.where(np.isnan(_inside(_projected(matrix, keypoints), size)), np.nan, keypoints)
        keypoints = _projected(geometry.matrix, keypoints)
    return sample.changed(mask=mask, boxes=boxes, labels=labels, keypoints=keypoints)


def _moved_boxes(sample: Sample, stages: Sequence[tuple[Floats, Size]]) -> tuple[Floats, Array]:
    """Return boxes after a map, clipped where an image between was cut, and which of them are kept."""
    final = stages[-1][0]
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
    return sample._clipped(found, _window(stages[-1][1]), whole)


@functools.lru_cache(maxsize=REMEMBERED)
def _window(size: Size) -> Floats:
    """Return the least and the largest sides of boxes in an image, shape (2, 4)."""
    return np.array([[0, 0, 0, 0], [size[1], size[0], size[1], size[0]]], np.float64)


def _stages(geometry: GeometricMap) -> tuple[tuple[Floats, Size], ...]:
    """Return the images of a map, those between and the last."""
    return (*geometry.clips, (geometry.matrix, geometry.size))


class _Scaling(NamedTuple):
    """A map that only scales, flips and shifts, so that boxes stay boxes.

    Attributes
    ----------
    x, y, left, top : float
        Factors and shifts.
    window : tuple of float
        (x_min, y_min, x_max, y_max) of what is visible of the result: no image between cut it off.
    """

    x: float
    y: float
    left: float
    top: float
    window: _Box

    def __call__(self, boxes: Floats) -> Floats:
        found: Floats = boxes * (self.x, self.y, self.x, self.y) + (self.left, self.top, self.left, self.top)
        order = [2 if self.x < 0 else 0, 3 if self.y < 0 else 1, 0 if self.x < 0 else 2, 1 if self.y < 0 else 3]
        return found[:, order]


@functools.lru_cache(maxsize=REMEMBERED)
def _scaling(geometry: GeometricMap) -> _Scaling | None:
    """Return what a map does to boxes; None where it, or one to an image between, turns or shears."""
    final, window = _axes(geometry.matrix), [0.0, 0.0, float(geometry.size[1]), float(geometry.size[0])]
    for matrix, (height, width) in geometry.clips:
        between = _axes(matrix)
        if final is None or between is None:
            return None
        ends = ((0.0, 0.0), (float(width), float(height)))
        corners = [((x - between[2]) / between[0], (y - between[3]) / between[1]) for x, y in ends]
        found = [(x * final[0] + final[2], y * final[1] + final[3]) for x, y in corners]
        least, largest = np.min(found, axis=0).tolist(), np.max(found, axis=0).tolist()
        # An edge within rounding of the window's is the same: where nothing is cut off, the window stays exact.
        window[:2] = [edge if edge > side + _EMPTY else side for edge, side in zip(least, window[:2], strict=True)]
        window[2:] = [edge if edge < side - _EMPTY else side for edge, side in zip(largest, window[2:], strict=True)]
    x_min, y_min, x_max, y_max = window
    return None if final is None else _Scaling(*final, (x_min, y_min, max(x_min, x_max), max(y_min, y_max)))


def _axes(matrix: Floats) -> tuple[float, float, float, float] | None:
    """Return the factors and shifts of x and y; None where a matrix turns or shears."""
    (x, a, left), (b, y, top), (c, d, one) = matrix.tolist()
    return (x, y, left, top) if a == b == c == d == 0 and one == 1 else None


def _many_boxes(sample: Sample, scaling: _Scaling) -> tuple[Floats, Array]:
    """Do what ``_moved_boxes`` does by a map that leaves boxes boxes, in less time."""
    x_min, y_min, x_max, y_max = scaling.window
    window = np.array([[x_min, y_min, x_min, y_min], [x_max, y_max, x_max, y_max]])
    return sample._clipped(scaling(sample.boxes), window)


def _few_boxes(sample: Sample, scaling: _Scaling) -> tuple[Floats, Array]:
    """Do the same, with the same numbers, box by box: of a few, NumPy's calls take longer than the arithmetic."""
    x, y, left, top, (left_edge, top_edge, right_edge, bottom_edge) = scaling
    least, share = max(sample.min_area, _EMPTY), sample.min_visibility * (1 - 1e-9)
    found, kept = [], []
    for x_min, y_min, x_max, y_max in sample.boxes.tolist():
        a, b, c, d = x_min * x + left, y_min * y + top, x_max * x + left, y_max * y + top
        if x < 0:
            a, c = c, a
        if y < 0:
            b, d = d, b
        whole = (c - a) * (d - b)
        a, c = max(a, left_edge), min(c, right_edge)
        b, d = max(b, top_edge), min(d, bottom_edge)
        area = (c - a) * (d - b) if c > a and d > b else 0.0
        is_kept = area >= least and (share <= 0 or area >= share * whole)
        kept.append(is_kept)
        if is_kept:
            found.append((a, b, c, d))
    return np.array(found, np.float64).reshape(-1, 4), np.array(kept, bool)


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
