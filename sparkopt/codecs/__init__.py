"""Compression under one set of names: bytes, DataFrame columns, images, sound and gradients.

There are two kinds of codec. A :class:`BytesCodec` encodes a value to bytes (``base``, ``lossless``, ``media``), and
``registry`` finds it by name: start at :func:`compress`. A :class:`GradientCodec` encodes a vector and passes on a
state from one step to the next (``gradient/``): start at :func:`gradient_codec`. ``spark`` compresses columns of a
DataFrame, and ``comparison`` measures what each codec saves.

Imports only ``errors``, ``typing``, ``validation`` and ``io``. Only ``spark`` needs Spark; its names are loaded when
they are first used.

To add a codec of bytes, write a :class:`BytesCodec` and list it in ``LOSSLESS`` or ``MEDIA``. To add a codec of
gradients, write a :class:`GradientCodec` in ``gradient/`` and list it in ``GRADIENT_CODECS``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.codecs.base import MAX_SIZE, BytesCodec
from sparkopt.codecs.gradient import (
    GRADIENT_CODECS,
    QSGD,
    BFloat16,
    CodecState,
    ErrorFeedback,
    Float16,
    GradientCodec,
    Int8,
    NoCompression,
    PowerSGD,
    RandomK,
    Sign,
    Sparse,
    TopK,
    gradient_codec,
)
from sparkopt.codecs.media import Audio
from sparkopt.codecs.registry import codec_names, compress, decompress, get_codec, register

if TYPE_CHECKING:
    from sparkopt.codecs.comparison import CodecComparison, Measurement
    from sparkopt.codecs.spark import compare, compress_column, decompress_column

__all__ = [
    "GRADIENT_CODECS",
    "MAX_SIZE",
    "QSGD",
    "Audio",
    "BFloat16",
    "BytesCodec",
    "CodecComparison",
    "CodecState",
    "ErrorFeedback",
    "Float16",
    "GradientCodec",
    "Int8",
    "Measurement",
    "NoCompression",
    "PowerSGD",
    "RandomK",
    "Sign",
    "Sparse",
    "TopK",
    "codec_names",
    "compare",
    "compress",
    "compress_column",
    "decompress",
    "decompress_column",
    "get_codec",
    "gradient_codec",
    "register",
]

_LAZY = {
    "CodecComparison": "comparison",
    "Measurement": "comparison",
    "compare": "spark",
    "compress_column": "spark",
    "decompress_column": "spark",
}


def __getattr__(name: str) -> Any:
    """Load Spark and pandas only for the names that need them."""
    if name in _LAZY:
        return getattr(import_module(f"sparkopt.codecs.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
