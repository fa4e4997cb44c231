"""Checks of an encoded image that its decoder does not make, and what the decoder must not be given.

libpng ends the process at damaged frames of an animation, and libtiff fills what it cannot decode with zeros. Each
check reads the file's structure; only deflated and packed TIFFs are decompressed once more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from itertools import accumulate, groupby
from typing import NamedTuple

from sparkopt.errors import CorruptImageError
from sparkopt.io.filesystem import brief
from sparkopt.io.image_header import Header, read_header
from sparkopt.io.tiff_directory import Directory
from sparkopt.io.tiff_tags import (
    BITS,
    COLORS,
    COMPRESSION,
    FILL_ORDER,
    GREY,
    HEIGHT,
    INDEXED,
    JPEG,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    SUBSAMPLED,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
)

__all__ = ["complete_tiff", "decodable", "too_few_samples"]

ANIMATION = (b"acTL", b"fcTL", b"fdAT")
"""Chunks of an animated PNG which are not those of its default image."""
STORED, DEFLATED = (1,), (8, 32946)
"""Compressions of TIFFs: none, and Deflate."""
PACKED = (5, 32773)
"""LZW and PackBits."""
MOST_SAMPLES, MOST_BITS = 32, 64
"""Channels of an image, and bits of a sample: no decoder returns more, and some allocate them."""
AT_ONCE, LARGE_PIECE = 1 << 20, 1 << 26
"""Bytes that are inflated at once, and of a tile that is refused where all of the image is smaller than a quarter."""


def decodable(data: bytes, header: Header) -> bytes:
    """Return what a decoder may be given of an image: all of it, or a PNG without its animation.

    Parameters
    ----------
    data : bytes
        The encoded image.
    header : Header
        What ``read_header`` returned for it.

    Raises
    ------
    CorruptImageError
        For a TIFF whose samples or palette are incomplete or damaged.
    """
    check = _CHECKS.get(header.format)
    return data if check is None else check(data)


def _still(data: bytes) -> bytes:
    """Return a PNG without the chunks of its animation."""
    pieces, begin, position = [], 0, 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] in ANIMATION:
            pieces.append(data[begin:position])
            begin = end
        position = end
    return b"".join([*pieces, data[begin:]]) if pieces else data


def complete_tiff(data: bytes) -> bytes:
    """Return a TIFF whose palette and samples are in the file, and can be unpacked."""
    try:
        directory = Directory(data)
        is_indexed = directory.number(PHOTOMETRIC, 1) == INDEXED
        if is_indexed and len(directory.numbers(PALETTE)) < 3 << min(directory.number(BITS, 1), 16):
            raise CorruptImageError("corrupt: the TIFF has no palette of its size")
        pieces, compression = [*_pieces(directory)], directory.number(COMPRESSION, 1)
        fill_order = directory.number(FILL_ORDER, 1)
    except struct.error:
        raise CorruptImageError("truncated: the data end inside the header") from None
    if any(piece.where + piece.length > len(data) for piece in pieces):
        raise CorruptImageError("truncated: the TIFF ends before its last samples")
    if compression in STORED and any(piece.length < piece.least for piece in pieces):
        raise too_few_samples()
    if compression in DEFLATED:
        for piece in pieces:
            _inflate(piece.of(data), piece)
    if compression == JPEG:
        for piece in pieces:
            _refuse_half_jpegs(piece.of(data))
    if compression in PACKED:
        _unpack(data, pieces, compression, fill_order)
    return data


def too_few_samples() -> CorruptImageError:
    """Return the error of strips or tiles that are too short."""
    return CorruptImageError("truncated: the TIFF holds fewer samples than its size needs")


class _Piece(NamedTuple):
    """A strip or tile: where it is, and how many bytes it must and may have when it is unpacked."""

    where: int
    length: int
    least: int
    most: int

    def of(self, data: bytes) -> memoryview:
        """Return the packed bytes."""
        return memoryview(data)[self.where : self.where + self.length]


def _pieces(directory: Directory) -> Iterator[_Piece]:
    """Yield each strip or tile; what it must have is 0 where that is not known."""
    is_tiled = TILE_OFFSETS in directory.entries
    width, height = directory.number(WIDTH, 0), directory.number(HEIGHT, 0)
    across = directory.number(TILE_WIDTH, width) if is_tiled else width
    down = (
        directory.number(TILE_HEIGHT, height) if is_tiled else min(directory.number(ROWS_PER_STRIP, height), height)
    )
    samples, is_planar = directory.number(SAMPLES, 1), directory.number(PLANAR, 1) == 2
    if not across or not down or not height or not width:
        raise CorruptImageError("corrupt: the TIFF has strips or tiles of no size")
    if samples > MOST_SAMPLES or directory.number(BITS, 1) > MOST_BITS:
        raise CorruptImageError(f"unsupported: an image of {samples} channels of {directory.number(BITS, 1)} bits")
    offsets = directory.numbers(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
    lengths = directory.numbers(TILE_BYTES if is_tiled else STRIP_BYTES)
    rows, planes = -(-height // down), samples if is_planar else 1
    count = rows * -(-width // across) * planes
    if len(offsets) < count:
        raise CorruptImageError("truncated: the TIFF has fewer strips or tiles than its size needs")
    bits = directory.number(BITS, 1) * (1 if is_planar else samples)
    row, image = -(-across * bits // 8), planes * height * -(-width * bits // 8)
    if row * down > max(LARGE_PIECE, 4 * image) or row * down * count > max(4 * LARGE_PIECE, 4 * image):
        raise CorruptImageError("corrupt: the TIFF has tiles that are far larger than the image")
    if len(lengths) != len(offsets):  # libtiff estimates them
        return
    is_known = directory.number(PHOTOMETRIC, 1) != SUBSAMPLED
    for index, (where, length) in enumerate(zip(offsets[:count], lengths, strict=False)):
        last = height - (rows - 1) * down
        tall = last if not is_tiled and index % rows == rows - 1 else down
        yield _Piece(where, length, tall * row if is_known else 0, row * down)


def _inflate(packed: memoryview, piece: _Piece) -> None:
    """Refuse a deflated strip or tile that does not hold the samples it should, or is not whole."""
    inflater, found = zlib.decompressobj(), 0
    rest: bytes | memoryview = packed
    try:
        while not inflater.eof and found <= 2 * piece.most + AT_ONCE:  # a last strip may have rows below the image
            size = len(inflater.decompress(rest, AT_ONCE))
            found, rest = found + size, inflater.unconsumed_tail
            if not size and not rest:
                break
    except zlib.error as error:
        raise CorruptImageError(f"corrupt: the TIFF's deflated samples are damaged: {error}") from None
    if found < piece.least:
        raise too_few_samples()
    if not inflater.eof:
        raise CorruptImageError("corrupt: the TIFF's deflated samples are damaged: they have no end")


def _refuse_half_jpegs(piece: memoryview) -> None:
    """Refuse a strip or tile of a JPEG without an end, or of too many scans."""
    try:
        read_header(bytes(piece))
    except CorruptImageError as error:
        raise CorruptImageError(f"corrupt: a strip or tile of the TIFF is damaged: {error}") from None


def _unpack(data: bytes, pieces: Sequence[_Piece], compression: int, fill_order: int) -> None:
    """Refuse strips or tiles that Pillow, where it is installed, cannot unpack to the samples they should hold.

    OpenCV fills with zeros what is missing.
    """
    if find_spec("PIL") is None:
        return
    library = import_module("PIL.Image")
    for least, same in groupby(pieces, key=lambda piece: piece.least):
        some, size = [*same], max(1, 16 * AT_ONCE // max(least, 1))
        for start in range(0, len(some) if least else 0, size):
            packed = [piece.of(data) for piece in some[start : start + size]]
            try:
                library.open(BytesIO(_as_levels(packed, least, compression, fill_order))).load()
            except library.DecompressionBombError as error:  # Pillow's own limit, which a program may set
                raise CorruptImageError(f"too large: {error}") from None
            except (OSError, ValueError, SyntaxError) as error:
                raise CorruptImageError(f"corrupt: the TIFF's packed samples are damaged: {brief(error)}") from None


def _as_levels(packed: Sequence[memoryview], least: int, compression: int, fill_order: int) -> bytes:
    """Return a TIFF of greys whose rows are packed strips of so many levels; of large ones, four are a pixel."""
    channels = 1 if least < LARGE_PIECE else 4  # Pillow has a limit of pixels
    count, after = len(packed), 8 + 2 + 12 * 11 + 4
    sizes = [len(one) for one in packed]
    offsets = [*accumulate(sizes[:-1], initial=after + 8 + 8 * count)]
    lists = struct.pack(f"<4H{2 * count}I", 8, 8, 8, 8, *offsets, *sizes)
    first, second = (after + 8, after + 8 + 4 * count) if count > 1 else (offsets[0], sizes[0])
    fields = [
        (WIDTH, 4, 1, least // channels), (HEIGHT, 4, 1, count), (BITS, 3, channels, after if channels > 1 else 8),
        (COMPRESSION, 3, 1, compression), (PHOTOMETRIC, 3, 1, COLORS if channels > 1 else GREY),
        (FILL_ORDER, 3, 1, 2 if fill_order == 2 else 1), (STRIP_OFFSETS, 4, count, first), (SAMPLES, 3, 1, channels),
        (ROWS_PER_STRIP, 4, 1, 1), (STRIP_BYTES, 4, count, second), (PLANAR, 3, 1, 1),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *one) for one in fields)
    return b"".join([b"II*\0", struct.pack("<IH", 8, len(fields)), directory, bytes(4), lists, *packed])


_CHECKS: dict[str, Callable[[bytes], bytes]] = {"png": _still, "tiff": complete_tiff}
