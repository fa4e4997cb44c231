"""Compressed sums: a gradient that travels encoded, and the work that encodes it.

A partition's sum leaves its task as payloads; they are added where they meet, or gathered, and decoded once. What a
lossy codec leaves out stays beside the partition's blocks and goes out with the next step's sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import numpy as np

from sparkopt.blocks.block import Blocks, Part
from sparkopt.codecs.gradient import CodecState, ErrorFeedback, GradientCodec, Sparse, gradient_codec
from sparkopt.communication.error_feedback import Residuals, ResidualStore
from sparkopt.objective.cross_validation import Objective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.typing import Floats, Seed

__all__ = [
    "PLAIN_AGAIN",
    "SMALL",
    "SPARSE",
    "THIN",
    "Compressed",
    "EncodedGradient",
    "codec_of",
    "compacted",
    "sparse",
    "thin_bytes",
    "thinned",
    "unpacked",
]

SPARSE = Sparse()
THIN = 0.5
"""Most that a gradient without its zeros may have of its bytes, to be worth taking them out and putting them back."""
SMALL = 1 << 12
"""Bytes of a gradient below which a message costs what it costs, whatever is in it."""
PLAIN_AGAIN = "none"
"""As a query's codec: uncompressed, with what earlier steps left out; passes after it need no codec."""


@dataclass(frozen=True)
class EncodedGradient:
    """Gradients in payloads: stands in ``PartialSum.gradient`` while it travels, and adds up like one.

    Attributes
    ----------
    codec : GradientCodec
        What decodes a payload.
    shape : (int, int)
        Shape of the gradient.
    slices : tuple of tuples of bytes
        For each slice of the gradient, cut as ``numpy.array_split`` cuts it, payloads whose sum it is: 0 without any.
    """

    codec: GradientCodec
    shape: tuple[int, int]
    slices: tuple[tuple[bytes, ...], ...]

    __array_ufunc__ = None  # lets ``array + packed`` come to __radd__

    def __add__(self, other: EncodedGradient | Floats) -> EncodedGradient | Floats:
        if isinstance(other, EncodedGradient):
            if other.codec != self.codec:  # one was added up on its way, and had enough zeros to leave out
                return self.decoded() + other.decoded()
            return replace(self, slices=tuple(a + b for a, b in zip(self.slices, other.slices, strict=True)))
        return self.decoded() + other if other.any() else self  # the zero of the monoid is an array

    def __radd__(self, other: Floats) -> EncodedGradient | Floats:
        return self + other

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(payload) for payloads in self.slices for payload in payloads)

    @property
    def payload(self) -> bytes:
        """The only payload there is, or nothing."""
        ((*payloads,),) = self.slices
        return payloads[0] if payloads else b""

    def of(self, payload: bytes) -> EncodedGradient:
        """Return another gradient of this shape, in one payload or nothing."""
        return replace(self, slices=((payload,) if payload else (),))

    def cut(self) -> list[EncodedGradient]:
        """Return the slices, each by itself."""
        widths = [len(piece) for piece in np.array_split(np.empty(self.shape[1], np.int8), len(self.slices))]
        return [
            EncodedGradient(self.codec, (self.shape[0], width), (payloads,))
            for width, payloads in zip(widths, self.slices, strict=True)
        ]

    def compact(self) -> EncodedGradient | Floats:
        """Return it as it travels on: added while encoded, where the codec can, or decoded where that is smaller."""
        if self.codec.summable and not self.codec.shared:
            added = tuple((reduce(self.codec.add, payloads),) if payloads else () for payloads in self.slices)
            return replace(self, slices=added)
        if self.codec == SPARSE:
            return thinned(self.decoded(), len(self.slices))
        return self.decoded() if self.nbytes > 8 * self.shape[0] * self.shape[1] else self

    def decoded(self) -> Floats:
        """Return the gradient, shape ``shape``."""
        return np.concatenate([self._slice(piece) for piece in self.cut()], axis=1)

    def _slice(self, piece: EncodedGradient) -> Floats:
        total = np.zeros(prod(piece.shape))
        for payload in piece.slices[0]:
            self.codec.add_to(total, payload)
        return total.reshape(piece.shape)


def codec_of(work: Work, query: Query) -> str:
    """Return the name of the codec in which the sums that a query asks for travel."""
    codec = work.codec_for(query) if isinstance(work, Compressed) else None
    return "none" if codec is None else codec.name


def compacted(sums: PartialSum, slices: int = 1) -> PartialSum:
    """Return sums as they leave a process that has added them up; in so many slices where they are sparse."""
    gradient: object = sums.gradient
    smaller = gradient.compact() if isinstance(gradient, EncodedGradient) else thinned(sums.gradient, slices)
    return replace(sums, gradient=smaller)  # type: ignore[arg-type]


def thinned(gradient: Floats, slices: int = 1) -> EncodedGradient | Floats:
    """Return a gradient, shape (m, size), without its zeros, or as it is where that is not at most half the bytes."""
    return sparse(gradient, slices) if thin_bytes(gradient, slices) <= THIN * gradient.nbytes else gradient


def thin_bytes(gradient: Floats, slices: int = 1) -> int:
    """Return the bytes that ``sparse`` would take, or those of the gradient where it is too small to be worth it."""
    if gradient.nbytes < SMALL:
        return gradient.nbytes
    pieces = np.array_split(gradient, slices, axis=1)
    return sum(min(8 * piece.size, SPARSE.packed_bytes(piece.size, SPARSE.count(piece))) for piece in pieces)


def sparse(gradient: Floats, slices: int = 1) -> EncodedGradient:
    """Return a gradient, shape (m, size), without its zeros, in so many slices."""
    pieces = np.array_split(gradient, slices, axis=1)
    packed = tuple((SPARSE.pack(piece.ravel()),) if piece.size else () for piece in pieces)
    return EncodedGradient(SPARSE, gradient.shape, packed)


def unpacked(sums: PartialSum) -> PartialSum:
    """Return sums with their gradient decoded."""
    gradient: object = sums.gradient
    return replace(sums, gradient=gradient.decoded()) if isinstance(gradient, EncodedGradient) else sums


@dataclass(frozen=True)
class Compressed:
    """Another work, whose gradients are encoded; what was left out is sent with the next step.

    Passes that are not of the steps (every row of a mini-batch, Hessian products, samples) travel as they are.

    Parameters
    ----------
    work : Work
        What is summed.
    codec : GradientCodec or None
        Encodes one gradient a step; None takes the one that the query names, and none where it names none.
    fit : str
        Name of the fit: memories of other fits in the same store are none of its own.
    shelf : ResidualStore or None, default None
        Where memories are kept for a fit that goes on after its processes are gone; None keeps them beside the
        blocks only.
    seed : int, default 0
        With step and partition it determines random rounding.
    slices : int, default 1
        Encode the gradient in so many slices, which may travel apart.
    """

    work: Work
    codec: GradientCodec | None
    fit: str
    shelf: ResidualStore | None = None
    seed: Seed = 0
    slices: int = 1

    @property
    def objective(self) -> Objective:
        """That of the other work."""
        return self.work.objective

    @property
    def is_exact(self) -> bool:
        """As the other work."""
        return self.work.is_exact

    @property
    def share(self) -> float:
        """That of the other work."""
        return self.work.share

    @property
    def is_local(self) -> bool:
        """As the other work."""
        return self.work.is_local

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum, and encode."""
        sums = self.work(query, part, blocks)
        return self.pack(sums, query, f"part-{part.index}", part.index, blocks.beside)

    def pack(self, sums: PartialSum, query: Query, name: str, index: int, beside: str | None) -> PartialSum:
        """Encode the gradient of some sums, with the memory of this name.

        Parameters
        ----------
        sums : PartialSum
            What travels.
        query : Query
            What was asked; its step orders memories.
        name : str
            Whose memory it is.
        index : int
            Number of it, for randomness of its own.
        beside : str or None
            Path beside which the memory is kept; None keeps it in this process.
        """
        codec = self.codec_for(query)
        if codec is None:
            return sums
        m, size = sums.gradient.shape
        if beside is None and not sums.rows:  # a partition without rows
            return replace(sums, gradient=EncodedGradient(codec, (m, size), ((),) * self.slices))  # type: ignore[arg-type]
        pieces = np.array_split(sums.gradient, self.slices, axis=1)
        memories = Residuals(self.fit, name, beside, self.shelf)
        before = self._before(memories, query.step, codec, [piece.size for piece in pieces])
        rng = np.random.default_rng([self.seed, query.step, index + 1])
        payloads, after = [], {}
        for number, piece in enumerate(pieces):
            payload, memory = codec.encode(piece.ravel(), before[str(number)], rng)
            payloads.append((payload,))
            after[str(number)] = memory
        memories.keep(query.step, after)
        packed = EncodedGradient(codec, (m, size), tuple(payloads))
        return replace(sums, gradient=packed)  # type: ignore[arg-type]  # while it travels

    def codec_for(self, query: Query) -> GradientCodec | None:
        """Return what encodes the answer to a query, or None for an answer that travels as it is."""
        if not query.request.is_step_gradient:
            return None
        if self.codec is not None or query.codec is None:
            return self.codec
        return ErrorFeedback(gradient_codec("none")) if query.codec == PLAIN_AGAIN else gradient_codec(query.codec)

    def _before(self, memories: Residuals, step: int, codec: GradientCodec, sizes: list[int]) -> CodecState:
        """Return each slice's memory; where the codec may change, what the one before left out goes along."""
        fresh: CodecState = {str(number): codec.init(size) for number, size in enumerate(sizes)}
        if self.codec is not None:
            return memories.before(step) or fresh
        known = memories.before(step) if memories.has_before(step) else None
        return (
            fresh
            if known is None
            else {number: {**fresh[number], "error": known[number]["error"]} for number in fresh}
        )
