"""The fields of the first directory of a TIFF or BigTIFF."""

from __future__ import annotations

import struct
from typing import ClassVar

from sparkopt.errors import CorruptImageError
from sparkopt.io.tiff_tags import (
    BITS,
    COMPRESSION,
    FILL_ORDER,
    HEIGHT,
    PHOTOMETRIC,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
)
from sparkopt.values import dataclass

__all__ = ["Directory", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A field of a TIFF's directory: its type, number of values, and where they are."""

    kind: int
    count: int
    at: int


class Directory:
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
        self.entries: dict[int, Entry] = {}
        for at in range(start + before, start + before + (4 + 2 * wide) * min(count, 1 << 16), 4 + 2 * wide):
            tag, kind, values = struct.unpack_from(f"{self.order}HH{word}", data, at)
            size = self.SIZES[kind] if kind < len(self.SIZES) else None
            if size is None or tag in self.entries:  # libtiff takes the first of several
                continue
            where = at + 4 + wide
            if values * size > wide:
                (where,) = struct.unpack_from(f"{self.order}{word}", data, where)
            self.entries[tag] = Entry(kind, values, where)

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
        changed = {
            BITS: (3, self.numbers(BITS, (1,))[:1]),
            PHOTOMETRIC: (3, (1,)),
            SAMPLES: (3, (1,)),
        }
        formats = self.numbers(SAMPLE_FORMAT)[:1]
        changed |= {SAMPLE_FORMAT: (3, formats)} if formats else {}
        for tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
            found = self.numbers(tag)
            size = len(found) // planes
            changed |= {tag: (4, found[number * size : (number + 1) * size])} if found else {}
        for tag in (
            WIDTH,
            HEIGHT,
            COMPRESSION,
            ROWS_PER_STRIP,
            PREDICTOR,
            FILL_ORDER,
            TILE_WIDTH,
            TILE_HEIGHT,
        ):
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
