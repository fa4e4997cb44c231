"""Transforms of tone: brightness, contrast, sharpness, and tables of levels.

Colour channels are changed, transparency is kept. Steps by histogram and table (``Equalize``, ``AutoContrast``,
``Posterize``, ``Clahe``) work on 256 levels: float32 and uint16 images are rounded to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.images.opencl import call
from sparkopt.images.parameters import Range
from sparkopt.images.resizing import with_channels
from sparkopt.images.transform import ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = [
    "AutoContrast",
    "Brightness",
    "Clahe",
    "Contrast",
    "Equalize",
    "Gamma",
    "Invert",
    "Posterize",
    "Saturation",
    "Sharpness",
    "Solarize",
]

_FACTOR = Range(Interval(0, None), single=True)
_POSITIVE = Range(Interval(0, None, closed="neither"), single=True)
_EXACT = 2**24  # up to this, float32 holds whole numbers: OpenCV counts in it
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's filter SMOOTH."""


def draw(value: float | tuple[float, float], rng: np.random.Generator) -> float:
    return float(rng.uniform(*value)) if isinstance(value, tuple) else value


def on_colors(image: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function to the colour channels, and keep the transparency."""
    if image.shape[2] < 4:
        return with_channels(function(np.ascontiguousarray(image)))
    return np.dstack([with_channels(function(np.ascontiguousarray(image[..., :3]))), image[..., 3:]])


def in_levels(image: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function of bytes to the colour channels; float32 and uint16 images are rounded to 256 levels."""
    if image.dtype == np.uint8:
        return on_colors(image, function)
    if image.dtype == np.uint16:
        return F.in_fractions(image, lambda fractions: in_levels(fractions, function))
    if image.dtype != np.float32:
        raise ParameterError(f"this step takes uint8, uint16 or float32 images. Got {image.dtype} instead.")
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    changed = on_colors(levels, function).astype(np.float32) / np.float32(255)
    return changed if image.shape[2] < 4 else np.dstack([changed[..., :3], image[..., 3:]])


def _by_channel(image: Array, table: Callable[[Array], Array]) -> Array:
    """Map each channel of bytes by the table that a function makes of its histogram."""
    tables = [table(_histogram(image, index)) for index in range(image.shape[2])]
    return np.asarray(cv2.LUT(image, np.dstack(tables)))


def _histogram(image: Array, index: int) -> Array:
    """Count the levels of a channel."""
    if image.shape[0] * image.shape[1] > _EXACT:
        return np.bincount(image[..., index].ravel(), minlength=256)
    return cv2.calcHist([image], [index], None, [256], [0, 256]).ravel().astype(np.int64)


@dataclass(frozen=True)
class _Tone(ImageTransform):
    """A step with a factor that may be drawn."""

    factor: float | tuple[float, float]

    domains: ClassVar = {"factor": _FACTOR}

    @property
    def random(self) -> bool:
        """Whether the factor is a range."""
        return isinstance(self.factor, tuple)


@dataclass(frozen=True)
class Brightness(_Tone):
    """Multiply colours by ``factor``; for a pair, uniform between the two."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the brighter or darker image."""
        return F.adjust_brightness(image, draw(self.factor, rng))


@dataclass(frozen=True)
class Contrast(_Tone):
    """Scale differences from the mean luma by ``factor``; for a pair, uniform between the two."""

    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another contrast."""
        return F.adjust_contrast(image, draw(self.factor, rng))


@dataclass(frozen=True)
class Saturation(_Tone):
    """Scale differences from each pixel's luma by ``factor``; for a pair, uniform between the two."""

    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another saturation."""
        return F.adjust_saturation(image, draw(self.factor, rng))


@dataclass(frozen=True)
class Sharpness(_Tone):
    """Blur (``factor`` < 1) or sharpen (> 1) as Pillow's ``ImageEnhance.Sharpness`` does; a pair is drawn between."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return smooth + factor × (image − smooth); the outermost pixels are left alone."""
        factor = np.float32(draw(self.factor, rng))

        def sharpened(colors: Array) -> Array:
            smooth = with_channels(call(cv2.filter2D, colors, -1, _SMOOTH))
            mixed = with_channels(cv2.addWeighted(colors, float(factor), smooth, float(1 - factor), 0))
            if colors.dtype.kind == "f":
                mixed = np.clip(mixed, 0, 1)
            result = colors.copy()
            result[1:-1, 1:-1] = mixed[1:-1, 1:-1]
            return result

        return on_colors(image, sharpened)


@dataclass(frozen=True)
class Gamma(ImageTransform):
    """Raise values, as fractions of full scale, to the power ``gamma``; for a pair, uniform between the two."""

    gamma: float | tuple[float, float]

    domains: ClassVar = {"gamma": _POSITIVE}
    by_value = True

    @property
    def random(self) -> bool:
        """Whether gamma is a range."""
        return isinstance(self.gamma, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another gamma."""
        gamma = draw(self.gamma, rng)
        if image.dtype == np.uint16:
            return F.in_fractions(image, lambda fractions: Gamma(gamma).apply(fractions, rng))
        if image.dtype != np.uint8:
            return on_colors(image, lambda colors: np.asarray(np.clip(colors, 0, 1) ** np.float32(gamma)))
        table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        return on_colors(image, lambda colors: cv2.LUT(colors, table))


@dataclass(frozen=True)
class Invert(ImageTransform):
    """Return full scale − value."""

    by_value = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the negative."""
        if image.dtype.kind == "u":
            return on_colors(image, lambda colors: np.asarray(cv2.bitwise_not(colors)))
        return on_colors(image, lambda colors: (F.full_scale(colors) - colors).astype(colors.dtype))


@dataclass(frozen=True)
class Solarize(ImageTransform):
    """Invert values from ``threshold`` on, a fraction of full scale (255, 65535 or 1)."""

    threshold: float = 0.5

    domains: ClassVar = {"threshold": Interval(0, 1)}
    by_value = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the solarized image."""
        full = F.full_scale(image)

        def solarized(values: Array) -> Array:
            inverted = (full - values).astype(values.dtype)
            return np.asarray(np.where(values < self.threshold * full, values, inverted))

        if image.dtype == np.uint8:
            table = solarized(np.arange(256, dtype=np.uint8))
            return on_colors(image, lambda colors: np.asarray(cv2.LUT(colors, table)))
        return on_colors(image, solarized)


@dataclass(frozen=True)
class Posterize(ImageTransform):
    """Keep the highest ``bits`` of each value's eight."""

    bits: int

    domains: ClassVar = {"bits": Interval(1, 8, whole=True)}
    by_value = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of fewer levels."""
        mask = np.uint8(256 - (1 << (8 - self.bits)))
        return in_levels(image, lambda colors: np.bitwise_and(colors, mask))


@dataclass(frozen=True)
class AutoContrast(ImageTransform):
    """Stretch each channel so that its darkest value becomes black and its brightest white, as Pillow does."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the stretched image."""
        return in_levels(image, lambda colors: _by_channel(colors, _stretching))


def _stretching(histogram: Array) -> Array:
    levels = np.flatnonzero(histogram)
    low, high = int(levels[0]), int(levels[-1])
    if high <= low:
        return np.arange(256, dtype=np.uint8)
    scale = 255.0 / (high - low)
    stretched: Array = np.clip((np.arange(256) * scale - low * scale).astype(int), 0, 255).astype(np.uint8)
    return stretched


@dataclass(frozen=True)
class Equalize(ImageTransform):
    """Spread each channel's values evenly over the levels, as Pillow does."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the equalised image."""
        return in_levels(image, lambda colors: _by_channel(colors, _equalizing))


def _equalizing(histogram: Array) -> Array:
    levels = histogram[histogram > 0]
    step = int(levels.sum() - levels[-1]) // 255
    if len(levels) <= 1 or not step:
        return np.arange(256, dtype=np.uint8)
    before = np.concatenate([[0], np.cumsum(histogram)[:-1]])
    table: Array = np.minimum((step // 2 + before) // step, 255).astype(np.uint8)
    return table


@dataclass(frozen=True)
class Clahe(ImageTransform):
    """Equalise the lightness locally, with limited contrast (CLAHE).

    Parameters
    ----------
    clip_limit : float, default 4
        Limit of the contrast of a tile.
    tiles : int, default 8
        Tiles along each side.

    References
    ----------
    Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
    """

    clip_limit: float = 4.0
    tiles: int = 8

    domains: ClassVar = {
        "clip_limit": Interval(0, None, closed="neither"),
        "tiles": Interval(1, 256, whole=True),
    }
    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with its lightness equalised."""

        def equalized(colors: Array) -> Array:
            method = cv2.createCLAHE(self.clip_limit, (self.tiles, self.tiles))
            if colors.shape[2] == 1:
                return np.asarray(method.apply(colors[..., 0]))
            lab = cv2.cvtColor(colors, cv2.COLOR_RGB2LAB)
            lab[..., 0] = method.apply(np.ascontiguousarray(lab[..., 0]))
            return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))

        return in_levels(image, equalized)
