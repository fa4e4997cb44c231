"""All codecs of bytes and media by name; `compress` and `decompress`."""

from __future__ import annotations

from typing import Any

from sparkopt.codecs.base import MAX_SIZE, BytesCodec, as_bytes
from sparkopt.codecs.lossless import LOSSLESS
from sparkopt.codecs.media import MEDIA
from sparkopt.validation import Interval, OneOf, check

__all__ = ["codec_names", "compress", "decompress", "get_codec", "register"]

_REGISTRY: dict[str, BytesCodec] = {codec.name: codec for codec in (*LOSSLESS, *MEDIA)}


def register(codec: BytesCodec) -> None:
    """Add a codec of your own under its ``name``.

    Call it in a module that executors import too: each process has its own registry.

    Parameters
    ----------
    codec : BytesCodec
        The codec.

    Raises
    ------
    ParameterError
        If the name is taken.
    """
    if codec.name in _REGISTRY:
        check("name", codec.name, OneOf([f"a name that is not yet taken ({', '.join(_REGISTRY)})"]))
    _REGISTRY[codec.name] = codec


def codec_names(*, lossless: bool | None = None) -> list[str]:
    """Return the names of the registered codecs, or only of the lossless or the lossy ones.

    Parameters
    ----------
    lossless : bool, optional
        True for the lossless codecs, False for the lossy ones.

    Examples
    --------
    >>> from sparkopt.codecs import codec_names
    >>> "zstd" in codec_names(lossless=True)
    True
    """
    return [name for name, codec in _REGISTRY.items() if lossless is None or codec.lossless is lossless]


def get_codec(name: str) -> BytesCodec:
    """Return the codec of this name.

    Parameters
    ----------
    name : str
        A name from `codec_names`.

    Raises
    ------
    ParameterError
        If there is none; the message lists those that exist.
    """
    return _REGISTRY[check("codec", name, OneOf(_REGISTRY))]


def compress(data: Any, codec: str = "zstd", level: int | None = None) -> bytes:
    """Encode data with a codec of the registry.

    Parameters
    ----------
    data : bytes-like, ndarray or Audio
        Bytes for the lossless codecs; an image, uint8 of shape (height, width, channels) in RGB order, for
        png, jpeg and webp; an `Audio` for mp3.
    codec : str, default "zstd"
        A name from `codec_names`.
    level : int, optional
        Compression effort (lossless) or quality (lossy); by default the codec's own.

    Returns
    -------
    bytes

    Raises
    ------
    ParameterError
        For an unknown codec, a level that it does not have, or data of the wrong kind.
    MissingDependencyError
        If the codec needs a package that is not installed.

    Examples
    --------
    >>> from sparkopt.codecs import compress, decompress
    >>> packed = compress(b"spark" * 1000, "zstd", level=3)
    >>> len(packed) < 100
    True
    >>> decompress(packed, "zstd") == b"spark" * 1000
    True
    """
    return get_codec(codec).encode(data, level)


def decompress(data: Any, codec: str, max_size: int = MAX_SIZE) -> Any:
    """Decode what `compress` returned.

    Parameters
    ----------
    data : bytes-like
        Encoded data.
    codec : str
        The name that was given to `compress`.
    max_size : int, default 2**30
        Largest number of decoded bytes; more are refused before or while they are decoded.

    Returns
    -------
    bytes, ndarray or Audio
        The kind of data that the codec encodes.

    Raises
    ------
    CorruptDataError
        If the data are damaged, cut short, or larger than ``max_size``; the message names the codec.
    ParameterError
        For an unknown codec or a ``max_size`` below 0.
    MissingDependencyError
        If the codec needs a package that is not installed.
    """
    check("max_size", max_size, Interval(0, None, whole=True))
    return get_codec(codec).decode(as_bytes(data), max_size)
