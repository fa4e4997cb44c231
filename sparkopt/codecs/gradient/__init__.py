"""Gradient codecs, error feedback, and the choice of one by name. The interface is in ``base``."""

from __future__ import annotations

from sparkopt.codecs.gradient.base import CodecState, ErrorFeedback, GradientCodec, NoCompression
from sparkopt.codecs.gradient.low_rank import PowerSGD
from sparkopt.codecs.gradient.quantise import QSGD, BFloat16, Float16, Int8, Sign
from sparkopt.codecs.gradient.sparsify import RandomK, Sparse, TopK
from sparkopt.validation import OneOf, check

__all__ = [
    "GRADIENT_CODECS",
    "QSGD",
    "BFloat16",
    "CodecState",
    "ErrorFeedback",
    "Float16",
    "GradientCodec",
    "Int8",
    "NoCompression",
    "PowerSGD",
    "RandomK",
    "Sign",
    "Sparse",
    "TopK",
    "gradient_codec",
]

GRADIENT_CODECS: dict[str, type[GradientCodec]] = {
    codec.name: codec for codec in (NoCompression, Float16, BFloat16, Int8, QSGD, Sign, TopK, RandomK, PowerSGD)
}
"""The gradient codecs by name."""


def gradient_codec(compression: str | GradientCodec) -> GradientCodec:
    """Return the codec for ``compression=``.

    Parameters
    ----------
    compression : str or GradientCodec
        A name, for the codec with its default settings and, if it is lossy, with error feedback. A codec is returned
        unchanged.

    Raises
    ------
    ParameterError
        For an unknown name; the message lists those that exist.

    Examples
    --------
    >>> from sparkopt.codecs import gradient_codec
    >>> gradient_codec("top-k")
    ErrorFeedback(codec=TopK(fraction=0.01))
    """
    if isinstance(compression, GradientCodec):
        return compression
    codec = GRADIENT_CODECS[check("compression", compression, OneOf(GRADIENT_CODECS))]()
    return codec if codec.lossless else ErrorFeedback(codec)
