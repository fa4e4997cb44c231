"""Conversion between colour spaces."""

from __future__ import annotations

import numpy as np

from sparkopt.images.opencv import cv2
from sparkopt.images.resizing import with_channels
from sparkopt.typing import Array
from sparkopt.validation import OneOf, check

__all__ = ["convert_color"]

_CONVERSIONS = {
    ("rgb", "gray"): cv2.COLOR_RGB2GRAY,
    ("rgb", "bgr"): cv2.COLOR_RGB2BGR,
    ("rgb", "rgba"): cv2.COLOR_RGB2RGBA,
    ("rgb", "hsv"): cv2.COLOR_RGB2HSV_FULL,
    ("rgb", "lab"): cv2.COLOR_RGB2LAB,
    ("rgb", "ycrcb"): cv2.COLOR_RGB2YCrCb,
    ("bgr", "rgb"): cv2.COLOR_BGR2RGB,
    ("bgr", "gray"): cv2.COLOR_BGR2GRAY,
    ("bgr", "rgba"): cv2.COLOR_BGR2RGBA,
    ("gray", "rgb"): cv2.COLOR_GRAY2RGB,
    ("gray", "bgr"): cv2.COLOR_GRAY2BGR,
    ("gray", "rgba"): cv2.COLOR_GRAY2RGBA,
    ("rgba", "rgb"): cv2.COLOR_RGBA2RGB,
    ("rgba", "bgr"): cv2.COLOR_RGBA2BGR,
    ("rgba", "gray"): cv2.COLOR_RGBA2GRAY,
    ("hsv", "rgb"): cv2.COLOR_HSV2RGB_FULL,
    ("lab", "rgb"): cv2.COLOR_LAB2RGB,
    ("ycrcb", "rgb"): cv2.COLOR_YCrCb2RGB,
}


def convert_color(image: Array, source: str, target: str) -> Array:
    """Convert between colour spaces by OpenCV's formulas: rgb, bgr, rgba, gray, hsv, lab, ycrcb.

    uint8 hue has the range 0 to 255; float32 hue is in degrees.
    """
    check("(source, target)", (source, target), OneOf(_CONVERSIONS))
    return with_channels(cv2.cvtColor(np.ascontiguousarray(image), _CONVERSIONS[source, target]))
