"""The parameters for how partitions' sums travel, and for how rows lie on disk."""

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
        "how sums travel: none, fp16, bf16, int8, qsgd, sign, top-k, random-k, powersgd, or auto",
        typeConverter=TypeConverters.toString,
    )

    blockCodec: Param[str] = Param(
        Params._dummy(),
        "blockCodec",
        "how rows lie on the executors' disks: none (memory-mapped), lz4 or zstd",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(compression="none", blockCodec="none")

    def getCompression(self) -> str:
        """Return compression."""
        return self.getOrDefault(self.compression)

    def _codec(self) -> GradientCodec:
        """What is asked for; "auto" asks for nothing that an optimiser must allow."""
        chosen = self.getCompression()
        return gradient_codec("none" if chosen == "auto" else chosen)

    def setCompression(self: H, value: str) -> H:
        """Set how partitions' sums travel."""
        return self._set(compression=value)

    def getBlockCodec(self) -> str:
        """Return blockCodec."""
        return self.getOrDefault(self.blockCodec)

    def setBlockCodec(self: H, value: str) -> H:
        """Set how rows lie on the executors' disks."""
        return self._set(blockCodec=value)
