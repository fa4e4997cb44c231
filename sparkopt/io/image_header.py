"""Headers of encoded images, read without decoding a pixel.

A decoder allocates the size in the header, so that size is checked first. Only the six formats of this module are
passed to OpenCV. Truncated files are detected here too, because not every decoder treats half an image as an error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from sparkopt.errors import CorruptImageError, ParameterError
from sparkopt.io.image_boxes import format_of, stored_size
from sparkopt.values import dataclass

__all__ = ["ENDINGS", "MAX_PIXELS", "Header", "endings_glob", "is_image_name", "read_header"]

ENDINGS = (
    "png", "jpg", "jpeg", "jpe", "jfif", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff",
    "avif", "heic", "heif", "hif", "jp2", "j2k", "jpx", "jpf", "jpc", "jxl", "dcm", "dicom",
)  # fmt: skip
"""Endings of the names of image files, in any case: what commands and ``images.read`` take for an image."""

MAX_PIXELS = 2**26
"""Largest image that is decoded by default: 67 megapixels, 192 MiB as RGB bytes."""

MOST_SCANS = 100
"""Scans of a JPEG. Encoders write about ten; each costs as much time as a whole picture, and a few bytes."""

_MAX_BLOCKS = 2**16  # most segments, chunks or tags that are read; a header with more is corrupt
_PNG_START = b"\0\0\0\x0dIHDR"
_ORIENTATION_TAG = 274
_WIDTH_TAG, _HEIGHT_TAG, _BITS_TAG = 256, 257, 258


@dataclass(frozen=True)
class Header:
    """Format, stored size and EXIF orientation of an encoded image.

    Parameters
    ----------
    format : {"jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic", "jpeg2000", "jpegxl", "bigtiff", "dicom"}
        The file format; the latter six are decoded where a library for them is installed.
    height, width : int
        Size in pixels as stored, before the orientation is applied.
    orientation : int, default 1
        EXIF orientation, 1 to 8; 5 to 8 exchange height and width.
    bits : int, default 8
        Bits of a sample, where the file says it: all but JPEG, WebP, GIF, BMP and DICOM.
    """

    format: str
    height: int
    width: int
    orientation: int = 1
    bits: int = field(default=8, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image after its orientation is applied."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def is_image_name(name: str, endings: Sequence[str] = ENDINGS) -> bool:
    """Whether a file's name has one of the endings, in any case; the ending "*" is that of any name."""
    return "*" in endings or name.rpartition("/")[2].rpartition(".")[2].lower() in endings


def endings_glob(endings: Sequence[str] = ENDINGS) -> str:
    """Return Hadoop's pattern of names with one of the endings, in any case."""
    anyhow = ("".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in end) for end in endings)
    return f"*.{{{','.join(anyhow)}}}"


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    r"""Read the header, and refuse files that a decoder must not see.

    Parameters
    ----------
    data : bytes
        The encoded image.
    max_pixels : int, default 2**26
        Largest height × width that is accepted.

    Raises
    ------
    CorruptImageError
        Its message begins with the reason and a colon: ``empty``, ``not an image``, ``truncated``, ``corrupt``,
        ``unsupported`` or ``too large``.
    ParameterError
        For anything but bytes, such as a path.

    Examples
    --------
    >>> read_header(b"BM" + bytes(12) + b"\x28" + bytes(3) + b"\x03" + bytes(3) + b"\x02" + bytes(3))
    Header(format='bmp', height=2, width=3, orientation=1)
    """
    if not isinstance(data, bytes):
        data = _as_bytes(data)
    if not data:
        raise CorruptImageError("empty: the value holds no bytes")
    read = next((reader for magic, reader in _READERS.items() if data.startswith(magic)), None)
    kind = format_of(data) if read is None else None
    if read is None and kind is None:
        raise CorruptImageError(
            "not an image: neither JPEG, PNG, WebP, GIF, BMP, TIFF, nor a format of other decoders"
        )
    try:
        header = read(data) if read is not None else Header(str(kind), *stored_size(data, str(kind)))
    except (struct.error, IndexError) as error:
        raise CorruptImageError("truncated: the data end inside the header") from error
    if header.height < 1 or header.width < 1:
        raise CorruptImageError(f"corrupt: the header gives a size of {header.height} x {header.width}")
    if header.height * header.width > max_pixels:
        raise CorruptImageError(
            f"too large: {header.height} x {header.width} pixels exceed the limit of {max_pixels} pixels"
        )
    return header


def _as_bytes(data: Any) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, bytearray | memoryview):
        raise ParameterError(
            f"data must be the bytes of an image file. Got {type(data).__name__} instead; of a path, give what "
            "pathlib.Path(path).read_bytes() returns."
        )
    return bytes(data)


def _jpeg(data: bytes) -> Header:
    position, orientation = 2, 1
    for _ in range(_MAX_BLOCKS):
        if data[position] != 0xFF:
            raise CorruptImageError("corrupt: a JPEG marker is missing")
        marker = data[position + 1]
        if marker == 0x00:  # libjpeg would skip it and what follows as it likes, and find another size
            raise CorruptImageError("corrupt: a JPEG marker is missing")
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill byte, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker == 0xE1 and data[body : body + 6] == b"Exif\0\0" and orientation == 1:
            orientation = _exif_orientation(data[body + 6 : position + 2 + length])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack_from(">HH", data, body + 1)
            # FF D9 cannot occur inside compressed data, where each FF is followed by 00 or a restart marker.
            if data.rfind(b"\xff\xd9", body) < 0:
                raise CorruptImageError("truncated: the JPEG has no end-of-image marker")
            _refuse_many_scans(data, position)
            return Header("jpeg", height, width, orientation)
        position += 2 + length
    raise CorruptImageError("corrupt: the JPEG has no start-of-frame marker")


_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def _refuse_many_scans(data: bytes, position: int) -> None:
    """Raise CorruptImageError for a JPEG, whose frame starts at ``position``, of more scans than encoders write."""
    components, scans = 0, 0
    while (found := _MARKER.search(data, position)) is not None and found[1] != b"\xd9":
        marker, body = data[found.end() - 1], found.end()
        if body + 2 > len(data):
            return
        position = body + (data[body] << 8 | data[body + 1])
        if marker == 0xDA:
            scans += 1
            if scans == 1 and data[body + 2 : body + 3] == bytes([components]):
                return  # not progressive, and its first scan has all components: no other is decoded
            if scans == 1 and data.count(b"\xff\xda") <= MOST_SCANS:  # this is quicker than to look at each
                return
            if scans > MOST_SCANS:
                raise CorruptImageError(f"corrupt: the JPEG has more than {MOST_SCANS} scans")
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            components = data[body + 7] if marker in (0xC0, 0xC1) and body + 7 < len(data) else 0


def _png(data: bytes) -> Header:
    if data[8:16] != _PNG_START:
        raise CorruptImageError("corrupt: the PNG does not begin with a header of 13 bytes")
    width, height = struct.unpack_from(">II", data, 16)
    position, orientation, has_pixels = 33, 1, False
    for _ in range(_MAX_BLOCKS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):  # OpenCV would allocate what any chunk claims to have
            raise CorruptImageError("truncated: the PNG ends before its last chunk does")
        if kind == b"IDAT":
            has_pixels = True
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : end - 4])
        elif kind == b"IEND":
            if length or not has_pixels:
                raise CorruptImageError(f"corrupt: the PNG has {'a long end' if length else 'no pixels'}")
            return Header("png", height, width, orientation, data[24])
        elif kind == b"IHDR":
            raise CorruptImageError("corrupt: the PNG has two headers")
        position = end
    raise CorruptImageError("corrupt: the PNG has too many chunks")


def _webp(data: bytes) -> Header:
    (riff,) = struct.unpack_from("<I", data, 4)
    if data[8:12] != b"WEBP":
        raise CorruptImageError("not an image: a RIFF file that is not WebP")
    if riff + 8 > len(data):
        raise CorruptImageError("truncated: the WebP is shorter than its header says")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return Header("webp", height, width)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise CorruptImageError("corrupt: the WebP begins with an unknown chunk")
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    return Header("webp", height, width, _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    position = 12
    for _ in range(_MAX_BLOCKS):
        if position + 8 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"EXIF":
            return _exif_orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return 1


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", height, width)


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header("bmp", abs(height), abs(width))


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    if _WIDTH_TAG not in tags or _HEIGHT_TAG not in tags:
        raise CorruptImageError("corrupt: the TIFF gives no size")
    height, width = tags[_HEIGHT_TAG], tags[_WIDTH_TAG]
    if tags.get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8):
        height, width = width, height
    return Header(
        "tiff", height, width, bits=tags.get(_BITS_TAG, 1)
    )  # OpenCV's TIFF reader applies the orientation itself


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Return the first value of each short or long tag in the first directory; EXIF data have the same layout."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    tags: dict[int, int] = {}
    seen: set[int] = set()
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
        if tag in seen:  # decoders take the first
            continue
        seen.add(tag)
        if kind not in (3, 4) or values < 1 or (values > 1 and tag in (_WIDTH_TAG, _HEIGHT_TAG)):
            continue
        position = entry + 8
        if tag == _BITS_TAG and values > 2:  # three or four values are stored elsewhere
            (position,) = struct.unpack_from(f"{order}I", data, position)
            if position + 4 > len(data):
                continue
        (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, position)
    return tags


def _exif_orientation(exif: bytes) -> int:
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        return _valid_orientation(_tiff_tags(exif).get(_ORIENTATION_TAG, 1))
    except struct.error:  # the pixels can be read in spite of damaged metadata
        return 1


def _valid_orientation(value: int) -> int:
    return value if 1 <= value <= 8 else 1


_READERS: dict[bytes, Callable[[bytes], Header]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": _webp,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
