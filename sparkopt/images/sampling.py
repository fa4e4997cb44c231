"""Sampling of an image by a geometric map: once, without aliasing, by the cheapest method that is exact.

Everything that depends on the map and the image's size alone is cached for further images.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from sparkopt.images import functional as F
from sparkopt.images.geometry import (
    REMEMBERED,
    TOLERANCE,
    GeometricMap,
    Size,
    corners,
    has_horizon,
    inverse,
    is_inside,
    project,
    scaling,
    translation,
)
from sparkopt.images.opencl import call
from sparkopt.images.parameters import Fill, fill_values, filled
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["sample", "sample_labels"]

_MAX_WASTE = 2.0  # resize a whole image for a part of it up to this ratio of areas
_SLOWER_WITH_FOUR = ("nearest", "cubic", "lanczos")  # interpolations that a fourth channel does not speed up
_SAMPLING_AVERAGES = 0.75  # down to this scale bilinear sampling averages enough
_REACH = 4  # pixels that the widest interpolation, "lanczos", takes on each side
_MARGIN = _REACH + 1.0  # pixels of the output kept around the visible part for it
_WARPS = {(2, 3): cv2.warpAffine, (3, 3): cv2.warpPerspective}
_SMALL = 2**19  # pixels
_Edge = tuple[float, float, float]


def sample(image: Array, geometry: GeometricMap) -> Array:
    """Apply a map to an image, averaging where it shrinks to avoid aliasing.

    Maps that only scale, translate, mirror or rotate by right angles, and meet pixel edges, equal
    :func:`~sparkopt.images.functional.resize` and slicing exactly. Others are sampled once with the map's
    interpolation, after averaging over areas if they shrink.
    """
    aligned = _alignment(geometry, image.shape[:2])
    if aligned is None:
        output = _sample_freely(image, geometry)
    else:
        output = _sample_aligned(image, geometry, aligned, geometry.interpolation or "linear", geometry.fill)
    return _cut_off(output, geometry, image.shape[:2])


def sample_labels(mask: Array, geometry: GeometricMap, fill: Fill) -> Array:
    """Apply the map of an image to its labels, of shape (height, width, layers), by "nearest"."""
    aligned = _alignment(geometry, mask.shape[:2])
    if aligned is None:
        outside = None if geometry.fill is None else fill
        return sample(mask, replace(geometry, interpolation="nearest", fill=outside))
    return _cut_off(_sample_aligned(mask, geometry, aligned, "nearest", fill), geometry, mask.shape[:2], fill)


class _Span(NamedTuple):
    """One axis of an aligned map: the ``source`` pixels map to ``placed``, of which ``target`` is in the output."""

    source: tuple[int, int]
    placed: tuple[int, int]
    target: tuple[int, int]

    @property
    def length(self) -> int:
        return self.placed[1] - self.placed[0]

    @property
    def waste(self) -> float:
        return self.length / (self.target[1] - self.target[0])


class _Alignment(NamedTuple):
    """An axis-aligned map as resizing, transposing, mirroring and pasting."""

    transposed: bool
    upside_down: bool
    mirrored: bool
    across: _Span
    down: _Span


def _sample_aligned(
    image: Array, geometry: GeometricMap, aligned: _Alignment, interpolation: str, fill: Fill | None
) -> Array:
    """Resize, slice, mirror and paste."""
    height, width = (aligned.across, aligned.down) if aligned.transposed else (aligned.down, aligned.across)
    part, size = image[slice(*height.source), slice(*width.source)], (height.length, width.length)
    if interpolation == "nearest" and part.shape[:2] != size and _are_small_labels(part):
        patch = _picked(part, size, aligned)
    else:
        patch = _turn(F.resize(part, *size, interpolation), aligned)
    return _paste(patch, aligned.across, aligned.down, geometry.size, fill)


def _are_small_labels(image: Array) -> bool:
    return image.dtype == np.uint8 and image.shape[2] == 1 and image.size <= _SMALL


def _picked(image: Array, size: Size, alignment: _Alignment) -> Array:
    """Resize by "nearest" and turn: rows are copied whole, and so are columns, as rows of the transposed image.

    OpenCV, pixel by pixel, takes 1.3 to 2.5 times as long up to ``_SMALL`` pixels, which stay in the cache.
    """
    flips = alignment.upside_down, alignment.mirrored
    rows, columns = (
        _nearest(length, count, flipped)
        for length, count, flipped in zip(image.shape, size, flips[::-1] if alignment.transposed else flips)  # noqa: B905
    )
    picked = cv2.transpose(image[:, :, 0].take(rows, 0)).take(columns, 0)
    return (picked if alignment.transposed else cv2.transpose(picked))[:, :, np.newaxis]


@functools.lru_cache(maxsize=REMEMBERED)
def _nearest(length: int, count: int, flipped: bool) -> Array:
    """Return which pixels of an axis of ``length`` "nearest" takes for ``count``: what it makes of their numbers."""
    numbers = F.resize(np.arange(length, dtype=np.int32).reshape(1, -1, 1), 1, count, "nearest").ravel()
    return numbers[::-1].astype(np.intp) if flipped else numbers.astype(np.intp)


@functools.lru_cache(maxsize=REMEMBERED)
def _alignment(geometry: GeometricMap, size: Size) -> _Alignment | None:
    """Return what an axis-aligned map does; None for others, and for those that miss the pixel grid."""
    (a, b, x), (c, d, y), (g, h, i) = geometry.matrix.tolist()
    transposed = abs(a) < TOLERANCE and abs(d) < TOLERANCE
    if (not transposed and max(abs(b), abs(c)) > TOLERANCE) or max(abs(g), abs(h), abs(i - 1)) > TOLERANCE:
        return None
    lengths = size if transposed else size[::-1]
    across = _span(b if transposed else a, x, lengths[0], geometry.size[1])
    down = _span(c if transposed else d, y, lengths[1], geometry.size[0])
    if across is None or down is None or across.waste * down.waste > _MAX_WASTE:
        return None
    return _Alignment(transposed, c + d < 0, a + b < 0, across, down)


def _span(scale: float, offset: float, length: int, limit: int) -> _Span | None:
    """Map an axis of ``length`` pixels to one of ``limit``; None if it misses the pixel grid or the output."""
    start, stop = sorted((offset, offset + scale * length))
    low, high = max(start, 0.0), min(stop, float(limit))
    if high - low < 1 - TOLERANCE or not _whole(low, high):
        return None
    first, last = sorted(((low - offset) / scale, (high - offset) / scale))
    target = round(low), round(high)
    if _whole(first, last):
        return _Span((round(first), round(last)), target, target)
    return _Span((0, length), (round(start), round(stop)), target) if _whole(start, stop) else None


def _whole(first: float, second: float) -> bool:
    return abs(first - round(first)) < TOLERANCE and abs(second - round(second)) < TOLERANCE


def _turn(patch: Array, alignment: _Alignment) -> Array:
    if alignment.transposed:
        patch = patch.swapaxes(0, 1)
    if not (alignment.upside_down or alignment.mirrored):
        return patch
    code = -1 if alignment.upside_down and alignment.mirrored else (0 if alignment.upside_down else 1)
    return cv2.flip(np.ascontiguousarray(patch), code).reshape(patch.shape)


def _paste(patch: Array, across: _Span, down: _Span, size: Size, fill: Fill | None) -> Array:
    """Cut a patch to the output, and surround it with the fill value."""
    (left, right), (top, bottom) = across.target, down.target
    patch = patch[top - down.placed[0] : bottom - down.placed[0], left - across.placed[0] : right - across.placed[0]]
    if patch.shape[:2] == size:
        return patch
    output = filled((*size, patch.shape[2]), fill, patch.dtype)
    output[top:bottom, left:right] = patch
    return output


@dataclass(frozen=True, eq=False)
class _Warp:
    """Any other map: a part of the image, averaged to a size, then warped once.

    Parameters
    ----------
    part : (slice, slice)
        Rows and columns visible in the output, with a margin.
    averaged : Size
        Size to which the part is averaged first; its own size where the map does not shrink it.
    back : ndarray of shape (2, 3) or (3, 3)
        Matrix from the centres of the output's pixels to those of the averaged part: affine or a perspective.
    border : int
        OpenCV's border mode.
    """

    part: tuple[slice, slice]
    averaged: Size
    back: Floats
    border: int


def _sample_freely(image: Array, geometry: GeometricMap) -> Array:
    plan = _warp(geometry, image.shape[:2])
    values = fill_values(geometry.fill or 0.0, image.shape[2])
    part = F.resize(image[plan.part], *plan.averaged, "area")
    # OpenCV reads pixels of four values, which are aligned, twice as fast as pixels of three.
    widened = part.shape[2] == 3 and part.dtype == np.uint8 and geometry.interpolation not in _SLOWER_WITH_FOUR
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA) if widened else np.ascontiguousarray(part)
    flags = F.INTERPOLATIONS[geometry.interpolation or "linear"] | cv2.WARP_INVERSE_MAP
    warp, (height, width), fill = _WARPS[plan.back.shape], geometry.size, [*values, 0.0, 0.0, 0.0][:4]
    output = call(warp, part, plan.back, (width, height), flags=flags, borderMode=plan.border, borderValue=fill)
    return cv2.cvtColor(output, cv2.COLOR_RGBA2RGB) if widened else output.reshape(height, width, -1)


@functools.lru_cache(maxsize=REMEMBERED)
def _warp(geometry: GeometricMap, size: Size) -> _Warp:
    """Average the visible part down to about the output's resolution, and adjust the matrix."""
    factors = [min(factor, 1.0) for factor in geometry.shrinkage()]
    if geometry.interpolation == "nearest" or min(factors) > _SAMPLING_AVERAGES:
        factors = [1.0, 1.0]
    back = inverse(geometry.matrix)
    if has_horizon(back, geometry.size):  # points at any distance and scale are visible
        seen, factors = corners(size), [1.0, 1.0]
    else:
        seen = project(back, corners(geometry.size))
    spans = []
    for axis, length in enumerate(size[::-1]):
        positions, margin = [point[axis] for point in seen], _MARGIN / factors[axis]
        low = min(max(math.floor(min(positions) - margin), 0), length - 1)
        high = max(min(math.ceil(max(positions) + margin), length), low + 1)
        spans.append((low, high, max(1, round((high - low) * factors[axis]))))
    (left, right, width), (top, bottom, height) = spans
    matrix = geometry.matrix @ translation(left, top) @ scaling((right - left) / width, (bottom - top) / height)
    back = inverse(translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5))
    if not matrix[2, :2].any():
        back = back[:2] / back[2, 2]
    border = _border(inverse(matrix), geometry.size, (height, width))
    return _Warp((slice(top, bottom), slice(left, right)), (height, width), back, border)


def _border(back: Floats, size: Size, source: Size) -> int:
    """Return OpenCV's border mode; ``back`` maps the output's coordinates to the source's."""
    if not is_inside(back, size, source):
        return cv2.BORDER_CONSTANT
    # Inside the image only pixels next to the edge read the border: repeat the edge, as resizing does. Where no pixel
    # reads it, a constant border costs a third less.
    inner = (source[0] - 2 * _REACH, source[1] - 2 * _REACH)
    well_inside = is_inside(translation(-_REACH, -_REACH) @ back, size, inner)
    return cv2.BORDER_CONSTANT if well_inside else cv2.BORDER_REPLICATE


def _cut_off(output: Array, geometry: GeometricMap, source: Size, fill: Fill | None = None) -> Array:
    """Fill pixels outside an intermediate image: a rotation after a crop must not show what the crop removed."""
    if geometry.fill is None:  # all of the output is inside the source
        return output
    for edges in _cuts(geometry, source):
        ground = filled(output.shape, geometry.fill if fill is None else fill, output.dtype)
        shown = _mask(edges, geometry.size)
        output = cv2.copyTo(np.ascontiguousarray(output), shown, ground).reshape(output.shape)
    return output


@functools.lru_cache(maxsize=REMEMBERED)
def _cuts(geometry: GeometricMap, source: Size) -> tuple[tuple[_Edge, ...], ...]:
    """Return the edges of each intermediate image that intersect the output."""
    found = []
    for matrix, size in geometry.clips:
        if not is_inside(matrix, source, size):
            found.append(_edges(project(geometry.matrix @ inverse(matrix), corners(size)), geometry.size))
    return tuple(edges for edges in found if edges)


def _edges(polygon: list[tuple[float, float]], size: Size) -> tuple[_Edge, ...]:
    """Return (a, b, c) of each edge of a convex polygon that intersects a canvas: a y + c ≥ b x inside it."""
    pairs = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    winding = math.copysign(1.0, sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs))
    found = []
    for (x0, y0), (x1, y1) in pairs:
        along, across = winding * (x1 - x0), winding * (y1 - y0)
        constant = across * x0 - along * y0
        if min(along * y - across * x + constant for x, y in corners(size)) <= -TOLERANCE:
            found.append((along, across, constant))
    return tuple(found)


def _mask(edges: tuple[_Edge, ...], size: Size) -> Array:
    """Return 1 where a pixel's centre is on the inner side of all edges, else 0."""
    x, y = np.arange(size[1], dtype=np.float32) + 0.5, np.arange(size[0], dtype=np.float32)[:, np.newaxis] + 0.5
    inside = [(along * y + constant) >= across * x for along, across, constant in edges]
    return functools.reduce(np.logical_and, inside).view(np.uint8)
