"""Geometric maps that compose: a pipeline of them is multiplied into one, and the image is sampled once.

Coordinates are continuous, (x, y), with pixel i covering [i, i + 1): resizing is then a pure scaling, cropping a pure
translation, and both compose without half-pixel corrections. Homogeneous 3 × 3 matrices carry source to output
coordinates.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.typing import Array, Floats

__all__ = [
    "REMEMBERED",
    "GeometricMap",
    "Size",
    "inverse",
    "joined",
    "orientation_map",
    "sample",
    "scaling",
    "translation",
]

Size = tuple[int, int]
"""(height, width) in pixels."""

REMEMBERED = 256
"""How many maps, and what follows from them, are kept for the next image of the same size."""

_TOLERANCE = 1e-6  # pixels; edges nearer than this to a pixel's edge lie on it
_MAX_WASTE = 2.0  # resize a whole image to show a part of it while that costs at most this much more
_SAMPLING_AVERAGES = 0.75  # down to this scale bilinear sampling itself averages enough


@dataclass(frozen=True, eq=False)
class GeometricMap:
    """Where each source pixel goes.

    Parameters
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Source to output coordinates.
    size : (height, width)
        The output's size.
    interpolation : str or None
        None where pixels only move (crop, flip, pad): such a map follows its neighbours' choice.
    fill : float or None
        Value of output pixels that no source pixel reaches; None where there are none.
    clips : tuple of (matrix, size)
        Intermediate images, as maps from the source: what they cut off must not come back.
    """

    matrix: Floats
    size: Size
    interpolation: str | None = None
    fill: float | None = None
    clips: tuple[tuple[Floats, Size], ...] = ()

    def fuses_with(self, other: GeometricMap) -> bool:
        """Whether one sampling can do both: their interpolations and fill values agree."""
        return all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in ((self.interpolation, other.interpolation), (self.fill, other.fill))
        )

    def then(self, other: GeometricMap) -> GeometricMap:
        """Return the map that does this one, then ``other``."""
        return GeometricMap(
            other.matrix @ self.matrix,
            other.size,
            self.interpolation if other.interpolation is None else other.interpolation,
            self.fill if other.fill is None else other.fill,
            (*self.clips, (self.matrix, self.size), *((matrix @ self.matrix, size) for matrix, size in other.clips)),
        )

    def after(self, matrix: Floats) -> GeometricMap:
        """Return this map for a source whose coordinates ``matrix`` brings to those it was made for."""
        clips = tuple((clip @ matrix, size) for clip, size in self.clips)
        return replace(self, matrix=self.matrix @ matrix, clips=clips)

    def shrinkage(self) -> tuple[float, float]:
        """(x, y): how many output pixels one source pixel becomes, along the source's axes, at the centre."""
        (a, b, _), (c, d, _), (g, h, _) = self.matrix.tolist()
        depth = 1.0
        if g or h:  # the derivative of a quotient, where the output's centre comes from
            ((x, y),) = _project(inverse(self.matrix), [(self.size[1] / 2, self.size[0] / 2)])
            depth = float(self.matrix[2] @ (x, y, 1.0))
            a, b = a - g * self.size[1] / 2, b - h * self.size[1] / 2
            c, d = c - g * self.size[0] / 2, d - h * self.size[0] / 2
        return math.hypot(a, c) / abs(depth), math.hypot(b, d) / abs(depth)


@functools.lru_cache(maxsize=REMEMBERED)
def joined(first: GeometricMap, second: GeometricMap) -> GeometricMap:
    """Return ``first.then(second)``, the same object for the same two objects."""
    return first.then(second)


def scaling(x: float, y: float) -> Floats:
    """Matrix that multiplies x and y."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def translation(x: float, y: float) -> Floats:
    """Matrix that adds to x and y."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def inverse(matrix: Floats) -> Floats:
    """Inverse of a 3 × 3 matrix by cofactors, several times faster than LAPACK at this size."""
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
    return np.array(adjugate) / determinant


@functools.lru_cache(maxsize=REMEMBERED)
def orientation_map(orientation: int, height: int, width: int) -> GeometricMap:
    """EXIF orientation (1 to 8) as a map from the stored image to the one that is meant to be seen."""
    matrix = np.eye(3)
    if orientation > 4:
        matrix, height, width = matrix[[1, 0, 2]], width, height
    if orientation in (3, 4, 7, 8):
        matrix = translation(0, height) @ scaling(1, -1) @ matrix
    if orientation in (2, 3, 6, 7):
        matrix = translation(width, 0) @ scaling(-1, 1) @ matrix
    return GeometricMap(matrix, (height, width))


def sample(image: Array, geometry: GeometricMap) -> Array:
    """Apply a map to an image, averaging where it shrinks so that nothing aliases.

    Maps that only scale, move, mirror or turn by right angles, and meet pixel edges, are done exactly as
    :func:`~sparkopt.images.functional.resize` and slicing do them; others by one bilinear (or the chosen) sampling,
    after averaging over areas if they shrink.
    """
    exact = _sample_aligned(image, geometry)
    output = _sample_freely(image, geometry) if exact is None else exact
    return _cut_off(output, geometry, image.shape[:2])


@dataclass(frozen=True)
class _Span:
    """One axis of an aligned map: source pixels [0, 1) go to ``placed``, of which ``target`` lies in the output."""

    source: tuple[int, int]
    placed: tuple[int, int]
    target: tuple[int, int]

    @property
    def length(self) -> int:
        return self.placed[1] - self.placed[0]

    @property
    def waste(self) -> float:
        return self.length / (self.target[1] - self.target[0])


@dataclass(frozen=True)
class _Alignment:
    """How a map along the axes is done by resizing, turning and pasting."""

    transposed: bool
    upside_down: bool
    mirrored: bool
    across: _Span
    down: _Span


def _sample_aligned(image: Array, geometry: GeometricMap) -> Array | None:
    """Resize, slice, mirror and paste; None if the map is not axis-aligned or misses the pixel grid."""
    found = _alignment(geometry, image.shape[:2])
    if found is None:
        return None
    height, width = (found.across, found.down) if found.transposed else (found.down, found.across)
    part = image[slice(*height.source), slice(*width.source)]
    patch = F.resize(part, height.length, width.length, geometry.interpolation or "linear")
    return _paste(_turn(patch, found), found.across, found.down, geometry)


@functools.lru_cache(maxsize=REMEMBERED)
def _alignment(geometry: GeometricMap, size: Size) -> _Alignment | None:
    (a, b, x), (c, d, y), (g, h, i) = geometry.matrix.tolist()
    transposed = abs(a) < _TOLERANCE and abs(d) < _TOLERANCE
    if (not transposed and max(abs(b), abs(c)) > _TOLERANCE) or max(abs(g), abs(h), abs(i - 1)) > _TOLERANCE:
        return None
    lengths = size if transposed else size[::-1]
    across = _span(b if transposed else a, x, lengths[0], geometry.size[1])
    down = _span(c if transposed else d, y, lengths[1], geometry.size[0])
    if across is None or down is None or across.waste * down.waste > _MAX_WASTE:
        return None
    return _Alignment(transposed, c + d < 0, a + b < 0, across, down)


def _span(scale: float, offset: float, length: int, limit: int) -> _Span | None:
    """Place an axis of ``length`` pixels on one of ``limit``; None if it misses the pixel grid or the output."""
    start, stop = sorted((offset, offset + scale * length))
    low, high = max(start, 0.0), min(stop, float(limit))
    if high - low < 1 - _TOLERANCE or not _whole(low, high):
        return None
    first, last = sorted(((low - offset) / scale, (high - offset) / scale))
    target = round(low), round(high)
    if _whole(first, last):
        return _Span((round(first), round(last)), target, target)
    return _Span((0, length), (round(start), round(stop)), target) if _whole(start, stop) else None


def _whole(first: float, second: float) -> bool:
    return abs(first - round(first)) < _TOLERANCE and abs(second - round(second)) < _TOLERANCE


def _turn(patch: Array, alignment: _Alignment) -> Array:
    if alignment.transposed:
        patch = patch.swapaxes(0, 1)
    if not (alignment.upside_down or alignment.mirrored):
        return patch
    code = -1 if alignment.upside_down and alignment.mirrored else (0 if alignment.upside_down else 1)
    return cv2.flip(np.ascontiguousarray(patch), code).reshape(patch.shape)


def _paste(patch: Array, across: _Span, down: _Span, geometry: GeometricMap) -> Array:
    """Cut a patch to what lies in the output, and surround it with the fill value."""
    (left, right), (top, bottom) = across.target, down.target
    patch = patch[top - down.placed[0] : bottom - down.placed[0], left - across.placed[0] : right - across.placed[0]]
    if patch.shape[:2] == geometry.size:
        return patch
    output = np.full((*geometry.size, patch.shape[2]), geometry.fill or 0, patch.dtype)
    output[top:bottom, left:right] = patch
    return output


def _sample_freely(image: Array, geometry: GeometricMap) -> Array:
    height, width = geometry.size
    image, matrix = _shrink(image, geometry)
    back = inverse(translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5))
    flags = F.INTERPOLATIONS[geometry.interpolation or "linear"] | cv2.WARP_INVERSE_MAP
    # Inside the image a border only serves pixels with a neighbour beyond it: repeat the edge, as resizing does.
    covered = _inside(inverse(matrix), geometry.size, image.shape[:2])
    border = cv2.BORDER_REPLICATE if covered else cv2.BORDER_CONSTANT
    fill = [geometry.fill or 0.0] * 4
    warp, back = (cv2.warpPerspective, back) if matrix[2, :2].any() else (cv2.warpAffine, back[:2] / back[2, 2])
    image = np.ascontiguousarray(image)
    output = warp(image, back, (width, height), flags=flags, borderMode=border, borderValue=fill)
    return output.reshape(height, width, -1)


def _shrink(image: Array, geometry: GeometricMap) -> tuple[Array, Floats]:
    """Average the part that will be seen down to about the output's resolution; adjust the matrix to it."""
    factors = [min(factor, 1.0) for factor in geometry.shrinkage()]
    if geometry.interpolation == "nearest" or min(factors) > _SAMPLING_AVERAGES:
        return image, geometry.matrix
    seen = _project(inverse(geometry.matrix), _corners(geometry.size))
    spans = []
    for axis, length in enumerate(image.shape[1::-1]):
        positions, margin = [point[axis] for point in seen], 2 / factors[axis]
        low = min(max(math.floor(min(positions) - margin), 0), length - 1)
        high = max(min(math.ceil(max(positions) + margin), length), low + 1)
        spans.append((low, high, max(1, round((high - low) * factors[axis]))))
    (left, right, width), (top, bottom, height) = spans
    small = F.resize(image[top:bottom, left:right], height, width, "area")
    back = translation(left, top) @ scaling((right - left) / width, (bottom - top) / height)
    return small, geometry.matrix @ back


def _cut_off(output: Array, geometry: GeometricMap, source: Size) -> Array:
    """Fill what lay outside an intermediate image: a rotation after a crop must not show what the crop removed."""
    if geometry.fill is None:  # nothing was uncovered
        return output
    for matrix, size in geometry.clips:
        if _inside(matrix, source, size):
            continue
        corners = _project(geometry.matrix @ inverse(matrix), _corners(size))
        shown = _convex_mask(corners, geometry.size)
        if shown is not None:
            filled = np.full(output.shape, geometry.fill, output.dtype)
            output = cv2.copyTo(np.ascontiguousarray(output), shown, filled).reshape(output.shape)
    return output


def _convex_mask(corners: list[tuple[float, float]], size: Size) -> Array | None:
    """1 where a pixel's centre lies inside a convex polygon, else 0; None if all of them do."""
    x, y = np.arange(size[1], dtype=np.float32) + 0.5, np.arange(size[0], dtype=np.float32)[:, np.newaxis] + 0.5
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    winding = math.copysign(1.0, sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges))
    inside = None
    for (x0, y0), (x1, y1) in edges:
        along, across = winding * (x1 - x0), winding * (y1 - y0)
        constant = across * x0 - along * y0
        if min(along * v - across * u + constant for u, v in _corners(size)) > -_TOLERANCE:
            continue  # the whole output is on the inner side of this edge
        inner = (along * y + constant) >= across * x
        inside = inner if inside is None else inside & inner
    return None if inside is None else inside.view(np.uint8)


def _inside(matrix: Floats, size: Size, canvas: Size) -> bool:
    """Whether ``matrix`` brings the whole of an image of ``size`` into a canvas."""
    height, width = canvas
    return all(
        -_TOLERANCE < x < width + _TOLERANCE and -_TOLERANCE < y < height + _TOLERANCE
        for x, y in _project(matrix, _corners(size))
    )


def _corners(size: Size) -> list[tuple[float, float]]:
    height, width = size
    return [(0, 0), (width, 0), (width, height), (0, height)]


def _project(matrix: Floats, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Map a few points: at this size plain Python is faster than NumPy."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    depths = [g * x + h * y + i for x, y in points]
    return [
        ((a * x + b * y + c) / depth, (d * x + e * y + f) / depth)
        for (x, y), depth in zip(points, depths, strict=True)
    ]
