"""The parameters for the codecs of gradients that tasks send, and of blocks on disk."""

from __future__ import annotations

from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.codecs.gradient import GradientCodec, gradient_codec

__all__ = ["HasCompression"]

H = TypeVar("H", bound="HasCompression")


class HasCompression(Params):
    """The parameters compression and blockCodec."""

    compression: Param[str] = Param(
        Params._dummy(),
        "compression",
        "codec of the gradients that tasks send: none, fp16, bf16, int8, qsgd, sign, top-k, random-k, powersgd, auto",
        typeConverter=TypeConverters.toString,
    )

    blockCodec: Param[str] = Param(
        Params._dummy(),
        "blockCodec",
        "compression of the blocks on the executors' disks: none (memory-mapped), lz4 or zstd",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(compression="none", blockCodec="none")

    def getCompression(self) -> str:
        """Return compression."""
        return self.getOrDefault(self.compression)

    def _codec(self) -> GradientCodec:
        """Return the codec that ``compression`` names; none for "auto", which needs nothing of the optimiser."""
        chosen = self.getCompression()
        return gradient_codec("none" if chosen == "auto" else chosen)

    def setCompression(self: H, value: str) -> H:
        """Set the codec of the gradients that tasks send."""
        return self._set(compression=value)

    def getBlockCodec(self) -> str:
        """Return blockCodec."""
        return self.getOrDefault(self.blockCodec)

    def setBlockCodec(self: H, value: str) -> H:
        """Set the compression of the blocks on the executors' disks."""
        return self._set(blockCodec=value)
