"""Geometric transforms: resize, crop, flip, rotate, pad, affine, perspective.

Angles are in degrees, counter-clockwise. ``interpolation`` is for growing and turning; whatever shrinks is averaged over
areas, except with "nearest". ``fill`` is the value of pixels that nothing is mapped to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.errors import DataError
from sparkopt.images import functional as F
from sparkopt.images.geometry import GeometricMap, Size, scaling, translation
from sparkopt.images.transforms import GeometricTransform, ImageTransform
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf

__all__ = [
    "Affine",
    "CenterCrop",
    "Crop",
    "HorizontalFlip",
    "Letterbox",
    "Pad",
    "Perspective",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomPerspective",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
    "ResizeLongerSide",
    "ResizeShorterSide",
    "Rotate",
    "VerticalFlip",
]

_LENGTH = Interval(1, 2**16, whole=True)
_OFFSET = Interval(0, 2**16, whole=True)
_PROBABILITY = Interval(0, 1)
_NUMBER = Interval()
_POSITIVE = Interval(0, None, closed="neither")
_NON_NEGATIVE = Interval(0, None)
_INTERPOLATION = OneOf(F.INTERPOLATIONS)


@dataclass(frozen=True)
class Resize(GeometricTransform):
    """Resize to exactly ``height`` × ``width`` pixels, whatever the proportions."""

    height: int
    width: int
    interpolation: str = "linear"

    domains = {"height": _LENGTH, "width": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes."""
        return _resize_map(size, (self.height, self.width), self.interpolation)


@dataclass(frozen=True)
class ResizeShorterSide(GeometricTransform):
    """Resize so that the shorter side has ``length`` pixels; proportions are kept."""

    length: int
    interpolation: str = "linear"

    domains = {"length": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes alike, up to rounding to whole pixels."""
        return _resize_map(size, _scaled(size, self.length / min(size)), self.interpolation)


@dataclass(frozen=True)
class ResizeLongerSide(GeometricTransform):
    """Resize so that the longer side has ``length`` pixels; proportions are kept."""

    length: int
    interpolation: str = "linear"

    domains = {"length": _LENGTH, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale both axes alike, up to rounding to whole pixels."""
        return _resize_map(size, _scaled(size, self.length / max(size)), self.interpolation)


@dataclass(frozen=True)
class Letterbox(GeometricTransform):
    """Resize to fit into ``height`` × ``width``, keeping proportions, and centre on a ground of value ``fill``."""

    height: int
    width: int
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {"height": _LENGTH, "width": _LENGTH, "fill": _NUMBER, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Scale, then move to the middle."""
        inner = _scaled(size, min(self.height / size[0], self.width / size[1]))
        top, left = (self.height - inner[0]) // 2, (self.width - inner[1]) // 2
        matrix = translation(left, top) @ scaling(inner[1] / size[1], inner[0] / size[0])
        return GeometricMap(matrix, (self.height, self.width), self.interpolation, self.fill)


@dataclass(frozen=True)
class Crop(GeometricTransform):
    """Cut out ``height`` × ``width`` pixels, the upper left of which is at (``top``, ``left``)."""

    top: int
    left: int
    height: int
    width: int

    domains = {"top": _OFFSET, "left": _OFFSET, "height": _LENGTH, "width": _LENGTH}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Move; DataError if the rectangle does not lie inside the image."""
        _check_large_enough(size, (self.top + self.height, self.left + self.width))
        return GeometricMap(translation(-self.left, -self.top), (self.height, self.width))


@dataclass(frozen=True)
class CenterCrop(GeometricTransform):
    """Cut ``height`` × ``width`` pixels out of the middle."""

    height: int
    width: int

    domains = {"height": _LENGTH, "width": _LENGTH}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Move; DataError if the image is smaller."""
        _check_large_enough(size, (self.height, self.width))
        top, left = (size[0] - self.height) // 2, (size[1] - self.width) // 2
        return GeometricMap(translation(-left, -top), (self.height, self.width))


@dataclass(frozen=True)
class RandomCrop(GeometricTransform):
    """Cut out ``height`` × ``width`` pixels anywhere, each place being equally likely."""

    height: int
    width: int

    domains = {"height": _LENGTH, "width": _LENGTH}
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Move; DataError if the image is smaller."""
        _check_large_enough(size, (self.height, self.width))
        top, left = (int(rng.integers(0, big - small + 1)) for big, small in zip(size, (self.height, self.width)))  # noqa: B905
        return GeometricMap(translation(-left, -top), (self.height, self.width))


@dataclass(frozen=True)
class RandomResizedCrop(GeometricTransform):
    """Cut out a random part and resize it to ``height`` × ``width``, as Inception was trained.

    Parameters
    ----------
    height, width : int
        Size of the result.
    scale : (float, float), default (0.08, 1.0)
        Range of the part's area, as a fraction of the image's; uniform.
    ratio : (float, float), default (3/4, 4/3)
        Range of the part's width / height; log-uniform. After ten parts that do not fit, the largest central part
        within the range is taken.
    interpolation : str, default "linear"
        For images that grow.

    References
    ----------
    Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """

    height: int
    width: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "linear"

    domains = {
        "height": _LENGTH,
        "width": _LENGTH,
        "scale": Interval(0, 1, closed="right"),
        "ratio": _POSITIVE,
        "interpolation": _INTERPOLATION,
    }
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Move the part to the origin, then scale it."""
        top, left, height, width = self._part(size, rng)
        resized = _resize_map((height, width), (self.height, self.width), self.interpolation)
        return GeometricMap(resized.matrix @ translation(-left, -top), resized.size, self.interpolation)

    def _part(self, size: Size, rng: np.random.Generator) -> tuple[int, int, int, int]:
        rows, columns = size
        for _ in range(10):
            area = rows * columns * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*np.log(self.ratio)))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= rows and 0 < width <= columns:
                top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
                return top, left, height, width
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        height, width = max(1, min(rows, round(columns / ratio))), max(1, min(columns, round(rows * ratio)))
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclass(frozen=True)
class HorizontalFlip(GeometricTransform):
    """Mirror left and right."""

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """x becomes width − x."""
        return GeometricMap(translation(size[1], 0) @ scaling(-1, 1), size)


@dataclass(frozen=True)
class VerticalFlip(GeometricTransform):
    """Mirror top and bottom."""

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """y becomes height − y."""
        return GeometricMap(translation(0, size[0]) @ scaling(1, -1), size)


@dataclass(frozen=True)
class RandomHorizontalFlip(HorizontalFlip):
    """Mirror left and right with probability ``p``."""

    p: float = 0.5

    domains = {"p": _PROBABILITY}
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """x becomes width − x, or stays."""
        return super().map(size, rng) if rng.random() < self.p else GeometricMap(np.eye(3), size)


@dataclass(frozen=True)
class RandomVerticalFlip(VerticalFlip):
    """Mirror top and bottom with probability ``p``."""

    p: float = 0.5

    domains = {"p": _PROBABILITY}
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """y becomes height − y, or stays."""
        return super().map(size, rng) if rng.random() < self.p else GeometricMap(np.eye(3), size)


@dataclass(frozen=True)
class Rotate(GeometricTransform):
    """Turn by ``angle`` degrees about the middle; ``expand`` enlarges the image to hold all of the result."""

    angle: float
    expand: bool = False
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {"angle": _NUMBER, "expand": OneOf((True, False)), "fill": _NUMBER, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Turn about the middle."""
        return _centered(size, _rotation(self.angle), self.expand, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomRotation(GeometricTransform):
    """Turn by an angle drawn uniformly from ``degrees`` = (low, high)."""

    degrees: tuple[float, float]
    expand: bool = False
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {"degrees": _NUMBER, "expand": OneOf((True, False)), "fill": _NUMBER, "interpolation": _INTERPOLATION}
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Turn about the middle."""
        angle = rng.uniform(*self.degrees)
        return _centered(size, _rotation(angle), self.expand, self.interpolation, self.fill)


@dataclass(frozen=True)
class Affine(GeometricTransform):
    """Shear, scale, turn about the middle, then move.

    Parameters
    ----------
    angle : float, default 0
        Degrees, counter-clockwise.
    translate : (float, float), default (0, 0)
        Fractions of the width and the height.
    scale : float, default 1
        Enlargement.
    shear : (float, float), default (0, 0)
        Degrees along x and y.
    fill, interpolation
        See the module.
    """

    angle: float = 0.0
    translate: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {
        "angle": _NUMBER,
        "translate": _NUMBER,
        "scale": _POSITIVE,
        "shear": Interval(-90, 90, closed="neither"),
        "fill": _NUMBER,
        "interpolation": _INTERPOLATION,
    }

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Map about the middle."""
        x, y = (math.tan(math.radians(angle)) for angle in self.shear)
        linear = _rotation(self.angle) @ scaling(self.scale, self.scale) @ np.array([[1, x, 0], [y, 1, 0], [0, 0, 1]])
        centered = _centered(size, linear, False, self.interpolation, self.fill)
        moved = translation(self.translate[0] * size[1], self.translate[1] * size[0]) @ centered.matrix
        return GeometricMap(moved, size, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomAffine(GeometricTransform):
    """:class:`Affine` with parameters drawn uniformly.

    Parameters
    ----------
    degrees : (float, float), default (0, 0)
        Range of the angle.
    translate : (float, float), default (0, 0)
        Largest move along x and y, either way, as fractions of the width and the height.
    scale : (float, float), default (1, 1)
        Range of the enlargement.
    shear : (float, float), default (0, 0)
        Range of the shear along x, in degrees.
    fill, interpolation
        See the module.
    """

    degrees: tuple[float, float] = (0.0, 0.0)
    translate: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    shear: tuple[float, float] = (0.0, 0.0)
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {
        "degrees": _NUMBER,
        "translate": _NON_NEGATIVE,
        "scale": _POSITIVE,
        "shear": Interval(-90, 90, closed="neither"),
        "fill": _NUMBER,
        "interpolation": _INTERPOLATION,
    }
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Draw the parameters, and map."""
        fixed = Affine(
            float(rng.uniform(*self.degrees)),
            (float(rng.uniform(-1, 1)) * self.translate[0], float(rng.uniform(-1, 1)) * self.translate[1]),
            float(rng.uniform(*self.scale)),
            (float(rng.uniform(*self.shear)), 0.0),
            self.fill,
            self.interpolation,
        )
        return fixed.map(size, rng)


@dataclass(frozen=True)
class Perspective(GeometricTransform):
    """Move the corners of the image.

    Parameters
    ----------
    corners : four of (float, float)
        Where the upper left, upper right, lower right and lower left corners go: (x, y) as fractions of the width and
        the height. ((0, 0), (1, 0), (1, 1), (0, 1)) changes nothing.
    fill, interpolation
        See the module.
    """

    corners: tuple[tuple[float, float], ...]
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {"fill": _NUMBER, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Solve for the homography that moves the corners."""
        sides = np.array([size[1], size[0]], np.float32)
        start = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * sides
        matrix = cv2.getPerspectiveTransform(start, np.asarray(self.corners, np.float32) * sides)
        return GeometricMap(matrix, size, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomPerspective(GeometricTransform):
    """Move each corner inwards by up to ``distortion`` / 2 of the width and of the height, with probability ``p``."""

    distortion: float = 0.5
    p: float = 0.5
    fill: float = 0.0
    interpolation: str = "linear"

    domains = {
        "distortion": Interval(0, 1, closed="left"),
        "p": _PROBABILITY,
        "fill": _NUMBER,
        "interpolation": _INTERPOLATION,
    }
    random: ClassVar[bool] = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Draw the corners, and map."""
        chosen, inwards = rng.random() < self.p, rng.random((4, 2)) * self.distortion / 2
        if not chosen:
            return GeometricMap(np.eye(3), size)
        corners = np.abs(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - inwards)
        moved = tuple((float(x), float(y)) for x, y in corners)
        return Perspective(moved, self.fill, self.interpolation).map(size, rng)


@dataclass(frozen=True)
class Pad(ImageTransform):
    """Add pixels on each side.

    Parameters
    ----------
    top, right, bottom, left : int
        How many.
    mode : {"constant", "edge", "reflect", "symmetric"}, default "constant"
        Value ``fill``, the outermost pixel, the mirror image without or with the outermost pixel.
    fill : float, default 0
        For mode "constant".
    """

    top: int
    right: int
    bottom: int
    left: int
    mode: str = "constant"
    fill: float = 0.0

    domains = {
        "top": _OFFSET,
        "right": _OFFSET,
        "bottom": _OFFSET,
        "left": _OFFSET,
        "mode": OneOf(F.PAD_MODES),
        "fill": _NUMBER,
    }

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the larger image."""
        return F.pad(image, self.top, self.right, self.bottom, self.left, self.mode, self.fill)


def _resize_map(size: Size, target: Size, interpolation: str) -> GeometricMap:
    return GeometricMap(scaling(target[1] / size[1], target[0] / size[0]), target, interpolation)


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _check_large_enough(size: Size, needed: Size) -> None:
    if size[0] < needed[0] or size[1] < needed[1]:
        raise DataError(
            f"too small: an image of {size[0]} x {size[1]} pixels has no part that reaches to {needed[0]} x {needed[1]}"
        )


def _rotation(angle: float) -> Floats:
    """Counter-clockwise as seen, y pointing down; exact for right angles."""
    quarter, rest = divmod(angle, 90)
    cosine, sine = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(quarter) % 4):
        cosine, sine = -sine, cosine
    return np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _centered(size: Size, linear: Floats, expand: bool, interpolation: str, fill: float) -> GeometricMap:
    """Map about the middle of the image to the middle of the result."""
    target = size
    if expand:
        width, height = np.abs(linear[:2, :2]) @ (size[1], size[0])
        target = (math.ceil(height - 1e-6), math.ceil(width - 1e-6))
    matrix = translation(target[1] / 2, target[0] / 2) @ linear @ translation(-size[1] / 2, -size[0] / 2)
    return GeometricMap(matrix, target, interpolation, fill)
