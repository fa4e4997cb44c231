"""Geometric maps: those of consecutive steps are multiplied into one, so that the image is sampled once.

Coordinates are continuous, (x, y), and pixel i covers [i, i + 1). Resizing is then a pure scaling, cropping a pure
translation, and both compose without half-pixel corrections. Homogeneous 3 × 3 matrices map source to output
coordinates.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images.parameters import Fill
from sparkopt.io.image_header import MAX_PIXELS
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = [
    "REMEMBERED",
    "TOLERANCE",
    "GeometricMap",
    "Size",
    "check_result",
    "corners",
    "has_horizon",
    "inverse",
    "is_inside",
    "joined",
    "mirrored",
    "orientation_map",
    "project",
    "scaling",
    "translation",
    "unchanged",
]

Size = tuple[int, int]
"""(height, width) in pixels."""

REMEMBERED = 256
"""Size of the caches of maps and of what is derived from them, for further images of the same size."""

TOLERANCE = 1e-6
"""In pixels: an edge nearer than this to a pixel's edge counts as equal to it."""


@dataclass(frozen=True, eq=False)
class GeometricMap:
    """A map from source to output pixels.

    Parameters
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Source to output coordinates.
    size : (height, width)
        Size of the output.
    interpolation : str or None
        None for maps that only move pixels (crop, flip): they take the interpolation of neighbouring maps.
    fill : float, tuple of float, or None
        Value of output pixels outside the source; None where there are none.
    clips : tuple of (matrix, size)
        Intermediate images, as maps from the source: pixels that they cut off stay cut off.
    """

    matrix: Floats
    size: Size
    interpolation: str | None = None
    fill: Fill | None = None
    clips: tuple[tuple[Floats, Size], ...] = ()

    def fuses_with(self, other: GeometricMap) -> bool:
        """Whether one sampling can do both: interpolation and fill value agree."""
        return all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in ((self.interpolation, other.interpolation), (self.fill, other.fill))
        )

    def then(self, other: GeometricMap) -> GeometricMap:
        """Return this map followed by ``other``."""
        return GeometricMap(
            other.matrix @ self.matrix,
            other.size,
            self.interpolation if other.interpolation is None else other.interpolation,
            self.fill if other.fill is None else other.fill,
            (*self.clips, (self.matrix, self.size), *((matrix @ self.matrix, size) for matrix, size in other.clips)),
        )

    def after(self, matrix: Floats) -> GeometricMap:
        """Return this map preceded by ``matrix``: for a source that was resized, say."""
        clips = tuple((clip @ matrix, size) for clip, size in self.clips)
        return replace(self, matrix=self.matrix @ matrix, clips=clips)

    def shrinkage(self) -> tuple[float, float]:
        """Return the scales (x, y) along the source's axes at the centre: output pixels per source pixel."""
        (a, b, _), (c, d, _), (g, h, _) = self.matrix.tolist()
        depth = 1.0
        if g or h:  # the derivative of a quotient, at the source of the output's centre
            ((x, y),) = project(inverse(self.matrix), [(self.size[1] / 2, self.size[0] / 2)])
            depth = float(self.matrix[2] @ (x, y, 1.0))
            a, b = a - g * self.size[1] / 2, b - h * self.size[1] / 2
            c, d = c - g * self.size[0] / 2, d - h * self.size[0] / 2
        return math.hypot(a, c) / abs(depth), math.hypot(b, d) / abs(depth)


@functools.lru_cache(maxsize=REMEMBERED)
def joined(first: GeometricMap, second: GeometricMap) -> GeometricMap:
    """Return ``first.then(second)``: the same object for the same arguments."""
    return first.then(second)


def check_result(size: Size, count: int = 1) -> None:
    """Raise DataError where a step would make more pixels of an image than a pipeline may hold."""
    height, width = size
    if count * height * width > MAX_PIXELS:
        several = "" if count == 1 else f"{count} images of "
        raise DataError(
            f"too large: the pipeline would make {several}{height} x {width} pixels of this image, more than "
            f"{MAX_PIXELS}"
        )


def scaling(x: float, y: float) -> Floats:
    """Return the matrix that multiplies x and y."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def translation(x: float, y: float) -> Floats:
    """Return the matrix that adds to x and y."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a 3 × 3 matrix, by cofactors: several times faster than LAPACK at this size."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    determinant = a * first + b * second + c * third
    if determinant == 0:
        raise ParameterError("the geometric transform cannot be inverted: it maps the image to a line or a point.")
    adjugate = [
        [first, c * h - b * i, b * f - c * e],
        [second, a * i - c * g, c * d - a * f],
        [third, b * g - a * h, a * e - b * d],
    ]
    inverted: Floats = np.array(adjugate) / determinant
    return inverted


@functools.lru_cache(maxsize=REMEMBERED)
def unchanged(size: Size) -> GeometricMap:
    """Return the identity for images of ``size``: the same object for the same size."""
    return GeometricMap(np.eye(3), size)


@functools.lru_cache(maxsize=REMEMBERED)
def mirrored(size: Size, axis: int) -> GeometricMap:
    """Return the map that exchanges left and right (axis 1) or top and bottom (axis 0)."""
    matrix = translation(size[1], 0) @ scaling(-1, 1) if axis else translation(0, size[0]) @ scaling(1, -1)
    return GeometricMap(matrix, size)


@functools.lru_cache(maxsize=REMEMBERED)
def orientation_map(orientation: int, height: int, width: int) -> GeometricMap:
    """Return the map from the stored to the upright image for an EXIF orientation (1 to 8)."""
    matrix = np.eye(3)
    if orientation > 4:
        matrix, height, width = matrix[[1, 0, 2]], width, height
    if orientation in (3, 4, 7, 8):
        matrix = translation(0, height) @ scaling(1, -1) @ matrix
    if orientation in (2, 3, 6, 7):
        matrix = translation(width, 0) @ scaling(-1, 1) @ matrix
    return GeometricMap(matrix, (height, width))


def is_inside(matrix: Floats, size: Size, canvas: Size) -> bool:
    """Whether ``matrix`` maps all of an image of ``size`` into a canvas."""
    height, width = canvas
    return not has_horizon(matrix, size) and all(
        -TOLERANCE < x < width + TOLERANCE and -TOLERANCE < y < height + TOLERANCE
        for x, y in project(matrix, corners(size))
    )


def has_horizon(matrix: Floats, size: Size) -> bool:
    """Whether a perspective maps a part of an image of ``size`` to infinity."""
    g, h, i = matrix[2].tolist()
    depths = [g * x + h * y + i for x, y in corners(size)]
    return bool(min(depths) <= 0 <= max(depths))


def corners(size: Size) -> list[tuple[float, float]]:
    """Return the corners (x, y) of an image."""
    height, width = size
    return [(0, 0), (width, 0), (width, height), (0, height)]


def project(matrix: Floats, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Map a few points, in plain Python, which is faster than NumPy at this size."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    depths = [g * x + h * y + i for x, y in points]
    return [
        ((a * x + b * y + c) / depth, (d * x + e * y + f) / depth)
        for (x, y), depth in zip(points, depths, strict=True)
    ]
