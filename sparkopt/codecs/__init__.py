"""Compression, one vocabulary: bytes, columns, images, sound and gradients.

What needs Spark (`compress_column`, `decompress_column`, `compare`) is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sparkopt.codecs.base import MAX_SIZE, BytesCodec
from sparkopt.codecs.gradient import (
    GRADIENT_CODECS,
    QSGD,
    BFloat16,
    Codec,
    ErrorFeedback,
    Float16,
    Identity,
    Int8,
    PowerSGD,
    RandomK,
    Sign,
    TopK,
    gradient_codec,
)
from sparkopt.codecs.media import Audio
from sparkopt.codecs.registry import codec_names, compress, decompress, get_codec, register

__all__ = [
    "GRADIENT_CODECS",
    "MAX_SIZE",
    "QSGD",
    "Audio",
    "BFloat16",
    "BytesCodec",
    "Codec",
    "ErrorFeedback",
    "Float16",
    "Identity",
    "Int8",
    "PowerSGD",
    "RandomK",
    "Sign",
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

_ON_SPARK = ("compare", "compress_column", "decompress_column")


def __getattr__(name: str) -> Any:
    if name in _ON_SPARK:
        return getattr(import_module("sparkopt.codecs.columns"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_SPARK})
