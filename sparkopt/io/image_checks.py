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
from typing import ClassVar, NamedTuple

from sparkopt.errors import CorruptImageError
from sparkopt.io.filesystem import brief
from sparkopt.io.image_header import Header, read_header
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
PACKED, JPEG = (5, 32773), 7
"""LZW and PackBits; JPEGs by themselves."""
MOST_SAMPLES, MOST_BITS = 32, 64
"""Channels of an image, and bits of a sample: no decoder returns more, and some allocate them."""
AT_ONCE, LARGE_PIECE = 1 << 20, 1 << 26
"""Bytes that are inflated at once, and of a tile that is refused where all of the image is smaller than a quarter."""
STORED, DEFLATED, GREY, COLORS, INDEXED, SUBSAMPLED, UNASSOCIATED = (1,), (8, 32946), 1, 2, 3, 6, 2


def _complete(data: bytes) -> bytes:
    """Return a TIFF whose palette and samples are in the file, and can be unpacked."""
    try:
        directory = _Directory(data)
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
        raise _too_few_samples()
    if compression in DEFLATED:
        for piece in pieces:
            _inflate(piece.of(data), piece)
    if compression == JPEG:
        for piece in pieces:
            _refuse_half_jpegs(piece.of(data))
    if compression in PACKED:
        _unpack(data, pieces, compression, fill_order)
    return data


def _too_few_samples() -> CorruptImageError:
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


def _pieces(directory: _Directory) -> Iterator[_Piece]:
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
        raise _too_few_samples()
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


_CHECKS: dict[str, Callable[[bytes], bytes]] = {"png": _still, "tiff": _complete}
