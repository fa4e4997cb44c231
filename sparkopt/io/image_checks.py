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

__all__ = [
    "TiffLayout",
    "TiffSamples",
    "compression_name",
    "decodable",
    "tiff_layout",
    "tiff_planes",
    "tiff_samples",
    "too_few_samples",
]

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
        directory = _Directory(data)
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
    number = _Directory(data).number(COMPRESSION, 1)
    return f"{NAMES.get(number, 'of another program')} ({number})"


def tiff_samples(data: bytes) -> TiffSamples | None:
    """Return how a TIFF or BigTIFF holds its samples; None where they are no whole bytes of greys or of colours.

    Raises
    ------
    CorruptImageError
        Where its directory or its pieces are not in the file.
    """
    _complete(data)
    directory = _Directory(data)
    meaning, count, bits = directory.number(PHOTOMETRIC, 1), directory.number(SAMPLES, 1), directory.number(BITS, 1)
    form, is_inverted = directory.number(SAMPLE_FORMAT, 1), meaning == INVERTED
    letter = {1: "u", SIGNED: "i", FLOATING: "f", 4: "u"}.get(form, "")
    sizes = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}.get(letter, ())
    is_meant = (meaning, count) in {(INVERTED, 1), (INVERTED, 2), (GREY, 1), (GREY, 2), (COLORS, 3), (COLORS, 4)}
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
    """The first directory of a TIFF or BigTIFF."""

    SIZES: ClassVar = (None, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, None, None, None, 8, 8, 8)
    CODES: ClassVar = {1: "B", 3: "H", 4: "I", 16: "Q"}

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        is_big = data[2:4] in (b"+\0", b"\0+")
        word, before, wide = ("Q", 8, 8) if is_big else ("I", 2, 4)  # bytes of the count, and of a value
        (start,) = struct.unpack_from(f"{self.order}{word}", data, wide)
        if start >= len(data):  # and maybe beyond of what memory has addresses for
            raise CorruptImageError("truncated: the data end inside the header")
        (count,) = struct.unpack_from(f"{self.order}{'Q' if is_big else 'H'}", data, start)
        self.entries: dict[int, _Entry] = {}
        for at in range(start + before, start + before + (4 + 2 * wide) * min(count, 1 << 16), 4 + 2 * wide):
            tag, kind, values = struct.unpack_from(f"{self.order}HH{word}", data, at)
            size = self.SIZES[kind] if kind < len(self.SIZES) else None
            if size is None or tag in self.entries:  # libtiff takes the first of several
                continue
            where = at + 4 + wide
            if values * size > wide:
                (where,) = struct.unpack_from(f"{self.order}{word}", data, where)
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
KNOWN = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""Compressions that OpenCV decodes; for most others it returns zeros, and no error."""
NAMES = {
    1: "none", 2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    22610: "JPEG XR", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000 of YCbCr", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34926: "Zstandard",
    34927: "WebP", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL",
}  # fmt: skip
PACKED = (5, 32773)
"""LZW and PackBits."""
MOST_SAMPLES, MOST_BITS = 32, 64
"""Channels of an image, and bits of a sample: no decoder returns more, and some allocate them."""
AT_ONCE, LARGE_PIECE = 1 << 20, 1 << 26
"""Bytes that are inflated at once, and of a tile that is refused where all of the image is smaller than a quarter."""
STORED, DEFLATED, GREY, COLORS, INDEXED, SUBSAMPLED, UNASSOCIATED = (1,), (8, 32946), 1, 2, 3, 6, 2
INVERTED, SIGNED, FLOATING, ORIENTATION, JPEG = 0, 2, 3, 274, 7


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


_CHECKS: dict[str, Callable[[bytes], bytes]] = {"png": _still, "tiff": _complete}
