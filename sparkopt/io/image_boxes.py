"""Headers of AVIF, HEIC, JPEG 2000, JPEG XL, BigTIFF and DICOM: their size is known before a decoder allocates it."""

from __future__ import annotations

import re
import struct

from sparkopt.errors import CorruptImageError

__all__ = ["format_of", "is_cmyk", "stored_size"]

CHANNELS = 4
"""Most channels of an image that is read: colours and their transparency; inks may have one more."""

_JP2, _J2K = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_JXL, _JXL_STREAM = b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"
_BRANDS = {b"avif": "avif", b"avis": "avif"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "heic")
_TURNS = {0: 1, 1: 8, 2: 3, 3: 6}
"""EXIF orientations of rotations by quarter turns, counter-clockwise."""
_MIRRORED = {0: (4, 2), 1: (5, 7), 2: (2, 4), 3: (7, 5)}
"""Those of the same turns, and then a mirror: of top and bottom, or of left and right."""
_TURN, _MIRROR = b"\0\0\0\x09irot", b"\0\0\0\x09imir"
_BLOCK = 64
"""Pixels of a side of the largest block of HEVC."""
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_INKS = re.compile(rb"colr(?:\x01..\0\0\0\x0c|\x02...{16}CMYK)", re.S)
_DICOM_SIDES = [re.compile(rb"\x28\x00" + tag + rb"(?:US\x02\x00|\x02\x00\x00\x00)(..)", re.S) for tag in (
    rb"\x10\x00", rb"\x11\x00"
)]  # fmt: skip


def format_of(data: bytes) -> str | None:
    """Return which of this module's formats the data begin as; None for another."""
    if data[4:8] == b"ftyp":
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 96), 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "avif" if "avif" in known else (known[0] if known else None)
    if data.startswith((_JP2, _J2K)):
        return "jpeg2000"
    if data.startswith((_JXL, _JXL_STREAM)):
        return "jpegxl"
    if data.startswith((b"II+\0", b"MM\0+")):
        return "bigtiff"
    return "dicom" if data[128:132] == b"DICM" else None


def stored_size(data: bytes, kind: str) -> tuple[int, int, int, int]:
    """Return (height, width, EXIF orientation, bits of a sample) of what the decoders of a format return.

    Raises
    ------
    CorruptImageError
        Where the data give no size, or end before it.
    """
    return {
        "avif": _boxes, "heic": _boxes, "jpeg2000": _jpeg2000, "jpegxl": _jpegxl, "bigtiff": _bigtiff, "dicom": _dicom
    }[kind](data)  # fmt: skip


def _no_size(kind: str) -> CorruptImageError:
    return CorruptImageError(f"corrupt: the {kind} gives no size")


def _boxes(data: bytes) -> tuple[int, int, int, int]:
    """The largest of the file's images, as its properties say: tiles and thumbnails are smaller."""
    position = 0
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:
            break
        if length < 8 or position + length > len(data):
            raise CorruptImageError("truncated: a box of the AVIF or HEIC is longer than the file")
        position += length
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[:position])]
    if not sizes:
        raise _no_size("AVIF or HEIC")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    orientation = _orientation(data[:position])
    if format_of(data) == "heic":  # its decoder cuts it, and turns it
        height, width = _cut(data[:position], height, width)
        if orientation > 4:
            height, width = width, height
    return height, width, orientation if format_of(data) == "avif" else 1, _video_bits(data[:position])


def _video_bits(data: bytes) -> int:
    """Return the bits of the samples of an AVIF or HEIC, as its decoder's configuration says."""
    found = [8]
    for at in (one.end() for one in re.finditer(b"av1C", data[:-3])):
        found.append(8 if not data[at + 2] & 0x40 else 12 if data[at + 2] & 0x20 else 10)
    found += [8 + (data[one.end() + 17] & 7) for one in re.finditer(b"hvcC", data[:-18])]
    return max(found)


def _orientation(data: bytes) -> int:
    """Return what the image's properties are as an EXIF orientation: a turn, and then a mirror."""
    turn, mirror = data.find(_TURN), data.find(_MIRROR)
    quarters = 0 if turn < 0 else data[turn + len(_TURN)] & 3
    return _TURNS[quarters] if mirror < 0 else _MIRRORED[quarters][data[mirror + len(_MIRROR)] & 1]


def _cut(data: bytes, height: int, width: int) -> tuple[int, int]:
    """Return the size without what fills the last blocks of a video's frame; that of more is not believed."""
    for found in re.finditer(b"clap", data):
        if found.end() + 16 <= len(data):
            across, per_column, down, per_row = struct.unpack_from(">4I", data, found.end())
            inner = (down // max(per_row, 1), across // max(per_column, 1))
            if all(0 <= outer - one < _BLOCK for outer, one in zip((height, width), inner, strict=True)):
                return inner
    return height, width


def is_cmyk(data: bytes) -> bool:
    """Whether the boxes of a JPEG 2000 say, by number or by a profile, that its channels are inks."""
    return _INKS.search(data, 0, max(data.find(b"jp2c"), 0)) is not None


def _jpeg2000(data: bytes) -> tuple[int, int, int, int]:
    sizes = []
    for found in re.finditer(re.escape(_J2K), data):
        length, _, *sides, channels = struct.unpack_from(">HHIIII16xH", data, found.end())
        if length == 38 + 3 * channels:  # else it is no header: decoders refuse it
            sizes.append(sides)
            _check_channels(channels, CHANNELS + is_cmyk(data))
    if not sizes:
        raise _no_size("JPEG 2000")
    for found in re.finditer(rb"pclr..(.)", data[: data.find(_J2K)], re.S):
        _check_channels(found[1][0])
    right, bottom, left, top = max(sizes, key=lambda size: size[0] * size[1])
    depth = data[data.index(_J2K) + 42]
    return bottom - top, right - left, 1, (depth & 0x7F) + 1


def _check_channels(channels: int, most: int = CHANNELS) -> None:
    """Refuse an image of more channels than are read: its decoder allocates all of them."""
    if channels > most:
        raise CorruptImageError(f"unsupported: an image of {channels} channels")


def _jpegxl(data: bytes) -> tuple[int, int, int, int]:
    start = 0
    if data.startswith(_JXL):
        found = re.search(b"jxlc|jxlp", data)
        if found is None:
            raise _no_size("JPEG XL")
        start = found.end() + (4 if found[0] == b"jxlp" else 0)
    if data[start : start + 2] != _JXL_STREAM:
        raise _no_size("JPEG XL")
    bits = _Bits(data[start + 2 : start + 64])
    height, width = bits.size()
    orientation, depth = 1, 8
    if not bits.take(1):  # not all defaults
        if bits.take(1):  # extra fields
            orientation = 1 + bits.take(3)
            bits.pass_extra_fields()
        depth = bits.depth()
    return (width, height, 1, depth) if orientation > 4 else (height, width, 1, depth)  # the decoder turns it


class _Bits:
    """Bits of a JPEG XL codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        if count > self._left:
            raise CorruptImageError("truncated: the data end inside the header")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return found

    def side(self) -> int:
        """Return a side of a size."""
        return 1 + self.take((9, 13, 18, 30)[self.take(2)])

    def size(self) -> tuple[int, int]:
        """Return height and width."""
        is_small = self.take(1)
        height = (self.take(5) + 1) * 8 if is_small else self.side()
        ratio = self.take(3)
        if ratio:
            return height, height * _RATIOS[ratio][0] // _RATIOS[ratio][1]
        return height, (self.take(5) + 1) * 8 if is_small else self.side()

    def depth(self) -> int:
        """Return the bits of a sample."""
        is_floating, choice = self.take(1), self.take(2)
        return 1 + self.take(6) if choice == 3 else ((32, 16, 24) if is_floating else (8, 10, 12))[choice]

    def pass_extra_fields(self) -> None:
        """Pass the size that is meant, and the headers of a preview and of an animation."""
        if self.take(1):
            self.size()
        if self.take(1):
            self._pass_preview()
        if self.take(1):
            for lengths in ((0, 0, 10, 30), (0, 0, 8, 10), (0, 3, 16, 32)):  # ticks, their divisor, loops
                self.take(lengths[self.take(2)])
            self.take(1)

    def _pass_preview(self) -> None:
        lengths = (0, 0, 5, 9) if self.take(1) else (6, 8, 10, 12)
        self.take(lengths[self.take(2)])
        if not self.take(3):
            self.take(lengths[self.take(2)])


def _bigtiff(data: bytes) -> tuple[int, int, int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}Q", data, 8)
    if directory >= len(data):  # and maybe beyond of what memory has addresses for
        raise CorruptImageError("truncated: the data end inside the header")
    (count,) = struct.unpack_from(f"{order}Q", data, directory)
    sides: dict[int, int] = {}
    for number in range(min(count, 1 << 16)):
        tag, kind, values = struct.unpack_from(f"{order}HHQ", data, directory + 8 + 20 * number)
        if tag in (256, 257, 258, 274, 322, 323) and kind in (3, 4, 16) and tag not in sides:
            form, where = {3: "H", 4: "I", 16: "Q"}[kind], directory + 20 + 20 * number
            if tag == 258 and values * struct.calcsize(f"={form}") > 8:  # those of many channels are elsewhere
                (where,) = struct.unpack_from(f"{order}Q", data, where)
                if where + 8 > len(data):
                    continue
            (sides[tag],) = struct.unpack_from(f"{order}{form}", data, where)
    if not {256, 257} <= sides.keys():
        raise _no_size("BigTIFF")
    if sides.get(322, 1) * sides.get(323, 1) > max(1 << 24, 4 * sides[256] * sides[257]):  # decoders allocate a tile
        raise CorruptImageError("corrupt: the BigTIFF has tiles that are far larger than the image")
    is_turned = sides.get(274, 1) in (5, 6, 7, 8)  # its decoders turn it
    return sides[256 if is_turned else 257], sides[257 if is_turned else 256], 1, sides.get(258, 1)


def _dicom(data: bytes) -> tuple[int, int, int, int]:
    sides = [found[1] for side in _DICOM_SIDES if (found := side.search(data)) is not None]
    if len(sides) < 2:
        raise _no_size("DICOM file")
    height, width = (struct.unpack("<H", side)[0] for side in sides)
    return height, width, 1, 8
