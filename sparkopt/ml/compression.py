"""The parameter for how partitions' sums travel."""

from __future__ import annotations

from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.codecs.gradient import Codec, gradient_codec

__all__ = ["HasCompression"]

H = TypeVar("H", bound="HasCompression")


class HasCompression(Params):
    """The parameter compression."""

    compression: Param[str] = Param(
        Params._dummy(),
        "compression",
        "how sums travel: none, fp16, bf16, int8, qsgd, sign, top-k, random-k, powersgd, or auto",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(compression="none")

    def getCompression(self) -> str:
        """Return compression."""
        return self.getOrDefault(self.compression)

    def _codec(self) -> Codec:
        """What is asked for; "auto" asks for nothing that an optimiser must allow."""
        chosen = self.getCompression()
        return gradient_codec("none" if chosen == "auto" else chosen)

    def setCompression(self: H, value: str) -> H:
        """Set how partitions' sums travel."""
        return self._set(compression=value)
