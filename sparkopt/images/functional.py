"""Pure functions on images, without state, randomness or Spark.

An image is an array of shape (height, width, channels) with 1 (grey), 3 (RGB) or 4 (RGBA) channels, of type uint8
with values in [0, 255] or float32; colour functions expect float32 values in [0, 1]. Every function returns a new
array (or a view of its input), of the same type unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images import colors
from sparkopt.images.conversion import convert_color
from sparkopt.images.decoding import decode, decode_mask, decode_stored, encode, orient
from sparkopt.images.opencl import call
from sparkopt.images.opencv import cv2
from sparkopt.images.parameters import Fill, as_values, fill_values
from sparkopt.images.resizing import INTERPOLATIONS, resize, with_channels
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf, check

__all__ = [
    "INTERPOLATIONS",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "convert_color",
    "crop",
    "decode",
    "decode_mask",
    "decode_stored",
    "encode",
    "erase",
    "gaussian_blur",
    "hflip",
    "mean_color",
    "normalize",
    "orient",
    "pad",
    "rescale",
    "resize",
    "standardize",
    "to_grayscale",
    "transform_colors",
    "vflip",
]

PAD_MODES = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}

# --- geometry -------------------------------------------------------------------------------------------------------


def crop(image: Array, top: int, left: int, height: int, width: int) -> Array:
    """Cut out a rectangle inside the image; a view, not a copy."""
    rows, columns = image.shape[:2]
    if not (0 <= top <= top + height <= rows and 0 <= left <= left + width <= columns) or height < 1 or width < 1:
        raise ParameterError(
            f"the crop of {height} x {width} pixels at ({top}, {left}) is not inside an image of "
            f"{rows} x {columns} pixels."
        )
    return image[top : top + height, left : left + width]


def hflip(image: Array) -> Array:
    """Mirror left and right; a view, not a copy."""
    return image[:, ::-1]


def vflip(image: Array) -> Array:
    """Mirror top and bottom; a view, not a copy."""
    return image[::-1]


def pad(
    image: Array, top: int, right: int, bottom: int, left: int, mode: str = "constant", fill: Fill = 0.0
) -> Array:
    """Add pixels on each side: of value ``fill`` ("constant"), or by extending the image (the other modes)."""
    check("mode", mode, OneOf(PAD_MODES))
    border = (top, bottom, left, right)
    value = [*fill_values(fill, image.shape[2]), 0.0, 0.0, 0.0][:4]
    return with_channels(cv2.copyMakeBorder(np.ascontiguousarray(image), *border, PAD_MODES[mode], value=value))


# --- colour ---------------------------------------------------------------------------------------------------------


def to_grayscale(image: Array, channels: int = 1) -> Array:
    """Return the luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), in one channel or repeated in three."""
    check("channels", channels, OneOf((1, 3)))
    source = {1: "gray", 3: "rgb", 4: "rgba"}[image.shape[2]]
    gray = image if source == "gray" else convert_color(image, source, "gray")
    return gray if channels == 1 else convert_color(gray, "gray", "rgb")


def adjust_brightness(image: Array, factor: float) -> Array:
    """Multiply by ``factor`` and clip."""
    return transform_colors(image, colors.brightness(factor).matrix(min(image.shape[2], 3)))


def adjust_contrast(image: Array, factor: float) -> Array:
    """Scale differences from the mean luma: mean + factor × (value − mean), clipped."""
    adjustment = colors.contrast(colors.luma(mean_color(image)), factor)
    return transform_colors(image, adjustment.matrix(min(image.shape[2], 3)))


def adjust_saturation(image: Array, factor: float) -> Array:
    """Scale differences from each pixel's luma: luma + factor × (value − luma), clipped. Grey images stay grey."""
    return image if image.shape[2] == 1 else transform_colors(image, colors.saturation(factor).matrix(3))


def adjust_hue(image: Array, shift: float) -> Array:
    """Shift the hue by a fraction of the full circle, in [-0.5, 0.5]. Grey images are unchanged."""
    check("shift", shift, Interval(-0.5, 0.5))
    if image.shape[2] == 1:
        return image
    if image.dtype == np.uint16:  # OpenCV has no hue of sixteen bits
        return in_fractions(image, lambda fractions: adjust_hue(fractions, shift))
    hsv = convert_color(image[..., :3], "rgb", "hsv")
    if image.dtype == np.uint8:
        hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # wraps around
    else:
        hsv[..., 0] = (hsv[..., 0] + np.float32(shift * 360)) % 360
    turned = convert_color(hsv, "hsv", "rgb")
    return turned if image.shape[2] < 4 else np.dstack([turned, image[..., 3:]])


def full_scale(image: Array) -> int:
    """Return the value of white: 255, 65535 of uint16, 1 of other types."""
    return {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)


def in_fractions(image: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function of float32 values in [0, 1] to a uint16 image, and round its result to 16 bits."""
    fractions = function(image.astype(np.float32) / np.float32(65535))
    rounded: Array = np.rint(np.clip(fractions, 0, 1) * 65535).astype(np.uint16)
    return rounded


def mean_color(image: Array) -> tuple[float, ...]:
    """Return the mean of each colour channel: one for a grey image, else three."""
    return tuple(cv2.mean(np.ascontiguousarray(image))[: min(image.shape[2], 3)])


def transform_colors(image: Array, matrix: Floats) -> Array:
    """Multiply each pixel's (colour, 1) by a matrix, of shape (1, 2) for grey and (3, 4) for other images, and clip.

    Transparency is unchanged. Whole numbers are rounded and clipped by their type, float32 ones clipped to [0, 1].
    """
    count = min(image.shape[2], 3)
    if image.shape[2] == 4:
        matrix = np.array([[*row[:3], 0.0, row[3]] for row in matrix.tolist()] + [[0.0, 0.0, 0.0, 1.0, 0.0]])
    result = with_channels(call(cv2.transform, np.ascontiguousarray(image), matrix))
    if image.dtype.kind == "f":
        np.clip(result[..., :count], 0, 1, out=result[..., :count])
    return result


# --- values ---------------------------------------------------------------------------------------------------------


def gaussian_blur(image: Array, sigma: float, kernel_size: int = 0) -> Array:
    """Blur with a Gaussian of standard deviation ``sigma`` pixels.

    For ``kernel_size`` 0 OpenCV derives an odd size from ``sigma``; borders are reflected.
    """
    check("sigma", sigma, Interval(0, None, closed="neither"))
    return with_channels(call(cv2.GaussianBlur, np.ascontiguousarray(image), (kernel_size, kernel_size), sigma))


def erase(image: Array, top: int, left: int, height: int, width: int, fill: Fill = 0.0) -> Array:
    """Set a rectangle to ``fill``; its part outside the image is ignored."""
    image, values = image.copy(), as_values(fill, image.shape[2], image.dtype)
    image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = values
    return image


def rescale(image: Array, scale: float, offset: float = 0.0) -> Array:
    """Return scale × value + offset as float32: ``rescale(image, 1 / 255)`` scales uint8 to [0, 1]."""
    values = image.astype(np.float32)
    values *= np.float32(scale)
    if offset:
        values += np.float32(offset)
    return values


def normalize(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Return (value − mean) / std as float32, with one mean and std for all channels or one for each."""
    height, width, channels = image.shape
    rows = image.astype(np.float32, order="C").reshape(height, width * channels)  # a last axis of 3 is slow
    for name, values, operate in (("mean", mean, np.subtract), ("std", std, np.divide)):
        numbers = np.asarray(values, np.float32).reshape(-1)
        if numbers.size not in (1, channels):
            raise ParameterError(
                f"{name} must have 1 or {channels} values, one for each channel. Got {numbers.size} instead."
            )
        operate(rows, numbers if numbers.size == 1 else np.tile(numbers, width), out=rows)
    return rows.reshape(image.shape)


def standardize(image: Array) -> Array:
    """Shift and scale the whole image to mean 0 and standard deviation 1, as float32.

    The deviation is taken as at least 1 / sqrt(number of values), so that a constant image becomes zeros
    (TensorFlow's ``per_image_standardization``).
    """
    values = image.astype(np.float32)
    spread = max(float(values.std(dtype=np.float64)), values.size**-0.5)
    return (values - np.float32(values.mean(dtype=np.float64))) / np.float32(spread)
