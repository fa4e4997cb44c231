"""Transforms that take something away: blur, compression, resolution, erased parts; and the order of the axes.

Colour channels are changed, transparency is kept.
"""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np

from sparkopt.images import functional as F
from sparkopt.images.effects import draw, in_levels, on_colors
from sparkopt.images.opencl import call
from sparkopt.images.parameters import FILL, Fill, Odd, Range
from sparkopt.images.spatial import RATIO
from sparkopt.images.transform import ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = ["Downscale", "JpegNoise", "MedianBlur", "MotionBlur", "RandomErasing", "ToCHW"]

_POSITIVE = Range(Interval(0, None, closed="neither"), single=True)
_ODD = Odd(3, 99)


@dataclass(frozen=True)
class MedianBlur(ImageTransform):
    """Take the median of each ``kernel_size`` × ``kernel_size`` pixels."""

    kernel_size: int = 3

    domains: ClassVar = {"kernel_size": _ODD}

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the blurred image; float32 is rounded to 256 levels where the kernel is larger than 5."""
        if image.dtype == np.uint8 or self.kernel_size <= 5:
            return on_colors(image, lambda colors: call(cv2.medianBlur, colors, self.kernel_size))
        return in_levels(image, lambda colors: call(cv2.medianBlur, colors, self.kernel_size))


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
        angle, half = math.radians(draw(self.angle, rng)), self.length // 2
        steps = np.arange(-half, half + 1)
        rows = np.rint(half - steps * math.sin(angle)).astype(int)
        columns = np.rint(half + steps * math.cos(angle)).astype(int)
        kernel = np.zeros((self.length, self.length), np.float32)
        np.add.at(kernel, (rows, columns), np.float32(1 / self.length))
        return on_colors(image, lambda colors: call(cv2.filter2D, colors, -1, kernel))


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

        return in_levels(image, compressed)


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
        factor, (rows, columns) = draw(self.factor, rng), image.shape[:2]
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
        "ratio": Range(RATIO),
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
    """Return the channels first, (channels, height, width), as networks read them: the last step of a pipeline.

    ``Rescale`` and ``Standardize`` may follow, which do the same wherever the channels are.
    """

    channels_first = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with its axes in another order."""
        if image.shape[2] == 1:
            return np.ascontiguousarray(image.transpose(2, 0, 1))
        planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
        cv2.split(np.ascontiguousarray(image), list(planes))  # NumPy, value by value, takes up to five times as long
        return planes
