"""Transforms of pixel values: tone, sharpness, blur, compression, erased parts, and the order of the axes.

Colour channels are changed, transparency is kept. Steps by histogram and table (``Equalize``, ``AutoContrast``,
``Posterize``, ``Clahe``) work on 256 levels: float32 images are rounded to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.images.opencl import call
from sparkopt.images.parameters import FILL, Fill, Range
from sparkopt.images.resizing import with_channels
from sparkopt.images.transform import ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf

__all__ = [
    "AutoContrast",
    "Brightness",
    "Clahe",
    "Contrast",
    "Downscale",
    "Equalize",
    "Gamma",
    "Invert",
    "JpegNoise",
    "MedianBlur",
    "MotionBlur",
    "Posterize",
    "RandomErasing",
    "Saturation",
    "Sharpness",
    "Solarize",
    "ToCHW",
]

_FACTOR = Range(Interval(0, None), single=True)
_POSITIVE = Range(Interval(0, None, closed="neither"), single=True)
_ODD = OneOf(tuple(range(3, 100, 2)))
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's filter SMOOTH."""


def _draw(value: float | tuple[float, float], rng: np.random.Generator) -> float:
    return float(rng.uniform(*value)) if isinstance(value, tuple) else value


def _on_colors(image: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function to the colour channels, and keep the transparency."""
    if image.shape[2] < 4:
        return with_channels(function(np.ascontiguousarray(image)))
    return np.dstack([with_channels(function(np.ascontiguousarray(image[..., :3]))), image[..., 3:]])


def _in_levels(image: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function of bytes to the colour channels; float32 images are rounded to 256 levels."""
    if image.dtype == np.uint8:
        return _on_colors(image, function)
    if image.dtype != np.float32:
        raise ParameterError(f"this step takes uint8 or float32 images. Got {image.dtype} instead.")
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    changed = _on_colors(levels, function).astype(np.float32) / np.float32(255)
    return changed if image.shape[2] < 4 else np.dstack([changed[..., :3], image[..., 3:]])


def _by_channel(image: Array, table: Callable[[Array], Array]) -> Array:
    """Map each channel of bytes by the table that a function makes of its histogram."""
    channels = [
        cv2.LUT(channel, table(np.bincount(channel.ravel(), minlength=256)))
        for channel in (np.ascontiguousarray(image[..., index]) for index in range(image.shape[2]))
    ]
    return np.dstack(channels)


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
        return F.adjust_brightness(image, _draw(self.factor, rng))


@dataclass(frozen=True)
class Contrast(_Tone):
    """Scale differences from the mean luma by ``factor``; for a pair, uniform between the two."""

    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another contrast."""
        return F.adjust_contrast(image, _draw(self.factor, rng))


@dataclass(frozen=True)
class Saturation(_Tone):
    """Scale differences from each pixel's luma by ``factor``; for a pair, uniform between the two."""

    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another saturation."""
        return F.adjust_saturation(image, _draw(self.factor, rng))


@dataclass(frozen=True)
class Sharpness(_Tone):
    """Blur (``factor`` < 1) or sharpen (> 1) as Pillow's ``ImageEnhance.Sharpness`` does; a pair is drawn between."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return smooth + factor × (image − smooth); the outermost pixels are left alone."""
        factor = np.float32(_draw(self.factor, rng))

        def sharpened(colors: Array) -> Array:
            smooth = with_channels(call(cv2.filter2D, colors, -1, _SMOOTH))
            mixed = with_channels(cv2.addWeighted(colors, float(factor), smooth, float(1 - factor), 0))
            if colors.dtype != np.uint8:
                mixed = np.clip(mixed, 0, 1)
            result = colors.copy()
            result[1:-1, 1:-1] = mixed[1:-1, 1:-1]
            return result

        return _on_colors(image, sharpened)


@dataclass(frozen=True)
class Gamma(ImageTransform):
    """Raise values, as fractions of full scale, to the power ``gamma``; for a pair, uniform between the two."""

    gamma: float | tuple[float, float]

    domains: ClassVar = {"gamma": _POSITIVE}

    @property
    def random(self) -> bool:
        """Whether gamma is a range."""
        return isinstance(self.gamma, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of another gamma."""
        gamma = _draw(self.gamma, rng)
        if image.dtype != np.uint8:
            return _on_colors(image, lambda colors: np.asarray(np.clip(colors, 0, 1) ** np.float32(gamma)))
        table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        return _on_colors(image, lambda colors: cv2.LUT(colors, table))


@dataclass(frozen=True)
class Invert(ImageTransform):
    """Return full scale − value."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the negative."""
        return _on_colors(image, lambda colors: (255 if colors.dtype == np.uint8 else 1) - colors)


@dataclass(frozen=True)
class Solarize(ImageTransform):
    """Invert values from ``threshold`` on, a fraction of full scale (255 or 1)."""

    threshold: float = 0.5

    domains: ClassVar = {"threshold": Interval(0, 1)}

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the solarized image."""
        full = 255 if image.dtype == np.uint8 else 1

        def solarized(colors: Array) -> Array:
            inverted = (full - colors).astype(colors.dtype)
            return np.asarray(np.where(colors < self.threshold * full, colors, inverted))

        return _on_colors(image, solarized)


@dataclass(frozen=True)
class Posterize(ImageTransform):
    """Keep the highest ``bits`` of each value's eight."""

    bits: int

    domains: ClassVar = {"bits": Interval(1, 8, whole=True)}

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of fewer levels."""
        mask = np.uint8(256 - (1 << (8 - self.bits)))
        return _in_levels(image, lambda colors: np.bitwise_and(colors, mask))


@dataclass(frozen=True)
class AutoContrast(ImageTransform):
    """Stretch each channel so that its darkest value becomes black and its brightest white, as Pillow does."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the stretched image."""
        return _in_levels(image, lambda colors: _by_channel(colors, _stretching))


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
        return _in_levels(image, lambda colors: _by_channel(colors, _equalizing))


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

        return _in_levels(image, equalized)


@dataclass(frozen=True)
class MedianBlur(ImageTransform):
    """Take the median of each ``kernel_size`` × ``kernel_size`` pixels."""

    kernel_size: int = 3

    domains: ClassVar = {"kernel_size": _ODD}

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the blurred image; float32 is rounded to 256 levels where the kernel is larger than 5."""
        if image.dtype == np.uint8 or self.kernel_size <= 5:
            return with_channels(call(cv2.medianBlur, np.ascontiguousarray(image), self.kernel_size))
        return _in_levels(image, lambda colors: call(cv2.medianBlur, colors, self.kernel_size))


@dataclass(frozen=True)
class MotionBlur(ImageTransform):
    """Average along a line, as a moving camera does.

    Parameters
    ----------
    length : int, default 7
        Pixels of the line; odd.
    angle : float or (float, float), default (0, 180)
        Degrees, counter-clockwise from the horizontal; for a pair, uniform between the two.
    """

    length: int = 7
    angle: float | tuple[float, float] = (0.0, 180.0)

    domains: ClassVar = {"length": _ODD, "angle": Range(Interval(), single=True)}

    @property
    def random(self) -> bool:
        """Whether the angle is a range."""
        return isinstance(self.angle, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the blurred image."""
        angle, half = math.radians(_draw(self.angle, rng)), self.length // 2
        steps = np.arange(-half, half + 1)
        rows = np.rint(half - steps * math.sin(angle)).astype(int)
        columns = np.rint(half + steps * math.cos(angle)).astype(int)
        kernel = np.zeros((self.length, self.length), np.float32)
        np.add.at(kernel, (rows, columns), np.float32(1 / self.length))
        return with_channels(call(cv2.filter2D, np.ascontiguousarray(image), -1, kernel))


@dataclass(frozen=True)
class JpegNoise(ImageTransform):
    """Encode as JPEG and decode again: what compression does to a picture.

    Parameters
    ----------
    quality : int or (int, int), default (40, 90)
        1 to 100; for a pair, uniform between the two.
    """

    quality: float | tuple[float, float] = (40, 90)

    domains: ClassVar = {"quality": Range(Interval(1, 100, whole=True), single=True)}
    reads_colors = True

    @property
    def random(self) -> bool:
        """Whether the quality is a range."""
        return isinstance(self.quality, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image as its JPEG shows it."""
        chosen = self.quality
        quality = int(rng.integers(int(chosen[0]), int(chosen[1]) + 1) if isinstance(chosen, tuple) else chosen)

        def compressed(colors: Array) -> Array:
            return F.decode(F.encode(colors, "jpeg", quality), "gray" if colors.shape[2] == 1 else "rgb")

        return _in_levels(image, compressed)


@dataclass(frozen=True)
class Downscale(ImageTransform):
    """Make the image smaller and as large as before: what a camera of fewer pixels sees.

    Parameters
    ----------
    factor : float or (float, float), default (2, 4)
        How many times smaller, at least 1; for a pair, uniform between the two.
    interpolation : str, default "linear"
        How it is enlarged; see :func:`~sparkopt.images.functional.resize`.
    """

    factor: float | tuple[float, float] = (2.0, 4.0)
    interpolation: str = "linear"

    domains: ClassVar = {
        "factor": Range(Interval(1, None), single=True),
        "interpolation": OneOf(F.INTERPOLATIONS),
    }

    @property
    def random(self) -> bool:
        """Whether the factor is a range."""
        return isinstance(self.factor, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image of less resolution."""
        factor, (rows, columns) = _draw(self.factor, rng), image.shape[:2]
        small = F.resize(image, max(1, round(rows / factor)), max(1, round(columns / factor)), "area")
        return F.resize(small, rows, columns, self.interpolation)


@dataclass(frozen=True)
class RandomErasing(ImageTransform):
    """Set a random rectangle to ``fill``.

    Parameters
    ----------
    scale : (float, float), default (0.02, 0.33)
        Range of the rectangle's area, as a fraction of the image's; uniform.
    ratio : (float, float), default (0.3, 3.3)
        Range of its height / width; log-uniform. After ten rectangles that do not fit, nothing is erased.
    fill : float or a value for each channel, default 0
        What it is set to.

    References
    ----------
    Zhong et al., "Random erasing data augmentation", AAAI 2020, algorithm 1.
    """

    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    fill: Fill = 0.0

    domains: ClassVar = {
        "scale": Range(Interval(0, 1, closed="right")),
        "ratio": Range(Interval(0, None, closed="neither")),
        "fill": FILL,
    }
    random = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image without a part."""
        rows, columns = image.shape[:2]
        for _ in range(10):
            area, ratio, down, across = rng.random(4).tolist()
            area = rows * columns * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            ratio = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** ratio
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < height < rows and 0 < width < columns:
                top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
                return F.erase(image, top, left, height, width, self.fill)
        return image


@dataclass(frozen=True)
class ToCHW(ImageTransform):
    """Return the channels first, (channels, height, width), as networks read them: the last step of a pipeline."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with its axes in another order."""
        return np.ascontiguousarray(image.transpose(2, 0, 1))
