"""Sums of local updates over the ranks, in few bytes: they are encoded by a codec, with error feedback."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.codecs.gradient import CodecState, gradient_codec
from sparkopt.communication import EncodedGradient
from sparkopt.launch import Communicator
from sparkopt.typing import Array, Floats

__all__ = ["LOCAL_COMPRESSIONS", "UpdateSum", "ring_bytes"]

LOCAL_COMPRESSIONS = ("none", "fp16", "bf16", "int8")
"""Codecs of local updates."""

FEW = 2
"""Ranks that gather payloads whole: more of them add up a slice each."""


def ring_bytes(nbytes: int, size: int) -> int:
    """Return the bytes that a rank of ``size`` sends in an all-reduce of ``nbytes`` by a ring.

    That is the least there is (Patarasuk & Yuan, 2009, *Bandwidth optimal all-reduce algorithms for clusters of
    workstations*, theorem 1), and what Gloo and NCCL do.

    Examples
    --------
    >>> ring_bytes(1000, 4)
    1500
    """
    return 2 * (size - 1) * nbytes // size


class UpdateSum:
    """Adds up vectors over all ranks.

    Two ranks send each other their payloads. More of them add up a slice each and send its sum, encoded again, to
    all: 2 (n − 1) / n payloads a rank, where gathering them whole would take n − 1. What either encoding leaves out
    is sent with the next sum (Tang et al., 2019, *DoubleSqueeze*, algorithm 1).

    Parameters
    ----------
    compression : {"none", "fp16", "bf16", "int8"}
        The codec; "none" sends float32.
    communicator : Communicator
        The other ranks.

    Attributes
    ----------
    sent : int
        Bytes that this rank has sent.
    """

    def __init__(self, compression: str, communicator: Communicator) -> None:
        self._codec = None if compression == "none" else gradient_codec(compression)
        self._communicator = communicator
        self._slices = 1 if communicator.size <= FEW else communicator.size
        self._own: list[CodecState] = []
        self._joined: CodecState = {}
        self.sent = 0

    def __call__(self, vector: Array, number: int) -> Array:
        """Return the sum, float32, the same bits on every rank; a collective.

        Parameters
        ----------
        vector : ndarray of shape (n,), float32
            This rank's.
        number : int
            Which sum it is, for codecs that round at random.
        """
        group = self._communicator
        if group.size == 1:
            return vector
        if self._codec is None:
            self.sent += ring_bytes(vector.nbytes, group.size)
            return group.all_reduce(vector)
        found: Array = self._encoded(vector, np.random.default_rng([number, group.rank + 1])).astype(np.float32)
        return found

    def _encoded(self, vector: Array, rng: np.random.Generator) -> Floats:
        group, codec = self._communicator, self._codec
        assert codec is not None  # noqa: S101  # __call__ saw to it
        parts = np.array_split(vector, self._slices)
        states = self._own or [codec.init(part.size) for part in parts]
        payloads, self._own = [], []
        for part, state in zip(parts, states, strict=True):
            payload, after = codec.encode(part, state, rng) if part.size else (b"", state)
            payloads.append((payload,))
            self._own.append(after)
        pieces = EncodedGradient(codec, (1, vector.size), tuple(payloads)).cut()
        if self._slices == 1:
            self.sent += (group.size - 1) * pieces[0].nbytes
            whole: Floats = pieces[0].of(group.all_gather(pieces[0].payload)).decoded()[0]
            return whole
        received = group.exchange([piece.payload for piece in pieces])
        mine, again = pieces[group.rank], b""
        self.sent += sum(piece.nbytes for piece in pieces) - mine.nbytes
        if mine.shape[1]:
            state = self._joined or codec.init(mine.shape[1])
            again, self._joined = codec.encode(mine.of(received).decoded()[0], state, rng)
        self.sent += (group.size - 1) * len(again)
        found = zip(pieces, group.all_gather(again), strict=True)
        return np.concatenate([piece.of([payload]).decoded()[0] for piece, payload in found])

    def state(self) -> dict[str, Any]:
        """Return what is left to send."""
        return {"own": self._own, "joined": self._joined}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that as many ranks have saved."""
        self._own, self._joined = list(state["own"]), state["joined"]
