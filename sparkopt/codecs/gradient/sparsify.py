"""Gradient codecs that send a few entries and leave the others out."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparkopt.codecs.gradient.base import Codec, Memory, as_vector
from sparkopt.errors import IncompatibleError
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, check

__all__ = ["RandomK", "TopK"]

_FRACTION = Interval(0, 1, closed="right")


def _kept(fraction: float, size: int) -> int:
    return max(1, math.ceil(fraction * size))


@dataclass(frozen=True)
class TopK(Codec):
    """The k entries of largest absolute value (Stich et al. 2018, "Sparsified SGD with Memory", Definition 2.1).

    A contraction with δ = k/d. 8 bytes a kept entry (position, float32) + 4.

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

    def encode(self, x: ArrayLike, memory: Memory, rng: np.random.Generator) -> tuple[bytes, Memory]:
        vector = as_vector(x, self)
        kept = _kept(self.fraction, vector.size)
        positions = np.sort(np.argpartition(np.abs(vector), -kept)[-kept:]).astype("<u4")
        values = vector[positions].astype("<f4")
        return self._HEADER.pack(vector.size) + positions.tobytes() + values.tobytes(), memory

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
class RandomK(Codec):
    """k entries at random times d/k, unbiased (Stich et al. 2018, Definition 2.1; variance ω = d/k − 1).

    The positions follow from seed and step, the same for all workers, so only values travel and payloads can be
    added. All workers have to be at the same step; the memory counts it. 4 bytes a kept entry (float32) + 20.

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

    def init(self, size: int) -> Memory:
        return {"step": np.zeros((), np.int64)}

    def variance(self, size: int) -> float:
        return size / _kept(self.fraction, size) - 1.0

    def encode(self, x: ArrayLike, memory: Memory, rng: np.random.Generator) -> tuple[bytes, Memory]:
        vector, step = as_vector(x, self), int(memory["step"])
        positions = self._positions(vector.size, self.seed, step)
        values = (vector[positions] * (vector.size / positions.size)).astype("<f4")
        payload = self._HEADER.pack(vector.size, self.seed, step) + values.tobytes()
        return payload, {**memory, "step": np.asarray(step + 1, np.int64)}

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
        return a[:start] + (np.frombuffer(a[start:], "<f4") + np.frombuffer(b[start:], "<f4")).tobytes()

    def _positions(self, size: int, seed: int, step: int) -> Array:
        shared = np.random.default_rng([seed, step])
        return shared.choice(size, _kept(self.fraction, size), replace=False, shuffle=False)
