"""How many frames an animated GIF or WebP has, by its structure: a decoder says less of one that is damaged."""

from __future__ import annotations

import struct

from sparkopt.errors import CorruptImageError

__all__ = ["ANIMATED", "count_frames"]

ANIMATED = ("gif", "webp")
"""Formats whose frames can be chosen; a damaged frame of a PNG ends libpng's process."""


def count_frames(data: bytes, kind: str) -> int:
    """Return the number of frames.

    Parameters
    ----------
    data : bytes
        A GIF or WebP whose header ``read_header`` has read.
    kind : str
        Its format; any other than those of ``ANIMATED`` has one frame.

    Raises
    ------
    CorruptImageError
        If the data end before the last frame.
    """
    if kind not in ANIMATED:
        return 1
    try:
        return max(1, (_of_gif if kind == "gif" else _of_webp)(data))
    except (struct.error, IndexError):
        raise CorruptImageError(f"truncated: the {kind.upper()} ends inside a frame") from None


def _of_gif(data: bytes) -> int:
    """Count image descriptors: each is followed by its palette, the size of codes and blocks of at most 255 bytes."""
    position, frames = 13 + _palette(data[10]), 0
    while data[position] != 0x3B:
        if data[position] == 0x2C:
            frames += 1
            position += 10 + _palette(data[position + 9]) + 1
        elif data[position] == 0x21:
            position += 2
        else:
            raise CorruptImageError(f"corrupt: the GIF has a block of an unknown kind, {data[position]:#04x}")
        while data[position]:
            position += 1 + data[position]
        position += 1
    return frames


def _palette(flags: int) -> int:
    """Return the bytes of a palette."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _of_webp(data: bytes) -> int:
    """Count the chunks that hold frames of an animation."""
    position, end, frames = 12, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0]), 0
    while position + 8 <= end:
        (size,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"ANMF":
            frames += 1
            data[position + 8 + size - 1]
        position += 8 + size + (size & 1)
    return frames
