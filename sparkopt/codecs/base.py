"""The interface of a codec of bytes or media, and the header of formats that have no checksum.

A codec is a thin adapter on a library. Every codec promises two things: decoding never yields more than a given
number of bytes, and damaged input raises a `CorruptDataError` that names the codec. Lossless codecs also promise that
damaged input never decodes to other data.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from typing import Any

from sparkopt.errors import CorruptDataError, ParameterError
from sparkopt.validation import Interval, check

__all__ = ["FRAME_BYTES", "MAX_SIZE", "BytesCodec", "as_bytes", "checksum", "seal", "too_large", "unseal"]

MAX_SIZE = 2**30
"""Default limit of decoded bytes: 1 GiB."""

_FRAME = struct.Struct("<4sQI")  # magic, decoded size, CRC-32 of the decoded and the encoded bytes
_MAGIC = b"SPO1"

FRAME_BYTES = _FRAME.size
"""Bytes of the header: 16."""


class BytesCodec(ABC):
    """A format that stores data in fewer bytes.

    Attributes
    ----------
    name : str
        Name in the registry.
    lossless : bool
        Whether decoding returns exactly what was encoded.
    levels : Interval or None
        Values of ``level``; None where the format has none. A higher level means a smaller result of a lossless codec
        and a better quality of a lossy one.
    default_level : int or None
        The level used where none is given.
    """

    name: str
    lossless: bool = True
    levels: Interval | None = None
    default_level: int | None = None

    @abstractmethod
    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Encode ``data``."""

    @abstractmethod
    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> Any:
        """Decode what `encode` returned; more than ``max_size`` decoded bytes are refused."""

    def level(self, level: int | None) -> int | None:
        """Return the level to use: the default for None, else ``level`` after a check."""
        if level is None:
            return self.default_level
        if self.levels is None:
            raise ParameterError(f"level must be None: codec {self.name!r} has no levels. Got {level!r} instead.")
        return check(f"level of codec {self.name!r}", level, self.levels)

    def corrupt(self, reason: object) -> CorruptDataError:
        """Return the error for damaged input."""
        return CorruptDataError(f"Not valid {self.name} data: {reason}.")


def as_bytes(data: Any) -> bytes:
    """Return a bytes-like object as bytes, without a copy if it is bytes."""
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
    """Put a 16-byte header before ``encoded``: the size of ``raw`` and a CRC-32 of both, to detect damage."""
    return _FRAME.pack(_MAGIC, len(raw), checksum(raw, encoded)) + encoded


def checksum(raw: bytes, encoded: bytes | memoryview) -> int:
    """Return the CRC-32 of the decoded bytes, to check the decoder, and of the encoded ones, to detect any cut."""
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
