"""How a TIFF stores its samples: what decoders do not convert, and what it takes to assemble them."""

from __future__ import annotations

import struct

from sparkopt.errors import CorruptImageError
from sparkopt.io.image_checks import complete_tiff
from sparkopt.io.tiff_directory import Directory
from sparkopt.io.tiff_tags import (
    BITS,
    COLORS,
    COMPRESSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    FLOATING,
    GREY,
    HEIGHT,
    INVERTED,
    JPEG,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    SIGNED,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    UNASSOCIATED,
    WIDTH,
)
from sparkopt.values import dataclass

__all__ = ["TiffLayout", "TiffSamples", "compression_name", "tiff_layout", "tiff_planes", "tiff_samples"]

KNOWN = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""Compressions that OpenCV decodes; for most others it returns zeros, and no error."""
NAMES = {
    1: "none", 2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    22610: "JPEG XR", 32771: "CCITT of words", 32773: "PackBits", 32946: "Deflate",
    33003: "JPEG 2000 of YCbCr", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP", 34933: "PNG", 34934: "JPEG XR",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip


@dataclass(frozen=True)
class TiffLayout:
    """How a TIFF stores what OpenCV does not convert.

    Attributes
    ----------
    is_planar : bool
        Whether each channel is stored by itself: of more than 8 bits, or of greys with their alpha.
    has_unassociated_alpha : bool
        Whether colours of 8 bits are stored as they are, next to their alpha: libtiff multiplies them by it.
    is_wide_with_alpha : bool
        The same of colours of 16 bits, which OpenCV multiplies where it does not return the alpha.
    is_grey_with_alpha : bool
        Whether OpenCV drops the alpha of greys.
    is_foreign : bool
        Whether OpenCV lacks the compression, for which it returns zeros, or the type of samples.
    is_signed : bool
        Whether samples may be below zero, which OpenCV takes for large ones where it makes bytes of them.
    compression, meaning, channels : int
        The compression, the photometric interpretation, and the channels.
    """

    is_planar: bool
    has_unassociated_alpha: bool
    is_wide_with_alpha: bool
    is_grey_with_alpha: bool
    is_foreign: bool
    is_signed: bool
    compression: int
    meaning: int
    channels: int


@dataclass(frozen=True)
class TiffSamples:
    """What it takes to assemble a TIFF's samples from its strips or tiles.

    Attributes
    ----------
    kind : str
        NumPy's name of the type, with its order of bytes.
    size : tuple of int
        Height, width and channels, as stored.
    piece : tuple of int
        Height and width of a strip or tile.
    pieces : list of tuple of int
        Where each strip or tile begins, and its bytes.
    is_tiled, is_planar, is_inverted : bool
        Whether pieces are tiles, whether each holds one channel, and whether zero is white.
    compression, predictor, orientation : int
        Values of these fields.
    """

    kind: str
    size: tuple[int, int, int]
    piece: tuple[int, int]
    pieces: list[tuple[int, int]]
    is_tiled: bool
    is_planar: bool
    is_inverted: bool
    compression: int
    predictor: int
    orientation: int


def tiff_layout(data: bytes) -> TiffLayout:
    """Return the layout of a TIFF that ``decodable`` has checked, or of a BigTIFF."""
    try:
        directory = Directory(data)
    except struct.error:
        raise CorruptImageError("truncated: the data end inside the header") from None
    samples, is_wide = directory.number(SAMPLES, 1), directory.number(BITS, 1) > 8
    is_planar = (is_wide or samples == 2) and samples > 1 and directory.number(PLANAR, 1) == 2
    is_plain = directory.number(EXTRA_SAMPLES, 0) == UNASSOCIATED
    is_signed, bits = directory.number(SAMPLE_FORMAT, 1) == SIGNED, directory.number(BITS, 1)
    is_foreign = directory.number(COMPRESSION, 1) not in KNOWN
    is_foreign |= directory.number(COMPRESSION, 1) == JPEG and bits != 8
    is_foreign |= (is_signed and bits == 8) or (directory.number(SAMPLE_FORMAT, 1) == FLOATING and bits == 16)
    return TiffLayout(
        is_planar, not is_wide and is_plain, is_wide and is_plain and samples == 4, samples == 2 and not is_wide,
        is_foreign, is_signed, directory.number(COMPRESSION, 1), directory.number(PHOTOMETRIC, 1), samples,
    )  # fmt: skip


def compression_name(data: bytes) -> str:
    """Return what a TIFF's compression is called, with its number."""
    number = Directory(data).number(COMPRESSION, 1)
    return f"{NAMES.get(number, 'of another program')} ({number})"


def tiff_samples(data: bytes) -> TiffSamples | None:
    """Return how a TIFF or BigTIFF holds its samples; None where they are no whole bytes of greys or of colours.

    Raises
    ------
    CorruptImageError
        Where its directory or its pieces are not in the file.
    """
    complete_tiff(data)
    directory = Directory(data)
    meaning, count, bits = (
        directory.number(PHOTOMETRIC, 1),
        directory.number(SAMPLES, 1),
        directory.number(BITS, 1),
    )
    form, is_inverted = directory.number(SAMPLE_FORMAT, 1), meaning == INVERTED
    letter = {1: "u", SIGNED: "i", FLOATING: "f", 4: "u"}.get(form, "")
    sizes = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}.get(letter, ())
    is_meant = (meaning, count) in {
        (INVERTED, 1),
        (INVERTED, 2),
        (GREY, 1),
        (GREY, 2),
        (COLORS, 3),
        (COLORS, 4),
    }
    is_plain = len({*directory.numbers(BITS, (1,))}) == 1 and directory.number(FILL_ORDER, 1) == 1
    if not (is_meant and is_plain and bits in sizes) or (is_inverted and letter != "u"):
        return None
    height, width = directory.number(HEIGHT, 0), directory.number(WIDTH, 0)
    is_tiled = TILE_OFFSETS in directory.entries
    down = directory.number(TILE_HEIGHT, height) if is_tiled else directory.number(ROWS_PER_STRIP, height)
    piece = (down if is_tiled else min(down, height), directory.number(TILE_WIDTH, width) if is_tiled else width)
    if piece[0] * piece[1] > max(4 * height * width, 1 << 22):
        raise CorruptImageError(f"corrupt: the TIFF of {height} x {width} has tiles of {piece[0]} x {piece[1]}")
    offsets = directory.numbers(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
    lengths = directory.numbers(TILE_BYTES if is_tiled else STRIP_BYTES)
    if len(offsets) != len(lengths):
        raise CorruptImageError("corrupt: the TIFF does not give the length of each strip or tile")
    return TiffSamples(
        f"{directory.order}{letter}{bits // 8}", (height, width, count), piece,
        list(zip(offsets, lengths, strict=True)), is_tiled, directory.number(PLANAR, 1) == 2, is_inverted,
        directory.number(COMPRESSION, 1), directory.number(PREDICTOR, 1), directory.number(ORIENTATION, 1),
    )  # fmt: skip


def tiff_planes(data: bytes) -> list[bytes]:
    """Return the channels of a planar TIFF of greys, or of red, green and blue, with alpha: each a TIFF of greys.

    Decoders mix up its channels, leave one out or multiply them by the alpha.

    Raises
    ------
    CorruptImageError
        Where its channels mean something else.
    """
    directory = Directory(data)
    samples, meaning = directory.number(SAMPLES, 1), directory.number(PHOTOMETRIC, 1)
    if (meaning, samples) not in ((GREY, 2), (COLORS, 3), (COLORS, 4)):
        raise CorruptImageError(
            f"unsupported: a TIFF that stores {samples} channels one after the other, of photometric interpretation "
            f"{meaning}"
        )
    return [directory.plane(number, samples) for number in range(samples)]
