"""Gradient codecs that keep every entry and store it in fewer bits."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import ArrayLike

from sparkopt.codecs.gradient.base import CodecState, GradientCodec, as_vector, same_length
from sparkopt.errors import IncompatibleError
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["QSGD", "BFloat16", "Float16", "Int8", "Sign"]

_LEAST_EXPONENT, _MOST_EXPONENT = -1074, 128
"""Exponents of two for fp16: that of float64's smallest number, and one beyond all that may be encoded."""


@dataclass(frozen=True)
class Float16(GradientCodec):
    """IEEE half precision times a power of two (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2).

    The power of two scales the largest entry to [½, 1), so that sums over millions of rows do not overflow and small
    gradients do not vanish: an entry keeps 11 bits down to 6e-5 of the largest one. Up to 65,504 payloads can be
    added. Each sum is rounded to half precision, which error feedback does not correct. 2 bytes per entry + 4.
    """

    name = "fp16"
    summable = True
    _HEADER = struct.Struct("<i")  # exponent

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        exponent = int(np.frexp(np.abs(vector).max())[1])
        return self._pack(np.ldexp(vector, -exponent), exponent), state

    def decode(self, payload: bytes) -> Floats:
        return np.ldexp(*self._unpack(payload))

    def add(self, a: bytes, b: bytes) -> bytes:
        same_length(self, a, b)
        (x, x_exponent), (y, y_exponent) = self._unpack(a), self._unpack(b)
        exponent = max(x_exponent, y_exponent)
        return self._pack(np.ldexp(x, x_exponent - exponent) + np.ldexp(y, y_exponent - exponent), exponent)

    def _pack(self, scaled: Floats, exponent: int) -> bytes:
        return self._HEADER.pack(exponent) + scaled.astype("<f2").tobytes()

    def _unpack(self, payload: bytes) -> tuple[Floats, int]:
        (exponent,) = self.unpack(self._HEADER, payload)
        body = memoryview(payload)[self._HEADER.size :]
        if not body or len(body) % 2:
            raise self.corrupt(payload)
        if not _LEAST_EXPONENT <= exponent <= _MOST_EXPONENT:
            raise self.corrupt(payload, f"2^{exponent} is no factor of it")
        return self.finite(np.frombuffer(body, "<f2"), payload).astype(np.float64), exponent


@dataclass(frozen=True)
class BFloat16(GradientCodec):
    """The upper half of float32, rounded to even (Kalamkar et al. 2019, "A Study of BFLOAT16", section 2).

    The range of float32 with 8 bits of precision. 2 bytes per entry.
    """

    name = "bf16"
    summable = True

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        return self._round(vector.astype(np.float32)).tobytes(), state

    def decode(self, payload: bytes) -> Floats:
        return self._widen(payload).astype(np.float64)

    def add(self, a: bytes, b: bytes) -> bytes:
        same_length(self, a, b)
        return self._round(self._widen(a) + self._widen(b)).tobytes()

    def _round(self, single: Array) -> Array:
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")

    def _widen(self, payload: bytes) -> Array:
        if not payload or len(payload) % 2:
            raise self.corrupt(payload)
        return self.finite((np.frombuffer(payload, "<u2").astype(np.uint32) << 16).view(np.float32), payload)


@dataclass(frozen=True)
class Int8(GradientCodec):
    """Whole numbers from −127 to 127 times a scale (Dettmers 2016, "8-Bit Approximations for Parallelism").

    x ≈ q · range / 127 with q rounded to nearest. Payloads can be added if they have the same range, so the workers
    agree on one (`propose`, `agree`): the largest absolute entry of all of them, on this step or the one before.
    Entries beyond an agreed range saturate; error feedback sends the rest later. Without agreement each payload has
    its own range. Sums are exact: they are stored in 16 and then 32 bits as more payloads are added. 1 byte per
    entry + 8.
    """

    name = "int8"
    summable = True
    shared = True
    _HEADER = struct.Struct("<fI")  # range, number of payloads added up
    _MOST = 127
    _ADDED = (2**31 - 1) // _MOST  # payloads whose sum 32 bits hold

    def init(self, size: int) -> CodecState:
        return {"range": np.zeros(())}

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        limit = np.float32(float(state["range"]) or self.propose(vector, state))
        scaled = np.rint(vector * (self._MOST / float(limit)))
        return self._pack(np.clip(scaled, -self._MOST, self._MOST), float(limit), 1), state

    def decode(self, payload: bytes) -> Floats:
        counts, limit, _ = self._unpack(payload)
        return counts * (limit / self._MOST)

    def add(self, a: bytes, b: bytes) -> bytes:
        (x, x_limit, x_count), (y, y_limit, y_count) = self._unpack(a), self._unpack(b)
        if x_limit != y_limit or x.size != y.size:
            raise IncompatibleError(
                f"int8 payloads of {x.size} and {y.size} entries with ranges {x_limit:g} and {y_limit:g} cannot be "
                "added: let the workers agree on one range first (propose, agree), or decode and add the vectors."
            )
        if x_count + y_count > self._ADDED:
            raise IncompatibleError(
                f"int8 payloads of {x_count:,} and {y_count:,} workers cannot be added: their sum has 32 bits, which "
                f"hold {self._ADDED:,}. Decode them and add the vectors."
            )
        return self._pack(x.astype(np.int64) + y, x_limit, x_count + y_count)

    def propose(self, x: ArrayLike, state: CodecState) -> float:
        # rounded up to float32, the type in the payload, so that the largest entry does not saturate
        return float(np.nextafter(np.float32(np.abs(as_vector(x, self)).max()), np.float32(np.inf)))

    def agree(self, state: CodecState, value: float) -> CodecState:
        check("value", value, Interval(0))
        return {**state, "range": np.asarray(float(np.float32(value)))}

    def _width(self, count: int) -> str:
        most = self._MOST * count
        return "<i1" if most < 2**7 else "<i2" if most < 2**15 else "<i4"

    def _pack(self, counts: Array, limit: float, count: int) -> bytes:
        return self._HEADER.pack(limit, count) + counts.astype(self._width(count)).tobytes()

    def _unpack(self, payload: bytes) -> tuple[Array, float, int]:
        limit, count = self.unpack(self._HEADER, payload)
        body, width = memoryview(payload)[self._HEADER.size :], np.dtype(self._width(count))
        if not body or len(body) % width.itemsize or not 0 < count <= self._ADDED:
            raise self.corrupt(payload)
        self.finite(np.asarray(limit), payload)
        return np.frombuffer(body, width), limit, count


@dataclass(frozen=True)
class QSGD(GradientCodec):
    """Random rounding to a few levels, unbiased (Alistarh et al. 2017, "QSGD", equation 3, with buckets, section 4).

    Each bucket of entries is scaled by its largest one, as in the paper's experiments, and |x| / scale is rounded at
    random to a multiple of 1/levels so that the mean is right. Entries are packed in ⌈log₂(2·levels + 1)⌉ bits.

    Parameters
    ----------
    levels : int, default 7
        s in the paper, from 1 to 127; 7 needs 4 bits per entry.
    bucket : int, default 128
        Entries that share a scale of 4 bytes. A larger bucket saves bytes and raises the variance
        ω = min(bucket / 4·levels², √bucket / levels), the bound of Lemma 3.1 for this scale.
    """

    levels: int = 7
    bucket: int = 128

    name = "qsgd"
    _HEADER = struct.Struct("<I")  # entries

    def __post_init__(self) -> None:
        check("levels", self.levels, Interval(1, 127, whole=True))
        check("bucket", self.bucket, Interval(1, None, whole=True))

    @property
    def bits(self) -> int:
        """Bits per entry."""
        return (2 * self.levels).bit_length()

    def variance(self, size: int) -> float:
        entries = min(self.bucket, size)
        return min(entries / (4 * self.levels**2), math.sqrt(entries) / self.levels)

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        rows = np.pad(vector, (0, -vector.size % self.bucket)).reshape(-1, self.bucket)
        scales = np.nextafter(np.abs(rows).max(axis=1).astype("<f4"), np.float32(np.inf))
        exact = (rows / scales[:, None] * self.levels).ravel()[: vector.size]
        rounded = np.floor(exact + rng.random(vector.size))  # floor(a + u) has mean a, for negative a too
        symbols = (rounded + self.levels).astype(np.uint8)
        bits = np.unpackbits(symbols[:, None], axis=1)[:, 8 - self.bits :]
        return self._HEADER.pack(vector.size) + scales.tobytes() + np.packbits(bits).tobytes(), state

    def entries(self, payload: bytes) -> int:
        return int(self.unpack(self._HEADER, payload)[0])

    def decode(self, payload: bytes) -> Floats:
        (size,) = self.unpack(self._HEADER, payload)
        start = self._HEADER.size + 4 * -(-size // self.bucket)
        if not size or len(payload) != start + -(-size * self.bits // 8):
            raise self.corrupt(payload)
        scales = self.finite(np.frombuffer(payload[self._HEADER.size : start], "<f4"), payload).astype(np.float64)
        bits = np.unpackbits(np.frombuffer(payload[start:], np.uint8), count=size * self.bits).reshape(
            size, self.bits
        )
        symbols = np.packbits(np.pad(bits, ((0, 0), (8 - self.bits, 0))), axis=1)[:, 0]
        return (symbols.astype(np.float64) - self.levels) * np.repeat(scales / self.levels, self.bucket)[:size]


@dataclass(frozen=True)
class Sign(GradientCodec):
    """Signs times the mean absolute entry, ‖x‖₁/d · sign(x) (Karimireddy et al. 2019, Algorithm 1 and Lemma 8).

    A contraction with δ = ‖x‖₁² / (d ‖x‖₂²), also with zeros sent as +. 1 bit per entry + 8.
    """

    name = "sign"
    _HEADER = struct.Struct("<If")  # entries, mean absolute value

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        return self._HEADER.pack(vector.size, np.abs(vector).mean()) + np.packbits(vector >= 0).tobytes(), state

    def entries(self, payload: bytes) -> int:
        return int(self.unpack(self._HEADER, payload)[0])

    def decode(self, payload: bytes) -> Floats:
        size, scale = self.unpack(self._HEADER, payload)
        body = np.frombuffer(memoryview(payload)[self._HEADER.size :], np.uint8)
        if not size or body.size != -(-size // 8):
            raise self.corrupt(payload)
        self.finite(np.asarray(scale), payload)
        vector: Floats = np.where(np.unpackbits(body, count=size), scale, -scale)
        return vector
