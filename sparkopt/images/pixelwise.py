"""Transforms of colours and values: colour conversion and jitter, blur, noise, cutout, scaling of values."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import colors
from sparkopt.images import functional as F
from sparkopt.images.opencv import cv2
from sparkopt.images.parameters import FILL, Fill, Odd, Range
from sparkopt.images.resizing import with_channels
from sparkopt.images.transform import ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = [
    "ColorJitter",
    "ConvertColor",
    "Cutout",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Normalize",
    "Rescale",
    "Standardize",
]

SIGMA = Interval(0, 1000, closed="right")
"""Standard deviations of a Gaussian, in pixels: each pixel is a sum of some six of them."""
_NUMBER = Interval()
_POSITIVE = Interval(0, None, closed="neither")
_NON_NEGATIVE = Interval(0, None)
_SPACES = OneOf(("rgb", "bgr", "rgba", "gray", "hsv", "lab", "ycrcb"))


@dataclass(frozen=True)
class ConvertColor(ImageTransform):
    """Convert from colour space ``source`` to ``target``: rgb, bgr, rgba, gray, hsv, lab or ycrcb."""

    source: str
    target: str

    domains: ClassVar = {"source": _SPACES, "target": _SPACES}

    @property
    def order_of_colors(self) -> str:
        """The order that it is asked for."""
        return "bgr" if self.target == "bgr" else "rgb"

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the converted image."""
        return F.convert_color(image, self.source, self.target)


@dataclass(frozen=True)
class Grayscale(ImageTransform):
    """Convert to luma (ITU-R BT.601), in 1 channel or repeated in 3."""

    channels: int = 1

    domains: ClassVar = {"channels": OneOf((1, 3))}
    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the grey image."""
        return F.to_grayscale(image, self.channels)


@dataclass(frozen=True)
class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    Consecutive ones of the first three are combined, and values are rounded and clipped once.

    Parameters
    ----------
    brightness, contrast, saturation : float, default 0
        The factor is uniform in [max(0, 1 − value), 1 + value].
    hue : float, default 0
        The shift is uniform in [−hue, hue], as a fraction of the full circle; at most 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    domains: ClassVar = {
        "brightness": _NON_NEGATIVE,
        "contrast": _NON_NEGATIVE,
        "saturation": _NON_NEGATIVE,
        "hue": Interval(0, 0.5),
    }
    random = True
    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Draw factors and order, and apply them; an amount of 0 costs nothing."""
        draws = rng.random(8).tolist()
        uniform, order = draws[:4], sorted(range(4), key=draws[4:].__getitem__)
        amounts = (self.brightness, self.contrast, self.saturation)
        factors = [
            max(0.0, 1 - amount) + draw * (1 + amount - max(0.0, 1 - amount))
            for amount, draw in zip(amounts, uniform[:3], strict=True)
        ]
        pending = colors.ColorAdjustment()  # drawn, but not applied yet
        for index in order:
            if index == 3 and self.hue and image.shape[2] > 1:
                image = F.adjust_hue(_adjusted(image, pending), (2 * uniform[3] - 1) * self.hue)
                pending = colors.ColorAdjustment()
            elif index < 3 and amounts[index]:
                pending = pending.then(_adjustment(index, factors[index], image, pending))
        return _adjusted(image, pending)


def _adjustment(index: int, factor: float, image: Array, before: colors.ColorAdjustment) -> colors.ColorAdjustment:
    if index == 1:
        return colors.contrast(before.of_gray(colors.luma(F.mean_color(image))), factor)
    return (colors.saturation if index else colors.brightness)(factor)


def _adjusted(image: Array, adjustment: colors.ColorAdjustment) -> Array:
    if adjustment == colors.ColorAdjustment():
        return image
    return F.transform_colors(image, adjustment.matrix(min(image.shape[2], 3)))


@dataclass(frozen=True)
class GaussianBlur(ImageTransform):
    """Blur with a Gaussian of standard deviation ``sigma`` in pixels; for a pair, uniform between the two."""

    sigma: float | tuple[float, float]
    kernel_size: int = 0

    domains: ClassVar = {"sigma": Range(SIGMA, single=True), "kernel_size": Odd(1, 255, or_zero=True)}

    @property
    def random(self) -> bool:
        """Whether sigma is a range."""
        return isinstance(self.sigma, tuple)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the blurred image."""
        sigma = float(rng.uniform(*self.sigma)) if isinstance(self.sigma, tuple) else self.sigma
        return F.gaussian_blur(image, sigma, self.kernel_size)


@dataclass(frozen=True)
class GaussianNoise(ImageTransform):
    """Add independent normal noise of standard deviation ``std``, as a fraction of full scale (255, 65535 or 1)."""

    std: float

    domains: ClassVar = {"std": _NON_NEGATIVE}
    random = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the noisy image; whole numbers are rounded and clipped, float32 is not clipped."""
        full = F.full_scale(image)
        noise = rng.standard_normal(image.shape, np.float32)
        noise *= np.float32(self.std * full)
        if full == 1:
            noisy: Array = image + noise
            return noisy
        kind = cv2.CV_8U if full == 255 else cv2.CV_16U
        return with_channels(cv2.add(np.ascontiguousarray(image), noise, dtype=kind))  # it rounds and clips


@dataclass(frozen=True)
class Cutout(ImageTransform):
    """Set squares of ``length`` pixels, with random centres in the image, to ``fill``.

    References
    ----------
    DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017.
    """

    length: int
    holes: int = 1
    fill: Fill = 0.0

    domains: ClassVar = {
        "length": Interval(1, 2**16, whole=True),
        "holes": Interval(1, 1000, whole=True),
        "fill": FILL,
    }
    random = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with holes."""
        for _ in range(self.holes):
            row, column = int(rng.integers(image.shape[0])), int(rng.integers(image.shape[1]))
            top, left = row - self.length // 2, column - self.length // 2
            image = F.erase(image, top, left, self.length, self.length, self.fill)
        return image


@dataclass(frozen=True)
class Rescale(ImageTransform):
    """Return scale × value + offset as float32: ``Rescale(1 / 255)`` scales uint8 to [0, 1]."""

    scale: float
    offset: float = 0.0

    domains: ClassVar = {"scale": _NUMBER, "offset": _NUMBER}
    on_any_axes = True
    by_value = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the rescaled values."""
        return F.rescale(image, self.scale, self.offset)


@dataclass(frozen=True)
class Normalize(ImageTransform):
    """Return (value − mean) / std as float32, with one mean and std for all channels or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    domains: ClassVar = {"mean": _NUMBER, "std": _POSITIVE}
    by_value = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean", "std"):
            if not isinstance(getattr(self, name), tuple):
                object.__setattr__(self, name, (getattr(self, name),))
            if len(getattr(self, name)) not in (1, 3, 4):
                raise ParameterError(
                    f"Normalize.{name} must have 1, 3 or 4 values. Got {getattr(self, name)!r} instead."
                )

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the normalised image."""
        return F.normalize(image, self.mean, self.std)


@dataclass(frozen=True)
class Standardize(ImageTransform):
    """Shift and scale each image to mean 0 and standard deviation 1, as float32."""

    on_any_axes = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the standardised image."""
        return F.standardize(image)
