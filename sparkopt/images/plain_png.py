"""Plain PNGs by kornia-rs, where it is installed: in a third to an eighth of the time that libpng takes.

Plain are those of 8 bits, grey, coloured or with a palette, that are neither interlaced nor animated. OpenCV decodes
all others, and those that kornia-rs refuses.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Container

from sparkopt.images.optional_decoders import may_hold, optional_decoder
from sparkopt.typing import Array

__all__ = ["COLORS", "GREY", "PALETTE", "decode_plain_png"]

logger = logging.getLogger(__name__)

GREY, COLORS, PALETTE = 0, 2, 3
"""Kinds of pixels, by the numbers that PNGs have for them."""

_MODES = {GREY: "mono", PALETTE: "mono", COLORS: "rgb"}
_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_HEADER = struct.Struct(">II5B")
_MOST_CHUNKS = 2**14
_IN_A_MILLISECOND = 2**18  # samples
_CRITICAL = (b"IHDR", b"PLTE", b"IEND")  # of the chunks with a capital letter, which a decoder must understand
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_PANIC = "PanicException"  # a failed assertion of Rust's, which is no Exception in Python


def decode_plain_png(
    data: bytes, max_pixels: int, kinds: Container[int], left_out: Container[bytes] = ()
) -> Array | None:
    """Return the samples of a plain PNG as they are stored; None where OpenCV must decode it, or say what is wrong.

    Parameters
    ----------
    data : bytes
        The encoded image.
    max_pixels : int
        Nothing is allocated for images with more pixels.
    kinds : container of {GREY, COLORS, PALETTE}
        Which to decode.
    left_out : container of bytes, default none
        Names of chunks, such as ``b"tRNS"``: what has one is left to OpenCV.

    Returns
    -------
    ndarray of uint8, shape (height, width, 1) or (height, width, 3), or None
        Levels of grey, indices of a palette, or red, green and blue. The checksums of all chunks are right, and all
        rows are there.
    """
    decoder = optional_decoder("kornia_rs.io", "decode_image_png_u8")
    if decoder is None or not data.startswith(_START) or len(data) < len(_START) + _HEADER.size:
        return None
    width, height, bits, kind, *methods = _HEADER.unpack_from(data, len(_START))
    if bits != 8 or kind not in kinds or any(methods) or not 0 < width * height <= max_pixels:
        return None
    samples = width * height * (3 if kind == COLORS else 1)
    if not may_hold(samples, _IN_A_MILLISECOND) or not _is_plain(data, left_out):
        return None
    try:
        pixels: Array = decoder(data, (height, width), _MODES[kind])
    except BaseException as error:  # it has no class of its own
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        logger.debug("kornia-rs cannot decode a PNG, which is left to OpenCV: %s", error)
        return None
    return pixels


def _is_plain(data: bytes, left_out: Container[bytes]) -> bool:
    """Whether the pixels are in one run of chunks, and the other chunks are whole and change nothing of them."""
    position, has_pixels, is_over = 8, False, False
    for _ in range(_MOST_CHUNKS):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        if end > len(data) or name in left_out:
            return False
        if name == b"IDAT":  # the decoder looks at their checksums
            if is_over:
                return False
            has_pixels = True
        elif not (_is_harmless(name) and _is_right(data[position + 4 : end])):
            return False
        elif name == b"IEND":
            return has_pixels
        is_over, position = has_pixels and name != b"IDAT", end
    return False


def _is_right(chunk: bytes) -> bool:
    """Whether the checksum at the end of a chunk is that of its name and body."""
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")


def _is_harmless(name: bytes) -> bool:
    """Whether a chunk beside the pixels' is one that decoders may pass over."""
    if name in _CRITICAL:
        return True
    return name.isalpha() and name[:1].islower() and name[2:3].isupper() and name not in _ANIMATION
