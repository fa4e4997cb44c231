"""Sums as they are communicated: gradients in payloads, sparsified where that is smaller, or as arrays.

A ``PartialSum`` holds arrays. Where it leaves a process it becomes a ``CommunicatedSum``, which adds up like it, and
where the loop receives it, a ``PartialSum`` again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import TypeAlias

import numpy as np

from sparkopt.codecs.gradient import GradientCodec, Sparse
from sparkopt.objective.query import PartialSum
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = [
    "SMALL_BYTES",
    "SPARSE",
    "SPARSE_SHARE",
    "CommunicatedSum",
    "EncodedGradient",
    "sparse",
    "sparse_bytes",
    "sparsified",
]

SPARSE = Sparse()
SPARSE_SHARE = 0.5
"""Most bytes of a sparsified gradient over those of the dense one: else it is not worth the arithmetic."""
SMALL_BYTES = 1 << 12
"""Bytes of a gradient below which a message costs the same, whatever it holds."""


@dataclass(frozen=True)
class EncodedGradient:
    """A sum of gradients in payloads.

    Attributes
    ----------
    codec : GradientCodec
        What decodes a payload.
    shape : (int, int)
        Shape of the gradient.
    slices : tuple of tuples of bytes
        For each slice of the gradient, as ``numpy.array_split`` cuts it, the payloads whose sum it is; without any it
        is zero.
    """

    codec: GradientCodec
    shape: tuple[int, int]
    slices: tuple[tuple[bytes, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(payload) for payloads in self.slices for payload in payloads)

    @property
    def payload(self) -> bytes:
        """The payload of a gradient in one slice that has at most one; without any, no bytes."""
        ((*payloads,),) = self.slices
        return payloads[0] if payloads else b""

    def of(self, payloads: Iterable[bytes]) -> EncodedGradient:
        """Return the sum of these payloads of one slice, of the same codec and shape; empty ones are zero."""
        return replace(self, slices=(tuple(payload for payload in payloads if payload),))

    def cut(self) -> list[EncodedGradient]:
        """Return each slice as a gradient of its own."""
        widths = [len(piece) for piece in np.array_split(np.empty(self.shape[1], np.int8), len(self.slices))]
        return [
            EncodedGradient(self.codec, (self.shape[0], width), (payloads,))
            for width, payloads in zip(widths, self.slices, strict=True)
        ]

    def compacted(self) -> Gradient:
        """Return the same sum in fewer bytes: added while encoded where the codec can, decoded where that is less."""
        if self.codec.summable and not self.codec.shared:
            added = tuple((reduce(self.codec.add, payloads),) if payloads else () for payloads in self.slices)
            return replace(self, slices=added)
        if self.codec == SPARSE:
            return sparsified(self.decoded(), len(self.slices))
        return self.decoded() if self.nbytes > 8 * prod(self.shape) else self

    def decoded(self) -> Floats:
        """Return the gradient, shape ``shape``."""
        return np.concatenate([self._slice(piece) for piece in self.cut()], axis=1)

    def _slice(self, piece: EncodedGradient) -> Floats:
        total = np.zeros(prod(piece.shape))
        for payload in piece.slices[0]:
            self.codec.add_to(total, payload)
        return total.reshape(piece.shape)


Gradient: TypeAlias = Floats | EncodedGradient
"""A sum of gradients, shape (m, size), as an array or in payloads."""


@dataclass(frozen=True)
class CommunicatedSum:
    """Sums over some rows as they leave a process: a monoid, like the ``PartialSum`` that they are made of.

    Attributes
    ----------
    rest : PartialSum
        All but the gradient: its own gradient has no columns.
    gradient : ndarray of shape (m, size) or EncodedGradient
        The sum of gradients.
    """

    rest: PartialSum
    gradient: Gradient

    @classmethod
    def of(cls, sums: PartialSum, gradient: Gradient | None = None) -> CommunicatedSum:
        """Return sums with their gradient as it is, or with ``gradient``, which encodes it."""
        rest = _with_gradient(sums, np.zeros((len(sums.loss), 0)))
        return cls(rest, sums.gradient if gradient is None else gradient)

    def __add__(self, other: CommunicatedSum) -> CommunicatedSum:
        return CommunicatedSum(self.rest + other.rest, _added(self.gradient, other.gradient))

    @property
    def raw_bytes(self) -> int:
        """Bytes of the gradient as float64."""
        return 8 * prod(self.gradient.shape)

    @property
    def sent_bytes(self) -> int:
        """Bytes of the gradient as it is communicated."""
        return self.gradient.nbytes

    def decoded(self) -> PartialSum:
        """Return the sums as arrays."""
        gradient = self.gradient
        return _with_gradient(self.rest, gradient if isinstance(gradient, np.ndarray) else gradient.decoded())

    def compacted(self, slices: int = 1) -> CommunicatedSum:
        """Return them as they leave a process that has added them up; in so many slices where they are sparsified."""
        gradient = self.gradient
        return CommunicatedSum(
            self.rest, sparsified(gradient, slices) if isinstance(gradient, np.ndarray) else gradient.compacted()
        )

    def cut(self, slices: int) -> list[CommunicatedSum]:
        """Cut the gradient into so many slices, or into those it was encoded in; each has the (small) rest."""
        gradient = self.gradient
        if isinstance(gradient, EncodedGradient):
            return [replace(self, gradient=piece) for piece in gradient.cut()]
        pieces = np.array_split(gradient, slices, axis=1)
        return [replace(self, gradient=np.ascontiguousarray(piece)) for piece in pieces]

    @classmethod
    def joined(cls, slices: Sequence[CommunicatedSum]) -> CommunicatedSum:
        """Return what was cut into these slices."""
        return replace(slices[0], gradient=np.concatenate([piece.decoded().gradient for piece in slices], axis=1))


def _with_gradient(sums: PartialSum, gradient: Floats) -> PartialSum:
    """Return other gradients with the rest of some sums; ``replace`` takes as long as a small block's arithmetic."""
    return PartialSum(sums.loss, gradient, sums.weight, sums.rows, sums.validation_loss, sums.validation_weight)


def _added(one: Gradient, other: Gradient) -> Gradient:
    """Add two gradients; payloads of one codec are kept, to be decoded once."""
    if isinstance(one, np.ndarray):
        return one + other if isinstance(other, np.ndarray) else _added(other, one)
    if isinstance(other, np.ndarray):
        return one.decoded() + other if np.any(other) else one  # the zero of the monoid is an array
    if one.codec != other.codec:  # one was added up before it was sent, and had enough zeros to leave out
        return one.decoded() + other.decoded()
    return replace(one, slices=tuple(a + b for a, b in zip(one.slices, other.slices, strict=True)))


def sparsified(gradient: Floats, slices: int = 1) -> Gradient:
    """Return a gradient, shape (m, size), without its zeros, or as it is where that is not at most half the bytes."""
    is_worth_it = sparse_bytes(gradient, slices) <= SPARSE_SHARE * gradient.nbytes
    return sparse(gradient, slices) if is_worth_it else gradient


def sparse_bytes(gradient: Floats, slices: int = 1) -> int:
    """Return the bytes that ``sparse`` would take, or those of the gradient where it is too small to be worth it."""
    if gradient.nbytes < SMALL_BYTES:
        return gradient.nbytes
    pieces = np.array_split(gradient, slices, axis=1)
    return sum(min(8 * piece.size, SPARSE.packed_bytes(piece.size, SPARSE.count(piece))) for piece in pieces)


def sparse(gradient: Floats, slices: int = 1) -> EncodedGradient:
    """Return a gradient, shape (m, size), without its zeros, in so many slices."""
    pieces = np.array_split(gradient, slices, axis=1)
    packed = tuple((SPARSE.pack(piece.ravel()),) if piece.size else () for piece in pieces)
    return EncodedGradient(SPARSE, gradient.shape, packed)
