"""Adjustments of colours as matrices of (colour, 1), which multiply: several adjustments are one.

A colour has 1 (grey) or 3 (RGB) values. The last row of each matrix is (0, …, 0, 1).
"""

from __future__ import annotations

import numpy as np

from sparkopt.typing import Floats

__all__ = ["brightness", "contrast", "saturation"]

_LUMA = {1: np.ones(1), 3: np.array([0.299, 0.587, 0.114])}  # ITU-R BT.601


def brightness(channels: int, factor: float) -> Floats:
    """Multiply by ``factor``."""
    return np.diag([factor] * channels + [1.0])


def contrast(mean: Floats, factor: float) -> Floats:
    """Move every value away from the luma of the image's ``mean`` colour: luma + factor × (value − luma)."""
    channels = len(mean)
    matrix = brightness(channels, factor)
    matrix[:channels, channels] = (1.0 - factor) * (_LUMA[channels] @ mean)
    return matrix


def saturation(channels: int, factor: float) -> Floats:
    """Move every colour away from its own luma: luma + factor × (value − luma)."""
    matrix = brightness(channels, factor)
    matrix[:channels, :channels] += (1.0 - factor) * _LUMA[channels]
    return matrix
