"""Colour adjustments that compose: several are applied as one, and rounded and clipped once.

Brightness, contrast and saturation all have the form scale × value + luma × (luma of the colour) + offset in each
channel. So has their composition, because the luma of a grey value is that value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparkopt.typing import Floats

__all__ = ["ColorAdjustment", "brightness", "contrast", "luma", "saturation"]

_LUMA = {1: (1.0,), 3: (0.299, 0.587, 0.114)}  # ITU-R BT.601; plain Python is faster than NumPy here


class ColorAdjustment(NamedTuple):
    """scale × value + luma × (luma of the colour) + offset, in each channel.

    Parameters
    ----------
    scale, luma, offset : float
        The coefficients; (1, 0, 0) is the identity.
    """

    scale: float = 1.0
    luma: float = 0.0
    offset: float = 0.0

    def then(self, other: ColorAdjustment) -> ColorAdjustment:
        """Return this adjustment followed by ``other``."""
        return ColorAdjustment(
            other.scale * self.scale,
            other.scale * self.luma + other.luma * (self.scale + self.luma),
            other.of_gray(self.offset),
        )

    def of_gray(self, value: float) -> float:
        """Return the result for a grey value, or for the mean luma of an image."""
        return (self.scale + self.luma) * value + self.offset

    def matrix(self, channels: int) -> Floats:
        """Return the matrix for (colour, 1), shape (channels, channels + 1), of 1 (grey) or 3 (RGB) channels."""
        scale, _, offset = self
        weights = [self.luma * weight for weight in _LUMA[channels]]
        rows = [[*weights, offset] for _ in weights]
        for channel, row in enumerate(rows):
            row[channel] += scale
        return np.array(rows)


def luma(color: Sequence[float]) -> float:
    """Return the luma of a colour of 1 or 3 values."""
    return sum(weight * value for weight, value in zip(_LUMA[len(color)], color, strict=True))


def brightness(factor: float) -> ColorAdjustment:
    """Return a multiplication by ``factor``."""
    return ColorAdjustment(factor)


def contrast(mean: float, factor: float) -> ColorAdjustment:
    """Scale differences from the ``mean`` luma of the image: mean + factor × (value − mean)."""
    return ColorAdjustment(factor, 0.0, (1.0 - factor) * mean)


def saturation(factor: float) -> ColorAdjustment:
    """Scale differences from each pixel's luma: luma + factor × (value − luma)."""
    return ColorAdjustment(factor, 1.0 - factor)
