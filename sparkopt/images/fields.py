"""Distortions that no matrix describes: each pixel of the result says where it comes from."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.images import functional as F
from sparkopt.images.geometry import Size
from sparkopt.images.opencl import call
from sparkopt.images.parameters import FILL, Fill, fill_values
from sparkopt.images.pixelwise import SIGMA
from sparkopt.images.resizing import with_channels
from sparkopt.images.sample import Sample
from sparkopt.images.transform import ImageTransform
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = ["ElasticDistortion", "GridDistortion"]

_STEPS = 30  # of the search for a point's new position


@dataclass(frozen=True)
class _FieldTransform(ImageTransform):
    """A step that samples the image along a field of positions."""

    random = True

    @abstractmethod
    def field(self, size: Size, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the (column, row) that each pixel of the result comes from: two float32 arrays of ``size``."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the distorted image."""
        return self._sampled(image, self.field(image.shape[:2], rng))

    def apply_to(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the distorted image, its mask by "nearest", and points where the distortion moves them."""
        size, mask = sample.pixels.shape[:2], sample.mask
        field = self.field(size, rng)
        if mask is not None:
            border = [*fill_values(sample.mask_fill, 1 if mask.ndim == 2 else mask.shape[2]), 0, 0, 0][:4]
            remapped = cv2.remap(mask, *field, cv2.INTER_NEAREST, borderMode=self._border(), borderValue=border)
            mask = remapped.reshape(mask.shape)
        moved = sample.with_points(lambda points: _forward(points, field), size)
        return moved.changed(image=self._sampled(sample.pixels, field), mask=mask)

    def _sampled(self, image: Array, field: tuple[Array, Array]) -> Array:
        how: str = self.interpolation  # type: ignore[attr-defined]  # a field of each subclass
        fill: Fill = self.fill  # type: ignore[attr-defined]
        value = [*fill_values(fill, image.shape[2]), 0, 0, 0][:4]
        source = np.ascontiguousarray(image)
        return with_channels(
            call(cv2.remap, source, *field, F.INTERPOLATIONS[how], borderMode=self._border(), borderValue=value)
        )

    def _border(self) -> int:
        return F.PAD_MODES[self.mode]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ElasticDistortion(_FieldTransform):
    """Move pixels at random, neighbouring ones alike.

    Parameters
    ----------
    alpha : float, default 50
        How far: the displacements are ``alpha`` times smoothed noise between −1 and 1, in pixels.
    sigma : float, default 5
        Standard deviation of the smoothing, in pixels.
    mode : {"reflect", "constant", "edge", "symmetric"}, default "reflect"
        What is outside the image; see :class:`~sparkopt.images.Pad`.
    fill, interpolation
        See :class:`~sparkopt.images.Pad` and :func:`~sparkopt.images.functional.resize`.

    References
    ----------
    Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document
    analysis", ICDAR 2003.
    """

    alpha: float = 50.0
    sigma: float = 5.0
    mode: str = "reflect"
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "alpha": Interval(0, 2**16),
        "sigma": SIGMA,
        "mode": OneOf(F.PAD_MODES),
        "fill": FILL,
        "interpolation": OneOf(F.INTERPOLATIONS),
    }

    def field(self, size: Size, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw the displacements."""
        noise = rng.random((*size, 2), np.float32) * 2 - 1
        moves = cv2.GaussianBlur(noise, (0, 0), self.sigma) * np.float32(self.alpha)
        rows, columns = np.indices(size, np.float32)
        return columns + moves[..., 0], rows + moves[..., 1]


@dataclass(frozen=True)
class GridDistortion(_FieldTransform):
    """Stretch and squeeze the columns and the rows of a grid at random.

    Parameters
    ----------
    cells : int, default 5
        Cells along each side.
    limit : float, default 0.3
        Before all are scaled to fill the image, a cell's width is 1 ± up to ``limit``.
    mode, fill, interpolation
        As of :class:`ElasticDistortion`.
    """

    cells: int = 5
    limit: float = 0.3
    mode: str = "reflect"
    fill: Fill = 0.0
    interpolation: str = "linear"

    domains: ClassVar = {
        "cells": Interval(1, 1000, whole=True),
        "limit": Interval(0, 1, closed="left"),
        "mode": OneOf(F.PAD_MODES),
        "fill": FILL,
        "interpolation": OneOf(F.INTERPOLATIONS),
    }

    def field(self, size: Size, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw the widths."""
        axes = []
        for length in size[::-1]:
            widths = 1 + (2 * rng.random(self.cells) - 1) * self.limit
            edges = np.concatenate([[0], np.cumsum(widths)]) / widths.sum() * length
            centres = np.arange(length) + 0.5
            axes.append(np.interp(centres, np.linspace(0, length, self.cells + 1), edges).astype(np.float32) - 0.5)
        columns, rows = np.meshgrid(*axes)
        return np.ascontiguousarray(columns), np.ascontiguousarray(rows)


def _forward(points: Floats, field: tuple[Array, Array]) -> Floats:
    """Return where points of the source are in the result: the inverse of the field, by a fixed-point iteration."""
    columns, rows = field
    height, width = columns.shape
    target = points - 0.5
    found = np.nan_to_num(target)
    for _ in range(_STEPS):
        at = np.clip(found, 0, (width - 1, height - 1)).astype(np.float32)
        x, y = (at[np.newaxis, :, axis] for axis in (0, 1))
        source = np.stack([cv2.remap(values, x, y, cv2.INTER_LINEAR)[0] for values in (columns, rows)], axis=1)
        found = found + 0.7 * (target - (source + (found - at)))
    return found + 0.5
