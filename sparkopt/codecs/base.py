"""What a codec of bytes or media is, and the small frame that guards formats without a checksum.

A codec is a thin adapter on a library. Two promises hold for all of them: decoding never yields more than a
given number of bytes, and damaged input is a `CorruptDataError` that names the codec, never a crash. The
lossless ones also promise that damaged input never turns into other data.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from sparkopt.errors import CorruptDataError, ParameterError
from sparkopt.validation import Interval, check

__all__ = ["FRAME_BYTES", "MAX_SIZE", "BytesCodec", "as_bytes", "checksum", "seal", "too_large", "unseal"]

MAX_SIZE = 2**30
"""Default limit of decoded bytes: 1 GiB."""

_FRAME = struct.Struct("<4sQI")  # magic, decoded size, CRC-32 of the decoded and the encoded bytes
_MAGIC = b"SPO1"

FRAME_BYTES = _FRAME.size
"""Bytes that the frame adds: 16."""


class BytesCodec(ABC):
    """One way to write data smaller and read them back.

    Attributes
    ----------
    name : str
        The name in the registry.
    lossless : bool
        Whether decoding gives back exactly what was encoded.
    levels : Interval or None
        Numbers that ``level`` may take, or None where the format has no such choice. A higher level means a
        smaller result of lossless codecs and a better quality of lossy ones.
    default_level : int or None
        The level used where none is given.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = True
    levels: Interval | None = None
    default_level: int | None = None

    @abstractmethod
    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Write ``data`` in this format."""

    @abstractmethod
    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> Any:
        """Read what `encode` wrote, refusing to produce more than ``max_size`` bytes."""

    def level(self, level: int | None) -> int | None:
        """Return the level to use: the default, or ``level`` if this codec knows it."""
        if level is None:
            return self.default_level
        if self.levels is None:
            raise ParameterError(f"level must be None: codec {self.name!r} has no levels. Got {level!r} instead.")
        return check(f"level of codec {self.name!r}", level, self.levels)

    def corrupt(self, reason: object) -> CorruptDataError:
        """Return the error for damaged input, in one wording."""
        return CorruptDataError(f"Not valid {self.name} data: {reason}.")


def as_bytes(data: Any) -> bytes:
    """Return a bytes-like object as bytes, without a copy where it is bytes already."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise ParameterError(f"data must be bytes-like. Got {type(data).__name__} instead.") from None


def too_large(codec: str, max_size: int) -> CorruptDataError:
    """Return the error for data that decode to more than the caller allows."""
    return CorruptDataError(
        f"The {codec} data decode to more than max_size = {max_size} bytes. Raise max_size if you trust them."
    )


def seal(raw: bytes, encoded: bytes) -> bytes:
    """Put the size of ``raw`` and a CRC-32 of both before ``encoded``: 16 bytes by which damage is recognised."""
    return _FRAME.pack(_MAGIC, len(raw), checksum(raw, encoded)) + encoded


def checksum(raw: bytes, encoded: bytes | memoryview) -> int:
    """CRC-32 of the decoded bytes, which guards the decoder, and of the encoded ones, which finds each cut."""
    return zlib.crc32(encoded, zlib.crc32(raw))


def unseal(codec: BytesCodec, data: bytes, max_size: int) -> tuple[memoryview, int, int]:
    """Return the encoded bytes, their declared size, checked against ``max_size``, and the CRC-32."""
    if len(data) < FRAME_BYTES:
        raise codec.corrupt(f"the {FRAME_BYTES}-byte header is incomplete")
    magic, size, expected = _FRAME.unpack_from(data)
    if magic != _MAGIC:
        raise codec.corrupt("it does not begin with the header that compress() writes")
    if size > max_size:
        raise too_large(codec.name, max_size)
    return memoryview(data)[FRAME_BYTES:], size, expected
