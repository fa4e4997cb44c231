"""Transforms as pure functions: fitted sizes, rotation, affine maps, perspective, noise, cutout.

Each applies the transform of the same name and parameters to one image. :mod:`~sparkopt.images.functional` has the
operations that need no transform. In a pipeline prefer transforms: consecutive ones are sampled once.

Examples
--------
>>> import numpy as np
>>> from sparkopt.images import operations
>>> operations.rotate(np.zeros((40, 60, 3), np.uint8), 90, expand=True).shape
(60, 40, 3)
>>> operations.letterbox(np.zeros((40, 60, 3), np.uint8), 32, 32, fill=255)[0, 0].tolist()
[255, 255, 255]
"""

from __future__ import annotations

import numpy as np

from sparkopt.images.parameters import Fill
from sparkopt.images.pixelwise import Cutout, GaussianNoise
from sparkopt.images.spatial import CenterCrop, Letterbox, ResizeLongerSide, ResizeShorterSide
from sparkopt.images.transform import ImageTransform
from sparkopt.images.warps import Affine, Perspective, Rotate
from sparkopt.typing import Array

__all__ = [
    "affine",
    "center_crop",
    "cutout",
    "gaussian_noise",
    "letterbox",
    "perspective",
    "resize_longer_side",
    "resize_shorter_side",
    "rotate",
]


def resize_shorter_side(image: Array, length: int, interpolation: str = "linear") -> Array:
    """Resize so that the shorter side has ``length`` pixels; proportions are kept."""
    return _applied(ResizeShorterSide(length, interpolation), image)


def resize_longer_side(image: Array, length: int, interpolation: str = "linear") -> Array:
    """Resize so that the longer side has ``length`` pixels; proportions are kept."""
    return _applied(ResizeLongerSide(length, interpolation), image)


def letterbox(image: Array, height: int, width: int, fill: Fill = 0.0, interpolation: str = "linear") -> Array:
    """Resize to fit into ``height`` × ``width``, keeping proportions, centred on a background of value ``fill``."""
    return _applied(Letterbox(height, width, fill, interpolation), image)


def center_crop(image: Array, height: int, width: int) -> Array:
    """Cut out the central ``height`` × ``width`` pixels; DataError if the image is smaller."""
    return _applied(CenterCrop(height, width), image)


def rotate(
    image: Array, angle: float, expand: bool = False, fill: Fill = 0.0, interpolation: str = "linear"
) -> Array:
    """Rotate counter-clockwise by ``angle`` degrees; ``expand`` enlarges the image to hold all of the result."""
    return _applied(Rotate(angle, expand, fill, interpolation), image)


def affine(
    image: Array,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    fill: Fill = 0.0,
    interpolation: str = "linear",
) -> Array:
    """Shear, scale, rotate about the centre, then translate; for units see :class:`~sparkopt.images.warps.Affine`."""
    return _applied(Affine(angle, translate, scale, shear, fill, interpolation), image)


def perspective(
    image: Array, corners: tuple[tuple[float, float], ...], fill: Fill = 0.0, interpolation: str = "linear"
) -> Array:
    """Move the four corners, given as fractions; for their order see :class:`~sparkopt.images.warps.Perspective`."""
    return _applied(Perspective(corners, fill, interpolation), image)


def gaussian_noise(image: Array, std: float, rng: np.random.Generator) -> Array:
    """Add independent normal noise of standard deviation ``std``, as a fraction of full scale (255 or 1)."""
    return GaussianNoise(std).apply(image, rng)


def cutout(image: Array, length: int, rng: np.random.Generator, holes: int = 1, fill: Fill = 0.0) -> Array:
    """Set squares of ``length`` pixels, centred anywhere in the image, to ``fill``."""
    return Cutout(length, holes, fill).apply(image, rng)


def _applied(transform: ImageTransform, image: Array) -> Array:
    return np.ascontiguousarray(transform.apply(image, _NO_RNG))


_NO_RNG = np.random.default_rng(0)  # these transforms do not draw from it
