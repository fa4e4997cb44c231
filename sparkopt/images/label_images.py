"""PNGs of labels, decoded without libpng where that is quicker.

Masks cost what an image costs: libpng undoes the filter of a single channel byte by byte. Files whose rows are not
filtered (those with a palette) or filtered by differences (those that OpenCV writes) need only be inflated, by
libdeflate where imagecodecs is installed, and summed.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from importlib import import_module

import cv2
import numpy as np

from sparkopt.io.image_header import Header
from sparkopt.typing import Array

__all__ = ["decode_labels"]

_GREY, _PALETTE = 0, 3
_NONE, _DIFFERENCES = 0, 1  # of the filters of a row: what was added is the pixel before
_QUICK = frozenset((_NONE, _DIFFERENCES))
_FASTEST = b"\x01"  # the level of compression in the second byte of a stream
_PEEKED = 8
_FIRST = b"\0\0\0\x0dIHDR"
_CRITICAL = (b"IHDR", b"PLTE", b"IEND")  # of the chunks with a capital letter, which a decoder must understand
_UNREAD = (b"acTL", b"fcTL", b"fdAT")
_SUMMED_AT_ONCE = 2**23  # pixels whose sum 32 bits hold
_Inflate = Callable[[bytes, int], bytes | None]


def decode_labels(data: bytes, header: Header) -> Array | None:
    """Return the labels of a PNG of one channel of 8 bits; None where libpng is needed, or has to say what is wrong.

    Parameters
    ----------
    data : bytes
        The encoded image.
    header : Header
        What ``read_header`` returned for it.

    Returns
    -------
    ndarray of uint8, shape (height, width), or None
        Levels of grey, or indices of a palette. Checksums are right, and all rows are there.
    """
    height, width = header.height, header.width
    kind, methods = data[25], data[26:29]
    if data[8:16] != _FIRST or data[24] != 8 or kind not in (_GREY, _PALETTE) or methods != bytes(3):
        return None
    if width > _SUMMED_AT_ONCE:
        return None
    stream = _stream(data, kind)
    if stream is None:
        return None
    size = height * (width + 1)
    if not _is_likely_quick(stream, kind) and _filters_at_the_top(stream, height, width) - _QUICK:
        return None
    found = _inflater()(stream, size)
    if found is None or len(found) != size:
        return None
    filters = set(found[:: width + 1])
    if filters - _QUICK:
        return None
    rows = np.frombuffer(found, np.uint8).reshape(height, width + 1)
    kinds, values = rows[:, 0], rows[:, 1:]
    if filters == {_NONE}:
        return np.ascontiguousarray(values)
    labels = _adder()(values)
    if _NONE in filters:
        labels[kinds == _NONE] = values[kinds == _NONE]
    return labels


def _is_likely_quick(stream: bytes, kind: int) -> bool:
    """Whether rows are likely to have quick filters: those with a palette, and at the level that OpenCV writes."""
    return kind == _PALETTE or stream[1:2] == _FASTEST


def _filters_at_the_top(stream: bytes, height: int, width: int) -> set[int]:
    """Return the filters of the first rows, of which most kinds of files have all in a few."""
    try:
        first = zlib.decompressobj().decompress(stream, min(_PEEKED, height) * (width + 1))
    except zlib.error:
        return set()  # whoever decodes it whole says so
    return set(first[:: width + 1])


def _stream(data: bytes, kind: int) -> bytes | None:
    """Return the compressed pixels; None for a wrong checksum, parts that are not in one run, and other channels."""
    parts, position, is_over = [], 8, False
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        if name == b"IDAT":
            if is_over:
                return None
            parts.append(data[position + 8 : end - 4])
        elif not _is_harmless(name, kind):
            return None
        is_over, position = bool(parts) and name != b"IDAT", end
        if name == b"IEND":
            return b"".join(parts)
    return None


def _is_harmless(name: bytes, kind: int) -> bool:
    """Whether a chunk beside the pixels' changes nothing of them."""
    if not (name.isalpha() and name[2:3].isupper()) or name in _UNREAD or (name == b"tRNS" and kind == _GREY):
        return False
    return name[:1].islower() or name in _CRITICAL


@functools.cache
def _adder() -> Callable[[Array], Array]:
    """Return what sums each row up to each pixel: imagecodecs, in one pass, or OpenCV."""
    try:
        library = import_module("imagecodecs")
        decode = library.delta_decode
        if not library.DELTA.available:
            return _summed
    except (ImportError, AttributeError):
        return _summed

    def by_imagecodecs(values: Array) -> Array:
        found: Array = decode(values, axis=1)
        return found

    return by_imagecodecs


def _summed(values: Array) -> Array:
    """Return the sums of each row up to each pixel, of 8 bits: differences of OpenCV's integral image."""
    height, width = values.shape
    sums, step = np.empty((height, width), np.uint8), max(1, _SUMMED_AT_ONCE // width)
    for top in range(0, height, step):
        integral = cv2.integral(values[top : top + step])
        sums[top : top + step] = np.diff(integral, axis=0)[:, 1:]
    return sums


@functools.cache
def _inflater() -> _Inflate:
    """Return what inflates a stream of a known size: libdeflate, which takes a quarter of zlib's time, or zlib."""
    try:
        library = import_module("imagecodecs")
        inflate, error = library.deflate_decode, library.DeflateError
        if not library.DEFLATE.available:
            return _by_zlib
    except (ImportError, AttributeError):
        return _by_zlib

    def by_libdeflate(stream: bytes, size: int) -> bytes | None:
        try:
            found: bytes = inflate(stream, out=size)
        except error:
            return None
        return found

    return by_libdeflate


def _by_zlib(stream: bytes, size: int) -> bytes | None:
    """Inflate, but no more than a file of this size can hold."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(stream, size + 1)
    except zlib.error:
        return None
    return found if inflater.eof else None
