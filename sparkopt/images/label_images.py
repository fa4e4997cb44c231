"""PNGs of labels, decoded without OpenCV where that is quicker.

Masks cost what an image costs: libpng undoes the filter of a single channel byte by byte. Files whose rows are not
filtered (those with a palette) or filtered by differences (those that OpenCV writes) need only be inflated, by
libdeflate where imagecodecs is installed, and summed. Others (those of grey levels that Pillow writes) are left to
imagecodecs' libpng, which takes three quarters of the time of OpenCV's.
"""

from __future__ import annotations

import functools
import struct
import zlib
from importlib import import_module
from typing import Any

import cv2
import numpy as np

from sparkopt.typing import Array

__all__ = ["decode_labels"]

_GREY, _PALETTE = 0, 3
_NONE, _DIFFERENCES = 0, 1  # of the filters of a row: what was added is the pixel before
_QUICK = frozenset((_NONE, _DIFFERENCES))
_FASTEST = b"\x01"  # the level of compression in the second byte of a stream
_PEEKED = 8
_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_HEADER = struct.Struct(">II5B")
_MOST_CHUNKS = 2**12
_CRITICAL = (b"IHDR", b"PLTE", b"IEND")  # of the chunks with a capital letter, which a decoder must understand
_UNREAD = (b"acTL", b"fcTL", b"fdAT", b"eXIf")
_SUMMED_AT_ONCE = 2**23  # pixels whose sum 32 bits hold


def decode_labels(data: bytes, max_pixels: int) -> Array | None:
    """Return the labels of a PNG of one channel of 8 bits; None where libpng is needed, or has to say what is wrong.

    Parameters
    ----------
    data : bytes
        The encoded image.
    max_pixels : int
        Nothing is allocated for images with more pixels.

    Returns
    -------
    ndarray of uint8, shape (height, width), or None
        Levels of grey, or indices of a palette, of an image that no metadata turn. Checksums are right, and all rows
        are there.
    """
    if not data.startswith(_START) or len(data) < len(_START) + _HEADER.size:
        return None
    width, height, bits, kind, *methods = _HEADER.unpack_from(data, len(_START))
    if bits != 8 or kind not in (_GREY, _PALETTE) or any(methods):
        return None
    if not 0 < width * height <= max_pixels or width > _SUMMED_AT_ONCE:
        return None
    stream = _stream(data, kind)
    if stream is None:
        return None
    tools = _tools()
    is_likely_quick = kind == _PALETTE or stream[1:2] == _FASTEST
    if is_likely_quick or _filters_at_the_top(stream, height, width) <= _QUICK:
        found = tools.inflated(stream, height * (width + 1))
        if found is None:
            return None
        rows = np.frombuffer(found, np.uint8).reshape(height, width + 1)
        filters = set(found[:: width + 1])
        if filters <= _QUICK:
            return _summed(rows, filters, tools)
    return tools.decoded(data, (height, width)) if kind == _GREY else None


def _summed(rows: Array, filters: set[int], tools: _Plain) -> Array:
    """Return the labels of rows that begin with their filter, one of the quick ones."""
    kinds, values = rows[:, 0], rows[:, 1:]
    if filters == {_NONE}:
        return values.copy()
    labels = tools.summed(values)
    if _NONE in filters:
        labels[kinds == _NONE] = values[kinds == _NONE]
    return labels


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
    for _ in range(_MOST_CHUNKS):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            return None
        name = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        if name == b"IDAT":
            if is_over:
                return None
            parts.append(data[position + 8 : end - 4])
        elif not _is_harmless(name, kind):
            return None
        elif name == b"IEND":
            return b"".join(parts)
        is_over, position = bool(parts) and name != b"IDAT", end
    return None


def _is_harmless(name: bytes, kind: int) -> bool:
    """Whether a chunk beside the pixels' changes nothing of them."""
    if name in _CRITICAL:
        return True
    is_known = name.isalpha() and name[:1].islower() and name[2:3].isupper()
    return is_known and name not in _UNREAD and not (name == b"tRNS" and kind == _GREY)


class _Plain:
    """The steps of decoding with what is always there: zlib, and OpenCV for sums."""

    def inflated(self, stream: bytes, size: int) -> bytes | None:
        """Return the bytes of a stream; None where it is damaged, or they are not so many."""
        inflater = zlib.decompressobj()
        try:
            found = inflater.decompress(stream, size + 1)  # no more than a file of this size can hold
        except zlib.error:
            return None
        return found if inflater.eof and len(found) == size else None

    def summed(self, values: Array) -> Array:
        """Return the sums of each row up to each pixel, of 8 bits: differences of OpenCV's integral image."""
        height, width = values.shape
        sums, step = np.empty((height, width), np.uint8), max(1, _SUMMED_AT_ONCE // width)
        for top in range(0, height, step):
            integral = cv2.integral(values[top : top + step])
            sums[top : top + step] = np.diff(integral, axis=0)[:, 1:]
        return sums

    def decoded(self, data: bytes, size: tuple[int, int]) -> Array | None:
        """Return the levels of a PNG of one channel of 8 bits; None where OpenCV has to decode it."""
        return None


class _ByImagecodecs(_Plain):
    """The same by imagecodecs: libdeflate takes a quarter of zlib's time, and sums are made in one pass."""

    def __init__(self, library: Any) -> None:
        self._inflate, self._damage = library.deflate_decode, library.DeflateError
        self._decode, self._refusal = library.png_decode, library.PngError
        self._sum = library.delta_decode
        self.is_complete = library.DEFLATE.available and library.DELTA.available and library.PNG.available

    def inflated(self, stream: bytes, size: int) -> bytes | None:
        try:
            found: bytes = self._inflate(stream, out=size)
        except self._damage:
            return None
        return found if len(found) == size else None

    def summed(self, values: Array) -> Array:
        found: Array = self._sum(values, axis=1)
        return found

    def decoded(self, data: bytes, size: tuple[int, int]) -> Array | None:
        try:
            found: Array = self._decode(data)
        except self._refusal:
            return None
        return found if found.shape == size and found.dtype == np.uint8 else None


@functools.cache
def _tools() -> _Plain:
    """Return imagecodecs' functions, where it is installed and has all of them."""
    try:
        tools = _ByImagecodecs(import_module("imagecodecs"))
    except (ImportError, AttributeError):
        return _Plain()
    return tools if tools.is_complete else _Plain()
