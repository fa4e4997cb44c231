"""Geometric transforms along the axes: resize, crop, flip, pad.

For ``interpolation`` see :func:`~sparkopt.images.functional.resize`. ``fill`` is the value of pixels outside the
image.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images import functional as F
from sparkopt.images.geometry import GeometricMap, Size, check_result, mirrored, scaling, translation
from sparkopt.images.parameters import AS_OTHER, FILL, Fill, Range
from sparkopt.images.sample import Sample
from sparkopt.images.transform import GeometricTransform, ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = [
    "CenterCrop",
    "Crop",
    "HorizontalFlip",
    "Letterbox",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "ResizeLongerSide",
    "ResizeShorterSide",
    "VerticalFlip",
]

SQUARE = {"width": "height"}
_LENGTH = Interval(1, 2**16, whole=True)
_OFFSET = Interval(0, 2**16, whole=True)
_NUMBER = Interval()
RATIO = Interval(2**-16, 2**16)
_INTERPOLATION = OneOf(F.INTERPOLATIONS)


@dataclass(frozen=True)
class Resize(GeometricTransform):
    """Resize to exactly ``height`` × ``width`` pixels, whatever the proportions."""

    height: int
    width: int
    interpolation: str = "linear"

    domains: ClassVar = {"height": _LENGTH, "width": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes."""
        return _resize_map(size, (self.height, self.width), self.interpolation)


@dataclass(frozen=True)
class ResizeShorterSide(GeometricTransform):
    """Resize so that the shorter side has ``length`` pixels; proportions are kept.

    The longer side is rounded down to whole pixels, as by torchvision's Resize(length).
    """

    length: int
    interpolation: str = "linear"

    domains: ClassVar = {"length": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes alike, up to rounding to whole pixels."""
        height, width = (self.length * side // min(size) for side in size)
        return _resize_map(size, (height, width), self.interpolation)


@dataclass(frozen=True)
class ResizeLongerSide(GeometricTransform):
    """Resize so that the longer side has ``length`` pixels; proportions are kept."""

    length: int
    interpolation: str = "linear"

    domains: ClassVar = {"length": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes alike, up to rounding to the nearest whole pixel."""
        return _resize_map(size, _scaled(size, self.length / max(size)), self.interpolation)


@dataclass(frozen=True)
class Letterbox(GeometricTransform):
    """Resize to fit into ``height`` × ``width``, keeping proportions, centred on a background of value ``fill``.

    Without ``width``, into a square.
    """

    height: int
    width: int = AS_OTHER
    fill: Fill = 0.0
    interpolation: str = "linear"

    same: ClassVar = SQUARE
    domains: ClassVar = {"height": _LENGTH, "width": _LENGTH, "fill": FILL, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale, then translate to the centre."""
        inner = _scaled(size, min(self.height / size[0], self.width / size[1]))
        top, left = (self.height - inner[0]) // 2, (self.width - inner[1]) // 2
        matrix = translation(left, top) @ scaling(inner[1] / size[1], inner[0] / size[0])
        return GeometricMap(matrix, (self.height, self.width), self.interpolation, self.fill)


@dataclass(frozen=True)
class Crop(GeometricTransform):
    """Cut out ``height`` × ``width`` pixels with the upper left corner at (``top``, ``left``)."""

    top: int
    left: int
    height: int
    width: int

    domains: ClassVar = {"top": _OFFSET, "left": _OFFSET, "height": _LENGTH, "width": _LENGTH}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Translate; DataError if the rectangle is not inside the image."""
        _check_large_enough(size, (self.top + self.height, self.left + self.width))
        return GeometricMap(translation(-self.left, -self.top), (self.height, self.width))


@dataclass(frozen=True)
class CenterCrop(GeometricTransform):
    """Cut out the central ``height`` × ``width`` pixels; without ``width``, a square.

    Where a side has an odd number of pixels too many, half of them is rounded to an even number, as torchvision does.
    """

    height: int
    width: int = AS_OTHER

    same: ClassVar = SQUARE
    domains: ClassVar = {"height": _LENGTH, "width": _LENGTH}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Translate; DataError if the image is smaller."""
        _check_large_enough(size, (self.height, self.width))
        top, left = middle(size[0] - self.height), middle(size[1] - self.width)
        return GeometricMap(translation(-left, -top), (self.height, self.width))


@dataclass(frozen=True)
class RandomCrop(GeometricTransform):
    """Cut out ``height`` × ``width`` pixels at a position that is drawn uniformly; without ``width``, a square."""

    height: int
    width: int = AS_OTHER

    same: ClassVar = SQUARE
    domains: ClassVar = {"height": _LENGTH, "width": _LENGTH}
    random = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Translate; DataError if the image is smaller."""
        _check_large_enough(size, (self.height, self.width))
        top, left = (int(rng.integers(0, big - small + 1)) for big, small in zip(size, (self.height, self.width)))  # noqa: B905
        return GeometricMap(translation(-left, -top), (self.height, self.width))


@dataclass(frozen=True)
class RandomResizedCrop(GeometricTransform):
    """Cut out a random part and resize it to ``height`` × ``width``, as for the training of Inception.

    Parameters
    ----------
    height, width : int
        Size of the result; without ``width`` a square.
    scale : (float, float), default (0.08, 1.0)
        Range of the part's area, as a fraction of the image's; uniform.
    ratio : (float, float), default (3/4, 4/3)
        Range of the part's width / height; log-uniform. After ten parts that do not fit, the largest central part
        within the range is taken.
    interpolation : str, default "linear"
        See :func:`~sparkopt.images.functional.resize`.

    References
    ----------
    Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """

    height: int
    width: int = AS_OTHER
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "linear"

    same: ClassVar = SQUARE
    domains: ClassVar = {
        "height": _LENGTH,
        "width": _LENGTH,
        "scale": Range(Interval(0, 1, closed="right")),
        "ratio": Range(RATIO),
        "interpolation": _INTERPOLATION,
    }
    random = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Translate the part to the origin, then scale it."""
        top, left, height, width = self._part(size, rng)
        x, y = self.width / width, self.height / height
        matrix = np.array([[x, 0.0, -x * left], [0.0, y, -y * top], [0.0, 0.0, 1.0]])
        return GeometricMap(matrix, (self.height, self.width), self.interpolation)

    def _part(self, size: Size, rng: np.random.Generator) -> tuple[int, int, int, int]:
        rows, columns = size
        smallest, largest = self.scale
        narrowest, widest = self.ratio
        for _ in range(10):
            area, ratio, down, across = rng.random(4).tolist()
            area = rows * columns * (smallest + area * (largest - smallest))
            ratio = narrowest * (widest / narrowest) ** ratio
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= rows and 0 < width <= columns:
                return int(down * (rows - height + 1)), int(across * (columns - width + 1)), height, width
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        height, width = max(1, min(rows, round(columns / ratio))), max(1, min(columns, round(rows * ratio)))
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclass(frozen=True)
class HorizontalFlip(GeometricTransform):
    """Mirror left and right."""

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Map x to width − x."""
        return mirrored(size, 1)


@dataclass(frozen=True)
class VerticalFlip(GeometricTransform):
    """Mirror top and bottom."""

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Map y to height − y."""
        return mirrored(size, 0)


@dataclass(frozen=True)
class RandomHorizontalFlip(HorizontalFlip):
    """Mirror left and right with probability ``p``."""

    p: float = 0.5

    random = True


@dataclass(frozen=True)
class RandomVerticalFlip(VerticalFlip):
    """Mirror top and bottom with probability ``p``."""

    p: float = 0.5

    random = True


@dataclass(frozen=True)
class Pad(ImageTransform):
    """Add pixels on each side.

    Parameters
    ----------
    top, right, bottom, left : int
        Number of pixels; ``Pad(4)`` is 4 on all four sides.
    mode : {"constant", "edge", "reflect", "symmetric"}, default "constant"
        Pad with ``fill``, the outermost pixel, or the mirror image without or with the outermost pixel.
    fill : float, default 0
        For mode "constant".
    """

    top: int
    right: int = AS_OTHER
    bottom: int = AS_OTHER
    left: int = AS_OTHER
    mode: str = "constant"
    fill: Fill = 0.0

    same: ClassVar = dict.fromkeys(("right", "bottom", "left"), "top")
    domains: ClassVar = {
        "top": _OFFSET,
        "right": _OFFSET,
        "bottom": _OFFSET,
        "left": _OFFSET,
        "mode": OneOf(F.PAD_MODES),
        "fill": FILL,
    }

    def __post_init__(self) -> None:
        missing = [name for name in self.same if getattr(self, name) is None]
        if missing and len(missing) < len(self.same):  # two would be other sides in other libraries
            raise ParameterError(
                f"Pad.{missing[0]} must be given: top, right, bottom and left, or one number for all four."
            )
        super().__post_init__()

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the larger image; DataError if it has too many pixels."""
        check_result((self.top + image.shape[0] + self.bottom, self.left + image.shape[1] + self.right))
        return F.pad(image, self.top, self.right, self.bottom, self.left, self.mode, self.fill)

    def apply_to(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the larger image, its mask padded alike, and the points moved."""
        image, mask = self.apply(sample.pixels, rng), sample.mask
        if mask is not None:
            layers = mask if mask.ndim == 3 else mask[:, :, np.newaxis]
            sides = (self.top, self.right, self.bottom, self.left)
            padded = F.pad(layers, *sides, self.mode, sample.mask_fill)
            mask = padded if mask.ndim == 3 else padded[:, :, 0]
        shifted = sample.with_points(lambda points: np.add(points, (self.left, self.top)), image.shape[:2])
        return shifted.changed(image=image, mask=mask)


def middle(room: int) -> int:
    """Return how many of ``room`` pixels are before the central part; a half becomes even, as in torchvision."""
    return round(room / 2)


def _resize_map(size: Size, target: Size, interpolation: str) -> GeometricMap:
    return GeometricMap(scaling(target[1] / size[1], target[0] / size[0]), target, interpolation)


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _check_large_enough(size: Size, needed: Size) -> None:
    if size[0] < needed[0] or size[1] < needed[1]:
        raise DataError(
            f"too small: the crop needs {needed[0]} x {needed[1]} pixels, the image has {size[0]} x {size[1]}"
        )
