"""Gradient codecs that send a few entries: the nonzero, the largest, or random ones."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import ArrayLike

from sparkopt.codecs.gradient.base import CodecState, GradientCodec, as_vector
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["RandomK", "Sparse", "TopK"]

_FRACTION = Interval(0, 1, closed="right")


def _kept(fraction: float, size: int) -> int:
    return max(1, math.ceil(fraction * size))


@dataclass(frozen=True)
class Sparse(GradientCodec):
    """The nonzero entries as float64: exact, NaN and infinity included. Chosen automatically for sparse sums.

    Positions are sent as 4 bytes each or as one bit for every entry, whichever is less; a vector without enough zeros
    is sent dense. 8 bytes per nonzero entry + its position + 20.
    """

    name = "sparse"
    lossless = True
    _HEADER = struct.Struct("<QQI")  # size of the vector, number of nonzero entries, CRC-32 of both

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        return self.pack(np.asarray(x, dtype=np.float64)), state

    def pack(self, vector: Floats) -> bytes:
        """Return the payload of a vector, shape (size,)."""
        if vector.ndim != 1 or not vector.size:
            raise ParameterError(f"x must be a vector with at least one entry. Got shape {vector.shape} instead.")
        taken = _bits(vector) != 0
        count = int(np.count_nonzero(taken))
        head = self._HEADER.pack(vector.size, count, _check(vector.size, count))
        if self.packed_bytes(vector.size, count) > 8 * vector.size:
            return head + vector.astype("<f8", copy=False).tobytes()
        positions = np.flatnonzero(taken)
        where = np.packbits(taken) if _is_map(vector.size, count) else positions.astype("<u4")
        return head + where.tobytes() + vector[positions].astype("<f8", copy=False).tobytes()

    def packed_bytes(self, size: int, count: int) -> int:
        """Return the bytes of ``count`` of ``size`` entries with their positions."""
        return self._HEADER.size + 8 * count + (-(-size // 8) if _is_map(size, count) else 4 * count)

    def count(self, vector: Floats) -> int:
        """Return the number of nonzero entries; counting them costs half of what adding them costs."""
        return int(np.count_nonzero(_bits(vector)))

    def decode(self, payload: bytes) -> Floats:
        size, positions, values = self._unpack(payload)
        vector = np.zeros(size)
        vector[positions] = values
        return vector

    def add_to(self, total: Floats, payload: bytes) -> None:
        size, positions, values = self._unpack(payload)
        if size != total.size:
            raise self.other_size(payload, size, total.size)
        total[positions] += values

    def _unpack(self, payload: bytes) -> tuple[int, Array | slice, Floats]:
        """Return the size, the positions without repetition, and the values."""
        size, count, check = self.unpack(self._HEADER, payload)
        body = memoryview(payload)[self._HEADER.size :]
        if not size or check != _check(size, count):
            raise self.corrupt(payload)
        if len(body) == 8 * size:
            return size, slice(None), np.frombuffer(body, "<f8")
        if len(payload) != self.packed_bytes(size, count):
            raise self.corrupt(payload)
        where, values = body[: len(body) - 8 * count], np.frombuffer(body[len(body) - 8 * count :], "<f8")
        if _is_map(size, count):
            positions = np.flatnonzero(np.unpackbits(np.frombuffer(where, np.uint8), count=size))
        else:
            positions = np.frombuffer(where, "<u4")
        if len(positions) != count or (count and not _ascend(positions, size)):
            raise self.corrupt(payload)
        return size, positions, values


def _bits(vector: Floats) -> Array:
    """Return a view of the bits: −0.0 counts as nonzero, and integers are compared faster."""
    return vector.view(np.int64)


def _check(size: int, count: int) -> int:
    """Return a checksum of the header, which is checked before anything is allocated."""
    return zlib.crc32(struct.pack("<QQ", size, count))


def _is_map(size: int, count: int) -> bool:
    """Whether one bit for every entry takes less than 4 bytes for each nonzero one."""
    return 32 * count >= size


def _ascend(positions: Array, size: int) -> bool:
    return bool(positions[-1] < size and (positions[1:] > positions[:-1]).all())


@dataclass(frozen=True)
class TopK(GradientCodec):
    """The k entries of largest absolute value (Stich et al. 2018, "Sparsified SGD with Memory", Definition 2.1).

    A contraction with δ = k/d. 8 bytes per kept entry (position, float32) + 4.

    Parameters
    ----------
    fraction : float, default 0.01
        k/d, in (0, 1]; at least one entry is kept.
    """

    fraction: float = 0.01

    name = "top-k"
    _HEADER = struct.Struct("<I")  # size of the vector

    def __post_init__(self) -> None:
        check("fraction", self.fraction, _FRACTION)

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        kept = _kept(self.fraction, vector.size)
        positions = np.sort(np.argpartition(np.abs(vector), -kept)[-kept:]).astype("<u4")
        values = vector[positions].astype("<f4")
        return self._HEADER.pack(vector.size) + positions.tobytes() + values.tobytes(), state

    def entries(self, payload: bytes) -> int:
        return int(self.unpack(self._HEADER, payload)[0])

    def decode(self, payload: bytes) -> Floats:
        (size,) = self.unpack(self._HEADER, payload)
        body = memoryview(payload)[self._HEADER.size :]
        if not size or len(body) != 8 * _kept(self.fraction, size):
            raise self.corrupt(payload)
        positions = np.frombuffer(body[: len(body) // 2], "<u4")
        if positions.max() >= size:
            raise self.corrupt(payload)
        vector = np.zeros(size)
        vector[positions] = self.finite(np.frombuffer(body[len(body) // 2 :], "<f4"), payload)
        return vector


@dataclass(frozen=True)
class RandomK(GradientCodec):
    """k random entries times d/k, unbiased (Stich et al. 2018, Definition 2.1; variance ω = d/k − 1).

    The positions follow from seed and step, which all workers share, so only values are sent and payloads can be
    added. All workers must be at the same step; the state counts it. 4 bytes per kept entry (float32) + 20.

    Parameters
    ----------
    fraction : float, default 0.01
        k/d, in (0, 1]; at least one entry is kept.
    seed : int, default 0
        Shared by all workers.
    """

    fraction: float = 0.01
    seed: int = 0

    name = "random-k"
    summable = True
    _HEADER = struct.Struct("<IQQ")  # size of the vector, seed, step

    def __post_init__(self) -> None:
        check("fraction", self.fraction, _FRACTION)
        check("seed", self.seed, Interval(0, 2**63, whole=True))

    def init(self, size: int) -> CodecState:
        return {"step": np.zeros((), np.int64)}

    def variance(self, size: int) -> float:
        return size / _kept(self.fraction, size) - 1.0

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector, step = as_vector(x, self), int(state["step"])
        positions = self._positions(vector.size, self.seed, step)
        values = (vector[positions] * (vector.size / positions.size)).astype("<f4")
        payload = self._HEADER.pack(vector.size, self.seed, step) + values.tobytes()
        return payload, {**state, "step": np.asarray(step + 1, np.int64)}

    def entries(self, payload: bytes) -> int:
        return int(self.unpack(self._HEADER, payload)[0])

    def decode(self, payload: bytes) -> Floats:
        size, seed, step = self.unpack(self._HEADER, payload)
        body = memoryview(payload)[self._HEADER.size :]
        if not size or len(body) != 4 * _kept(self.fraction, size):
            raise self.corrupt(payload)
        vector = np.zeros(size)
        vector[self._positions(size, seed, step)] = self.finite(np.frombuffer(body, "<f4"), payload)
        return vector

    def add(self, a: bytes, b: bytes) -> bytes:
        heads = self.unpack(self._HEADER, a), self.unpack(self._HEADER, b)
        if heads[0] != heads[1] or len(a) != len(b):
            raise IncompatibleError(
                "random-k payloads can be added only if size, seed and step agree. "
                f"Got {heads[0]} and {heads[1]} instead: encode once a step on every worker, with one seed."
            )
        start = self._HEADER.size
        values: Array = np.frombuffer(a[start:], "<f4") + np.frombuffer(b[start:], "<f4")
        return a[:start] + values.tobytes()

    def _positions(self, size: int, seed: int, step: int) -> Array:
        shared = np.random.default_rng([seed, step])
        return shared.choice(size, _kept(self.fraction, size), replace=False, shuffle=False)
