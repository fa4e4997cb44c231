"""Compression, one vocabulary: bytes, columns, images, sound and gradients."""

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
    "compress",
    "decompress",
    "get_codec",
    "gradient_codec",
    "register",
]
