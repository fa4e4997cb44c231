"""Other geometric transforms: rotation, affine maps, perspective.

Angles are in degrees, counter-clockwise. ``fill`` is the value of pixels outside the image. ``interpolation`` between
pixels is "nearest", "linear" or "area", "cubic" or "lanczos", after averaging over areas where the map shrinks.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.images.geometry import GeometricMap, Size, scaling, translation
from sparkopt.images.parameters import FILL, Fill, Numbers, Range, checked, shown
from sparkopt.images.transform import GeometricTransform
from sparkopt.typing import Floats
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = [
    "Affine",
    "Perspective",
    "RandomAffine",
    "RandomPerspective",
    "RandomRotation",
    "Rotate",
    "Shear",
    "Translate",
]

_NUMBER = Interval()
_SCALE = Interval(2**-16, 2**16)
_SHEAR = Interval(-90, 90, closed="neither")
_INTERPOLATION = OneOf(F.INTERPOLATIONS)
_SHARES = "it is fractions of the width and the height, and Translate(x, y) takes pixels"


@dataclass(frozen=True)
class Rotate(GeometricTransform):
    """Rotate by ``angle`` degrees about the centre; ``expand`` enlarges the image to hold all of the result."""

    angle: float
    expand: bool = False
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "angle": _NUMBER,
        "expand": OneOf((True, False)),
        "fill": FILL,
        "interpolation": _INTERPOLATION,
    }

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Rotate about the centre."""
        return _centered(size, _rotation(self.angle), self.expand, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomRotation(GeometricTransform):
    """Rotate by an angle drawn uniformly from ``degrees`` = (low, high); one number n stands for (−n, n)."""

    degrees: float | tuple[float, float]
    expand: bool = False
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "degrees": Range(_NUMBER, symmetric=True),
        "expand": OneOf((True, False)),
        "fill": FILL,
        "interpolation": _INTERPOLATION,
    }
    random = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Rotate about the centre."""
        return Rotate(rng.uniform(*_pair(self.degrees)), self.expand, self.fill, self.interpolation).map(size, rng)


@dataclass(frozen=True)
class Affine(GeometricTransform):
    """Shear, scale, rotate about the centre, then translate.

    Parameters
    ----------
    angle : float, default 0
        Degrees, counter-clockwise.
    translate : (float, float), default (0, 0)
        Translation along x and y, as fractions of the width and the height, -1 to 1; :class:`Translate` takes pixels.
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
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "angle": _NUMBER,
        "translate": Numbers(Interval(-1, 1), hint=_SHARES),
        "scale": _SCALE,
        "shear": Numbers(_SHEAR),
        "fill": FILL,
        "interpolation": _INTERPOLATION,
    }

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Map about the centre."""
        x, y = (math.tan(math.radians(angle)) for angle in self.shear)
        linear = (
            _rotation(self.angle)
            @ scaling(self.scale, self.scale)
            @ np.array([[1.0, x, 0.0], [y, 1.0, 0.0], [0.0, 0.0, 1.0]])
        )
        centered = _centered(size, linear, False, self.interpolation, self.fill)
        moved = translation(self.translate[0] * size[1], self.translate[1] * size[0]) @ centered.matrix
        return GeometricMap(moved, size, self.interpolation, self.fill)


@dataclass(frozen=True)
class Shear(GeometricTransform):
    """Move each pixel along x by ``x`` times its distance from the top, along y by ``y`` times that from the left."""

    x: float = 0.0
    y: float = 0.0
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {"x": _NUMBER, "y": _NUMBER, "fill": FILL, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Shear about the upper left corner."""
        matrix = np.array([[1.0, self.x, 0.0], [self.y, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return GeometricMap(matrix, size, self.interpolation, self.fill)


@dataclass(frozen=True)
class Translate(GeometricTransform):
    """Move the image by ``x`` pixels to the right and ``y`` down; what leaves it is lost."""

    x: float = 0.0
    y: float = 0.0
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {"x": _NUMBER, "y": _NUMBER, "fill": FILL, "interpolation": _INTERPOLATION}

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Translate."""
        return GeometricMap(translation(self.x, self.y), size, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomAffine(GeometricTransform):
    """:class:`Affine` with parameters drawn uniformly.

    Parameters
    ----------
    degrees : (float, float), default (0, 0)
        Range of the angle; one number n stands for (−n, n).
    translate : (float, float), default (0, 0)
        Largest translation along x and y in both directions, as fractions of the width and the height, 0 to 1.
    scale : (float, float), default (1, 1)
        Range of the enlargement.
    shear : (float, float), default (0, 0)
        Range of the shear along x, in degrees; one number n stands for (−n, n).
    fill, interpolation
        See the module.
    """

    degrees: float | tuple[float, float] = (0.0, 0.0)
    translate: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float | tuple[float, float] = (0.0, 0.0)
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "degrees": Range(_NUMBER, symmetric=True),
        "translate": Numbers(Interval(0, 1), hint=_SHARES),
        "scale": Range(_SCALE),
        "shear": Range(_SHEAR, symmetric=True),
        "fill": FILL,
        "interpolation": _INTERPOLATION,
    }
    random = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Draw the parameters, and map."""
        fixed = Affine(
            float(rng.uniform(*_pair(self.degrees))),
            (float(rng.uniform(-1, 1)) * self.translate[0], float(rng.uniform(-1, 1)) * self.translate[1]),
            float(rng.uniform(*self.scale)),
            (float(rng.uniform(*_pair(self.shear))), 0.0),
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
        New positions of the upper left, upper right, lower right and lower left corner: (x, y) as fractions of the
        width and the height. ((0, 0), (1, 0), (1, 1), (0, 1)) is the identity.
    fill, interpolation
        See the module.
    """

    corners: tuple[tuple[float, float], ...]
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {"fill": FILL, "interpolation": _INTERPOLATION}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            not isinstance(self.corners, tuple)
            or len(self.corners) != 4
            or any(not isinstance(one, tuple) or len(one) != 2 for one in self.corners)
        ):
            raise ParameterError(
                f"Perspective.corners must be four of (x, y), clockwise from the upper left. "
                f"Got {shown(self.corners)} instead."
            )
        for corner in self.corners:
            for number in corner:
                checked("Perspective.corners", number, _NUMBER)

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Solve for the homography that moves the corners."""
        sides = np.array([size[1], size[0]], np.float32)
        start = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * sides
        target = np.asarray(self.corners, np.float32) * sides
        matrix = np.asarray(cv2.getPerspectiveTransform(start, target), np.float64)
        return GeometricMap(matrix, size, self.interpolation, self.fill)


@dataclass(frozen=True)
class RandomPerspective(GeometricTransform):
    """Move each corner inwards by up to ``distortion`` / 2 of the width and of the height, with probability ``p``."""

    distortion: float = 0.5
    _: KW_ONLY
    p: float = 0.5
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "distortion": Interval(0, 1, closed="left"),
        "fill": FILL,
        "interpolation": _INTERPOLATION,
    }
    random = True

    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Draw the corners, and map."""
        inwards = rng.random((4, 2)) * self.distortion / 2
        corners = np.abs(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - inwards)
        moved = tuple((float(x), float(y)) for x, y in corners)
        return Perspective(moved, self.fill, self.interpolation).map(size, rng)


def _pair(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (-value, value)


def _rotation(angle: float) -> Floats:
    """Return the matrix of a visually counter-clockwise rotation, with y pointing down; exact for right angles."""
    quarter, rest = divmod(angle, 90)
    cosine, sine = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(quarter) % 4):
        cosine, sine = -sine, cosine
    return np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _centered(size: Size, linear: Floats, expand: bool, interpolation: str, fill: Fill) -> GeometricMap:
    """Apply ``linear`` about the centre of the image, and move that to the centre of the result."""
    target = size
    if expand:
        width, height = np.abs(linear[:2, :2]) @ (size[1], size[0])
        target = (math.ceil(height - 1e-6), math.ceil(width - 1e-6))
    matrix = translation(target[1] / 2, target[0] / 2) @ linear @ translation(-size[1] / 2, -size[0] / 2)
    return GeometricMap(matrix, target, interpolation, fill)
