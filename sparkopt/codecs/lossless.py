"""Lossless codecs: adapters on zlib, bz2, pyarrow and imagecodecs.

zlib, gzip, bz2, huffman and rle write plain streams of their format, which have a checksum and which other tools
read. lz4, zstd, snappy, brotli, lzw and packbits have none here, so a 16-byte header with size and CRC-32 precedes
their streams (see `sparkopt.codecs.base`).
"""

from __future__ import annotations

import bz2
import zlib
from abc import abstractmethod
from typing import Any

import pyarrow as pa

from sparkopt.codecs.base import MAX_SIZE, BytesCodec, as_bytes, checksum, seal, too_large, unseal
from sparkopt.errors import MissingDependencyError
from sparkopt.validation import Interval

__all__ = ["LOSSLESS", "Arrow", "Bzip2", "Deflate", "Lzw", "PackBits"]

_GZIP_WRAPPER = zlib.MAX_WBITS | 16


class Deflate(BytesCodec):
    """The Deflate family (RFC 1950 to 1952).

    Parameters
    ----------
    name : str
        Name in the registry.
    wrapper : int
        zlib's ``wbits``: a zlib stream with Adler-32, or a gzip stream with CRC-32.
    strategy : int
        zlib's strategy: default, ``Z_HUFFMAN_ONLY`` (no matches) or ``Z_RLE`` (matches of distance one only).
    """

    levels = Interval(0, 9, whole=True)
    default_level = 6

    def __init__(self, name: str, wrapper: int = zlib.MAX_WBITS, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> None:
        self.name = name
        self._wrapper = wrapper
        self._strategy = strategy

    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Compress bytes."""
        chosen = self.level(level)
        assert chosen is not None  # noqa: S101  # this family has a default
        stream = zlib.compressobj(chosen, zlib.DEFLATED, self._wrapper, zlib.DEF_MEM_LEVEL, self._strategy)
        return stream.compress(as_bytes(data)) + stream.flush()

    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> bytes:
        """Decompress bytes."""
        stream = zlib.decompressobj(self._wrapper)
        try:
            out = stream.decompress(data, max_size + 1)  # one more, so that the end of the stream is read too
        except zlib.error as error:
            raise self.corrupt(error) from error
        return _finished(self, out, stream.eof, stream.unused_data, max_size)


class Bzip2(BytesCodec):
    """bzip2: block sorting and Huffman coding; each block has a CRC-32."""

    name = "bz2"
    levels = Interval(1, 9, whole=True)
    default_level = 9

    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Compress bytes."""
        return bz2.compress(as_bytes(data), self.level(level) or 9)

    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> bytes:
        """Decompress bytes."""
        stream = bz2.BZ2Decompressor()
        try:
            out = stream.decompress(data, max_size + 1)
        except OSError as error:
            raise self.corrupt(error) from error
        return _finished(self, out, stream.eof, stream.unused_data, max_size)


def _finished(codec: BytesCodec, out: bytes, ended: bool, rest: bytes, max_size: int) -> bytes:
    """Return ``out`` if it is one complete stream within its bound."""
    if len(out) > max_size:
        raise too_large(codec.name, max_size)
    if not ended:
        raise codec.corrupt("the stream ends early")
    if rest:
        raise codec.corrupt(f"{len(rest)} bytes follow the end of the stream")
    return out


class _Framed(BytesCodec):
    """A format without a checksum, after a header with size and CRC-32. Empty data are the header alone."""

    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Compress bytes."""
        raw, chosen = as_bytes(data), self.level(level)
        return seal(raw, self._pack(raw, chosen) if raw else b"")

    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> bytes:
        """Decompress bytes."""
        encoded, size, expected = unseal(self, data, max_size)
        if bool(size) != bool(encoded):
            raise self.corrupt("the data do not fit the size in their header")
        out = self._unpack(encoded, size) if size else b""
        if len(out) != size or checksum(out, encoded) != expected:
            raise self.corrupt("size or checksum differ from the header")
        return out

    @abstractmethod
    def _pack(self, raw: bytes, level: int | None) -> bytes: ...

    @abstractmethod
    def _unpack(self, encoded: memoryview, size: int) -> bytes: ...


class Arrow(_Framed):
    """A codec of Arrow: lz4 (frame format), zstd, snappy or brotli.

    Parameters
    ----------
    name : str
        Arrow's name of the codec.
    levels : Interval or None
        Levels of the format.
    default_level : int or None
        Arrow's own default.
    """

    def __init__(self, name: str, levels: Interval | None = None, default_level: int | None = None) -> None:
        self.name = name
        self.levels = levels
        self.default_level = default_level

    def _pack(self, raw: bytes, level: int | None) -> bytes:
        encoded: bytes = pa.Codec(self.name, compression_level=level).compress(raw, asbytes=True)
        return encoded

    def _unpack(self, encoded: memoryview, size: int) -> bytes:
        try:
            decoded: bytes = pa.Codec(self.name).decompress(encoded, size, asbytes=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise self.corrupt(str(error).rstrip(".")) from error
        return decoded


class Lzw(_Framed):
    """Lempel-Ziv-Welch coding as in TIFF (Welch 1984)."""

    name = "lzw"

    def _pack(self, raw: bytes, level: int | None) -> bytes:
        return bytes(_imagecodecs(self.name).lzw_encode(raw))

    def _unpack(self, encoded: memoryview, size: int) -> bytes:
        library = _imagecodecs(self.name)
        try:
            return bytes(library.lzw_decode(encoded, out=size))
        except (library.LzwError, ValueError) as error:
            raise self.corrupt(error) from error


class PackBits(_Framed):
    """Run-length coding as in TIFF: a count, then a byte to repeat or that many literal bytes."""

    name = "packbits"
    _CHUNK = 2**12  # the library's encoder takes quadratic time; runs of PackBits end at 128 bytes anyway

    def _pack(self, raw: bytes, level: int | None) -> bytes:
        encode = _imagecodecs(self.name).packbits_encode
        return b"".join(encode(raw[start : start + self._CHUNK]) for start in range(0, len(raw), self._CHUNK))

    def _unpack(self, encoded: memoryview, size: int) -> bytes:
        library = _imagecodecs(self.name)
        try:
            return bytes(library.packbits_decode(encoded, out=size))
        except (library.PackbitsError, ValueError) as error:
            raise self.corrupt(error) from error


def _imagecodecs(codec: str) -> Any:
    try:
        import imagecodecs  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError.of(f"The codec {codec!r}", "imagecodecs", "codecs") from None
    return imagecodecs


LOSSLESS: tuple[BytesCodec, ...] = (
    Deflate("zlib"),
    Deflate("gzip", _GZIP_WRAPPER),
    Deflate("huffman", strategy=zlib.Z_HUFFMAN_ONLY),
    Deflate("rle", strategy=zlib.Z_RLE),
    Bzip2(),
    Arrow("zstd", Interval(1, 22, whole=True), 1),
    Arrow("lz4", Interval(1, 12, whole=True), 1),
    Arrow("brotli", Interval(0, 11, whole=True), 8),
    Arrow("snappy"),
    Lzw(),
    PackBits(),
)
"""The lossless members of the registry."""
