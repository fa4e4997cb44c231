"""Checks of an encoded image that its decoder does not make, and what the decoder must not be given.

libpng ends the process at damaged frames of an animation, and libtiff fills what it cannot decode with zeros. Each
check reads the file's structure; only deflated TIFFs are decompressed once more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import ClassVar

from sparkopt.errors import CorruptImageError
from sparkopt.io.image_header import Header
from sparkopt.values import dataclass

__all__ = ["TiffLayout", "decodable", "tiff_layout", "tiff_planes"]

ANIMATION = (b"acTL", b"fcTL", b"fdAT")
"""Chunks of an animated PNG which are not those of its default image."""


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
    is_left_to_others : bool
        Whether OpenCV lacks the compression, or drops the alpha of greys.
    """

    is_planar: bool
    has_unassociated_alpha: bool
    is_wide_with_alpha: bool
    is_left_to_others: bool


def tiff_layout(data: bytes) -> TiffLayout:
    """Return the layout of a TIFF that ``decodable`` has checked."""
    directory = _Directory(data)
    samples, is_wide = directory.number(SAMPLES, 1), directory.number(BITS, 1) > 8
    is_planar = (is_wide or samples == 2) and samples > 1 and directory.number(PLANAR, 1) == 2
    is_plain = directory.number(EXTRA_SAMPLES, 0) == UNASSOCIATED
    is_foreign = directory.number(COMPRESSION, 1) in FOREIGN or (samples == 2 and not is_wide)
    return TiffLayout(is_planar, not is_wide and is_plain, is_wide and is_plain and samples == 4, is_foreign)


def tiff_planes(data: bytes) -> list[bytes]:
    """Return the channels of a planar TIFF of greys, or of red, green and blue, with alpha: each a TIFF of greys.

    Decoders mix up its channels, leave one out or multiply them by the alpha.

    Raises
    ------
    CorruptImageError
        Where its channels mean something else.
    """
    directory = _Directory(data)
    samples, meaning = directory.number(SAMPLES, 1), directory.number(PHOTOMETRIC, 1)
    if (meaning, samples) not in ((GREY, 2), (COLORS, 3), (COLORS, 4)):
        raise CorruptImageError(
            f"unsupported: a TIFF that stores {samples} channels one after the other, of photometric interpretation "
            f"{meaning}"
        )
    return [directory.plane(number, samples) for number in range(samples)]


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


@dataclass(frozen=True)
class _Entry:
    """A field of a TIFF's directory: its type, number of values, and where they are."""

    kind: int
    count: int
    at: int


class _Directory:
    """The first directory of a TIFF."""

    SIZES: ClassVar = (None, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
    CODES: ClassVar = {1: "B", 3: "H", 4: "I"}

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        (start,) = struct.unpack_from(f"{self.order}I", data, 4)
        (count,) = struct.unpack_from(f"{self.order}H", data, start)
        self.entries: dict[int, _Entry] = {}
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{self.order}HHI", data, at)
            size = self.SIZES[kind] if kind < len(self.SIZES) else None
            if size is None or tag in self.entries:  # libtiff takes the first of several
                continue
            where = at + 8 if values * size <= 4 else struct.unpack_from(f"{self.order}I", data, at + 8)[0]
            self.entries[tag] = _Entry(kind, values, where)

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return a field's whole numbers; CorruptImageError where they are not in the file."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in self.CODES:
            return default
        size = self.SIZES[entry.kind] or 1
        if entry.at + entry.count * size > len(self.data):
            raise CorruptImageError("truncated: the TIFF ends before the values of its header")
        found: tuple[int, ...] = struct.unpack_from(
            f"{self.order}{entry.count}{self.CODES[entry.kind]}", self.data, entry.at
        )
        return found or default

    def number(self, tag: int, default: int) -> int:
        """Return a field's first whole number."""
        return self.numbers(tag, (default,))[0]

    def plane(self, number: int, planes: int) -> bytes:
        """Return a TIFF of one channel of a planar one, as greys: the same file with another directory at its end."""
        changed = {BITS: (3, self.numbers(BITS, (1,))[:1]), PHOTOMETRIC: (3, (1,)), SAMPLES: (3, (1,))}
        formats = self.numbers(SAMPLE_FORMAT)[:1]
        changed |= {SAMPLE_FORMAT: (3, formats)} if formats else {}
        for tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
            found = self.numbers(tag)
            size = len(found) // planes
            changed |= {tag: (4, found[number * size : (number + 1) * size])} if found else {}
        for tag in (WIDTH, HEIGHT, COMPRESSION, ROWS_PER_STRIP, PREDICTOR, FILL_ORDER, TILE_WIDTH, TILE_HEIGHT):
            found = self.numbers(tag)[:1]
            changed |= {tag: (4, found)} if found else {}
        start = len(self.data) + len(self.data) % 2
        after = start + 2 + 12 * len(changed) + 4
        fields, long = b"", b""
        for tag, (kind, values) in sorted(changed.items()):
            packed = struct.pack(f"{self.order}{len(values)}{self.CODES[kind]}", *values)
            if len(packed) > 4:
                packed, long = struct.pack(f"{self.order}I", after + len(long)), long + packed
            fields += struct.pack(f"{self.order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        count, pad = struct.pack(f"{self.order}H", len(changed)), bytes(len(self.data) % 2)
        where = struct.pack(f"{self.order}I", start)
        return b"".join([self.data[:4], where, self.data[8:], pad, count, fields, bytes(4), long])


WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PALETTE = 273, 277, 278, 279, 284, 320
EXTRA_SAMPLES, SAMPLE_FORMAT, PREDICTOR, FILL_ORDER = 338, 339, 317, 266
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
FOREIGN = (34925, 50000)
"""Compressions that OpenCV's libtiff is built without: LZMA and Zstandard."""
STORED, DEFLATED, GREY, COLORS, INDEXED, SUBSAMPLED, UNASSOCIATED = (1,), (8, 32946), 1, 2, 3, 6, 2


def _complete(data: bytes) -> bytes:
    """Return a TIFF whose palette and samples are in the file, and inflate."""
    try:
        directory = _Directory(data)
        is_indexed = directory.number(PHOTOMETRIC, 1) == INDEXED
        if is_indexed and len(directory.numbers(PALETTE)) < 3 << min(directory.number(BITS, 1), 16):
            raise CorruptImageError("corrupt: the TIFF has no palette of its size")
        for where, length, expected in _pieces(directory):
            if where + length > len(data):
                raise CorruptImageError("truncated: the TIFF ends before its last samples")
            _check_piece(data[where : where + length], directory.number(COMPRESSION, 1), expected)
    except struct.error:
        raise CorruptImageError("truncated: the data end inside the header") from None
    return data


def _pieces(directory: _Directory) -> Iterator[tuple[int, int, int]]:
    """Yield offset, bytes and decoded bytes of each strip or tile; 0 decoded bytes where they are not known."""
    is_tiled = TILE_OFFSETS in directory.entries
    width, height = directory.number(WIDTH, 0), directory.number(HEIGHT, 0)
    across = directory.number(TILE_WIDTH, width) if is_tiled else width
    down = directory.number(TILE_HEIGHT, height) if is_tiled else directory.number(ROWS_PER_STRIP, height)
    samples, is_planar = directory.number(SAMPLES, 1), directory.number(PLANAR, 1) == 2
    if not across or not down:
        raise CorruptImageError("corrupt: the TIFF has strips or tiles of no size")
    offsets = directory.numbers(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
    lengths = directory.numbers(TILE_BYTES if is_tiled else STRIP_BYTES)
    rows, planes = -(-height // down), samples if is_planar else 1
    if len(offsets) < rows * -(-width // across) * planes:
        raise CorruptImageError("truncated: the TIFF has fewer strips or tiles than its size needs")
    if len(lengths) != len(offsets):  # libtiff estimates them
        return
    bits = directory.number(BITS, 1) * (1 if is_planar else samples)
    is_known = directory.number(PHOTOMETRIC, 1) != SUBSAMPLED
    for index, (where, length) in enumerate(zip(offsets, lengths, strict=True)):
        last = height - (rows - 1) * down
        tall = last if not is_tiled and index % rows == rows - 1 else down
        yield where, length, tall * -(-across * bits // 8) if is_known else 0


def _check_piece(piece: bytes, compression: int, expected: int) -> None:
    """Refuse a strip or tile that does not hold the samples it should."""
    if compression in STORED and len(piece) < expected:
        raise CorruptImageError("truncated: the TIFF holds fewer samples than its size needs")
    if compression not in DEFLATED:
        return
    inflater = zlib.decompressobj()
    try:
        found = len(inflater.decompress(piece, max(1, expected)))
        if found >= expected:
            inflater.decompress(inflater.unconsumed_tail, 1 << 16)  # to its checksum
    except zlib.error as error:
        raise CorruptImageError(f"corrupt: the TIFF's deflated samples are damaged: {error}") from None
    if found < expected:
        raise CorruptImageError("truncated: the TIFF holds fewer samples than its size needs")


_CHECKS: dict[str, Callable[[bytes], bytes]] = {"png": _still, "tiff": _complete}
