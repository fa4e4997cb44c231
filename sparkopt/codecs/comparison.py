"""Ratio and speed of each codec on given data, and the codec that is fastest over a given link."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas as pd

from sparkopt.codecs.registry import codec_names, compress, decompress
from sparkopt.errors import IncompatibleError, MissingDependencyError
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["NO_CODEC", "CodecComparison", "Measurement", "byte_codecs", "measure"]

NO_CODEC = "none"
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Measurement:
    """Size and time of one codec on one column.

    Parameters
    ----------
    column : str
        Name of the column.
    codec : str
        Name of the codec, or "none".
    raw, encoded : int
        Bytes before and after.
    encode_seconds, decode_seconds : float
        Time on one core.
    """

    column: str
    codec: str
    raw: int
    encoded: int
    encode_seconds: float
    decode_seconds: float

    @property
    def ratio(self) -> float:
        """Raw bytes per encoded byte."""
        return self.raw / self.encoded if self.encoded else 1.0

    def seconds(self, bandwidth: float) -> float:
        """Time to encode, send at ``bandwidth`` bytes per second, and decode, one after the other."""
        return self.encode_seconds + self.encoded / bandwidth + self.decode_seconds


@dataclass(frozen=True)
class CodecComparison:
    """Measurements of several codecs on several columns.

    Parameters
    ----------
    measurements : tuple of Measurement
        One for each column and codec, "none" among them.
    bandwidth : float
        Speed of the link that the recommendation is for, in bytes per second.
    """

    measurements: tuple[Measurement, ...]
    bandwidth: float

    def recommend(self, bandwidth: float | None = None) -> dict[str, str]:
        """Return for each column the codec with the shortest total time; "none" where compression does not pay.

        Parameters
        ----------
        bandwidth : float, optional
            Another link speed, in bytes per second.
        """
        speed = self.bandwidth if bandwidth is None else check("bandwidth", bandwidth, Interval(0, None, "neither"))
        best: dict[str, Measurement] = {}
        for one in self.measurements:
            if one.column not in best or one.seconds(speed) < best[one.column].seconds(speed):
                best[one.column] = one
        return {column: one.codec for column, one in best.items()}

    def to_pandas(self) -> pd.DataFrame:
        """Return a table: ratio, speed of encoding and decoding in raw megabytes per second, recommendation."""
        recommended = self.recommend()
        return pd.DataFrame(
            {
                "column": one.column,
                "codec": one.codec,
                "ratio": one.ratio,
                "encode MB/s": _speed(one.raw, one.encode_seconds),
                "decode MB/s": _speed(one.raw, one.decode_seconds),
                "link ms": 1e3 * one.seconds(self.bandwidth),
                "recommended": recommended[one.column] == one.codec,
            }
            for one in self.measurements
        )

    def __str__(self) -> str:
        table = self.to_pandas().to_string(index=False, float_format=lambda value: f"{value:.2f}")
        return f"{table}\n(link: {self.bandwidth / _MEGABYTE:g} MB/s)"


def _speed(size: int, seconds: float) -> float:
    return size / seconds / _MEGABYTE if seconds else float("inf")


def byte_codecs() -> list[str]:
    """Names of the lossless codecs of bytes whose packages are installed."""
    usable = []
    for name in codec_names(lossless=True):
        if name == "png":  # encodes images, not bytes
            continue
        try:
            compress(b"x", name)
        except MissingDependencyError:
            continue
        usable.append(name)
    return usable


def measure(column: str, values: Sequence[bytes], codec: str, level: int | None = None) -> Measurement:
    """Encode and decode each value, and check that the round trip is exact.

    Parameters
    ----------
    column : str
        Name of the data in the result.
    values : sequence of bytes
        What to encode, one by one.
    codec : str
        A lossless codec, or "none".
    level : int, optional
        Level of the codec.

    Raises
    ------
    IncompatibleError
        If decoding does not return the values.

    Examples
    --------
    >>> from sparkopt.codecs.comparison import measure
    >>> measure("zeros", [bytes(1000)], "zstd").ratio > 10
    True
    """
    raw = sum(map(len, values))
    if codec == NO_CODEC:
        return Measurement(column, codec, raw, raw, 0.0, 0.0)
    start = time.perf_counter()
    encoded = [compress(value, codec, level) for value in values]
    middle = time.perf_counter()
    decoded = [decompress(value, codec) for value in encoded]
    end = time.perf_counter()
    if decoded != list(values):
        raise IncompatibleError(f"The codec {codec!r} does not reproduce column {column!r}. Choose a lossless one.")
    return Measurement(column, codec, raw, sum(map(len, encoded)), middle - start, end - middle)
