"""Gradient codecs for coefficients that form a matrix."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import ArrayLike

from sparkopt.codecs.gradient.base import CodecState, GradientCodec, as_vector
from sparkopt.errors import ParameterError
from sparkopt.typing import Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["PowerSGD"]


@dataclass(frozen=True)
class PowerSGD(GradientCodec):
    """A matrix of low rank by one warm-started power iteration (Vogels et al. 2019, "PowerSGD", Algorithm 1).

    With M the gradient as a matrix: P = orthogonal basis of M·Q, Q' = Mᵀ·P, and P·Q'ᵀ is decoded. P and Q' are sent
    as float32. The next step starts from an orthogonal basis of Q', which spans the same space and cannot vanish with
    the gradient. Each worker encodes its own gradient and the payloads are gathered: one exchange per step.

    Parameters
    ----------
    shape : (int, int), optional
        Rows and columns of the matrix, such as (classes, features); rows × columns is the size of the vector. By
        default the vector is padded with zeros to the most nearly square matrix, which need not have a low rank.
    rank : int, default 2
        Rank of the approximation, capped at the smaller side. 4 · rank · (rows + columns) bytes + 4.
    """

    shape: tuple[int, int] | None = None
    rank: int = 2

    name = "powersgd"
    whole = True
    _HEADER = struct.Struct("<I")  # size of the vector

    def __post_init__(self) -> None:
        check("rank", self.rank, Interval(1, None, whole=True))
        if self.shape is not None:
            for side, length in zip(("rows", "columns"), self.shape, strict=True):
                check(f"shape ({side})", length, Interval(1, None, whole=True))

    def init(self, size: int) -> CodecState:
        _, columns, rank = self._dimensions(size)
        start = np.random.default_rng(0).standard_normal((columns, rank))  # one start for all workers
        return {"basis": np.linalg.qr(start).Q}

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        vector = as_vector(x, self)
        rows, columns, _ = self._dimensions(vector.size)
        matrix = np.pad(vector, (0, rows * columns - vector.size)).reshape(rows, columns)
        left = np.linalg.qr(matrix @ state["basis"]).Q.astype("<f4")
        right = matrix.T @ left.astype(np.float64)
        payload = self._HEADER.pack(vector.size) + left.tobytes() + right.astype("<f4").tobytes()
        return payload, {"basis": np.linalg.qr(right).Q}

    def entries(self, payload: bytes) -> int:
        return int(self.unpack(self._HEADER, payload)[0])

    def decode(self, payload: bytes) -> Floats:
        (size,) = self.unpack(self._HEADER, payload)
        if not size or (self.shape is not None and size != math.prod(self.shape)):
            raise self.corrupt(payload)
        rows, columns, rank = self._dimensions(size)
        body = memoryview(payload)[self._HEADER.size :]
        if len(body) != 4 * rank * (rows + columns):
            raise self.corrupt(payload)
        factors = self.finite(np.frombuffer(body, "<f4"), payload).astype(np.float64)
        left, right = factors[: rows * rank].reshape(rows, rank), factors[rows * rank :].reshape(columns, rank)
        return (left @ right.T).ravel()[:size]

    def _dimensions(self, size: int) -> tuple[int, int, int]:
        if self.shape is None:
            rows = math.isqrt(size - 1) + 1
            columns = -(-size // rows)
        else:
            rows, columns = self.shape
            if rows * columns != size:
                raise ParameterError(f"shape must hold {size} entries. Got {self.shape} instead.")
        return rows, columns, min(self.rank, rows, columns)
