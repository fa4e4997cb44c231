"""Resizing without aliasing: sides that shrink are smoothed or averaged, sides that grow are interpolated."""

from __future__ import annotations

import functools
import math
import threading

import numpy as np

from sparkopt.images.opencl import call, is_on
from sparkopt.images.opencv import cv2
from sparkopt.typing import Array
from sparkopt.validation import OneOf, check

_LARGEST_SCRATCH = 2**22
_thread = threading.local()

__all__ = ["INTERPOLATIONS", "resize", "with_channels"]

INTERPOLATIONS = {  # between pixels; sides that shrink are averaged too
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
_INTERPOLATIONS = OneOf(INTERPOLATIONS)
_BY_INTEL = (cv2.INTER_LINEAR, cv2.INTER_AREA)


def resize(image: Array, height: int, width: int, interpolation: str = "linear") -> Array:
    """Resize to an exact size without aliasing.

    Parameters
    ----------
    image : ndarray, shape (rows, columns, channels)
        The image.
    height, width : int
        Size of the result in pixels.
    interpolation : {"linear", "area", "cubic", "lanczos", "nearest"}, default "linear"
        Interpolation along a side that grows ("area": linear). A side that shrinks is averaged over the area of each
        new pixel, as by OpenCV's ``INTER_AREA`` (means of x.5 may be rounded the other way), with two exceptions.
        "linear", where no side shrinks below a half, smooths by the filter [a, 1 − 2a, a] and samples linearly, in
        half of the time: nearly the antialiased "bilinear" of Pillow and torchvision (photographs differ by 0.5 to 3
        of 255 levels, root mean square). "nearest" never averages, so that label images keep their labels; it takes
        the pixel at the centre of each new one, as Pillow and OpenCV's ``INTER_NEAREST_EXACT`` do.

    Returns
    -------
    ndarray, shape (height, width, channels)
    """
    check("interpolation", interpolation, _INTERPOLATIONS)
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if interpolation == "nearest":
        return with_channels(call(cv2.resize, image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
    halved = (rows, columns) == (2 * height, 2 * width)  # means of 2 × 2 pixels are the fastest
    if interpolation == "linear" and not halved and rows <= 2 * height and columns <= 2 * width:
        image = _smoothed(image, rows / height, columns / width)
        return with_channels(_resized(image, (width, height), cv2.INTER_LINEAR))
    smaller = (min(height, rows), min(width, columns))
    if smaller != (rows, columns):
        image = _resized(image, smaller[::-1], cv2.INTER_AREA)
    if smaller != (height, width):
        image = _resized(image, (width, height), INTERPOLATIONS[interpolation])
    return with_channels(image)


def _resized(image: Array, size: tuple[int, int], interpolation: int) -> Array:
    """Return an image of ``size``, (width, height), by OpenCV's interpolation.

    Where its build has Intel's library, as those for x86 have, OpenCV samples bytes linearly by it in half the time,
    and averages in half to a quarter, rounded to the nearest level. It does so only if asked, since its own code
    gives other bytes: its linear sampling is up to 0.8 of a level off, and means of x.5 may be rounded the other way.
    Processors with AVX2 or AVX-512 give the same bytes; on older ones, one in a thousand is off by a level. The
    setting is this thread's, and is put back: the user's calls have it too.
    """
    is_halved = image.shape[:2] == (2 * size[1], 2 * size[0])  # its own code is as fast then
    if interpolation not in _BY_INTEL or is_halved or cv2.ipp.useIPP_NotExact():
        return call(cv2.resize, image, size, interpolation=interpolation)
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        return call(cv2.resize, image, size, interpolation=interpolation)
    finally:
        cv2.ipp.setUseIPP_NotExact(False)


def _smoothed(image: Array, down: float, across: float) -> Array:
    """Smooth along the axes that will shrink by the factors ``down`` and ``across``, each up to 2.

    Linear sampling after [a, 1 − 2a, a] has the variance 2a + 1/6, and Pillow's filter, a triangle of half-width s,
    s²/6: they agree for a = (s² − 1) / 12. At s = 2 the filter removes the finest stripes completely.
    """
    horizontal, vertical = _side(across), _side(down)
    if not (horizontal or vertical):
        return image
    if image.dtype == np.uint8:  # the same to the bit but for halves, in 0.2 to 0.7 of the time
        taps, across, down = (3 if horizontal else 1, 3 if vertical else 1), _sigma(horizontal), _sigma(vertical)
        return call(cv2.GaussianBlur, image, taps, across, _scratch(image), down, borderType=cv2.BORDER_REPLICATE)
    kernels = [np.array([side, 256 - 2 * side, side]) / 256 for side in (horizontal, vertical)]
    return call(cv2.sepFilter2D, image, -1, *kernels, _scratch(image), borderType=cv2.BORDER_REPLICATE)


def _side(scale: float) -> int:
    """Return a in 256ths, OpenCV's unit for bytes: the weights add up to exactly one, and white stays white."""
    return round(256 * (scale * scale - 1) / 12) if scale > 1 else 0


@functools.cache
def _sigma(side: int) -> float:
    """Return the deviation of the Gaussian whose three weights are (side, 256 - 2 side, side) / 256."""
    return math.sqrt(0.5 / math.log((256 - 2 * side) / side)) if side else 1.0


def _scratch(image: Array) -> Array | None:
    """Return a temporary image: memory of this thread that is reused and stays in the processor's cache."""
    if is_on():
        return None  # its memory is the device's
    if image.nbytes > _LARGEST_SCRATCH:
        return np.empty_like(image)
    if not hasattr(_thread, "memory"):
        _thread.memory = np.empty(_LARGEST_SCRATCH, np.uint8)
    scratch: Array = _thread.memory[: image.nbytes].view(image.dtype).reshape(image.shape)
    return scratch


def with_channels(image: Array) -> Array:
    """Restore the channel axis that OpenCV drops from grey images."""
    return image if image.ndim == 3 else image[:, :, np.newaxis]
