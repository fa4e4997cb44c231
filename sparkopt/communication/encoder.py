"""The encoder: what a task does to its sums before it sends them, with error feedback."""

from __future__ import annotations

import numpy as np

from sparkopt.codecs.gradient import CodecState, ErrorFeedback, GradientCodec, gradient_codec
from sparkopt.communication.encoding import CommunicatedSum, EncodedGradient
from sparkopt.communication.error_feedback import Residuals, ResidualStore
from sparkopt.objective.query import PartialSum, Query
from sparkopt.typing import Seed
from sparkopt.values import dataclass

__all__ = ["PLAIN_AGAIN", "Encoder", "PassMessage", "Sender"]

PLAIN_AGAIN = "none"
"""As a message's codec: uncompressed, with the residuals of earlier steps; passes after it need no codec."""


@dataclass(frozen=True)
class PassMessage:
    """What an engine sends to its tasks for one pass.

    Attributes
    ----------
    query : Query
        What to sum.
    codec : str or None, default None
        Name of the gradient codec of this pass, for an encoder whose codec changes from pass to pass.
    """

    query: Query
    codec: str | None = None


@dataclass(frozen=True)
class Sender:
    """Who sends a sum: one partition, or one rank.

    Attributes
    ----------
    name : str
        Names its residuals.
    index : int
        Its number, for randomness of its own.
    path : str or None
        Path of its blocks, next to which residuals are stored; None keeps them in this process.
    """

    name: str
    index: int
    path: str | None


@dataclass(frozen=True)
class Encoder:
    """Encodes the gradient of a sum; what a lossy codec leaves out is sent with the next step's sum.

    Only the gradients of steps are encoded: sums of other passes (every row of a mini-batch, Hessian products,
    samples) are sent as they are.

    Parameters
    ----------
    codec : GradientCodec or None
        Encodes one gradient a step; None takes the one that each message names, and none where it names none.
    fit : str
        Name of the fit, which separates its residuals from those of other fits in the same store.
    store : ResidualStore or None, default None
        Where residuals are kept for a fit that is resumed after its processes have ended; None keeps them next to the
        blocks only.
    seed : int, default 0
        With step and partition it determines random rounding.
    slices : int, default 1
        Encode the gradient in so many slices, which may be sent to different processes.
    """

    codec: GradientCodec | None
    fit: str
    store: ResidualStore | None = None
    seed: Seed = 0
    slices: int = 1

    @property
    def is_open(self) -> bool:
        """Whether the codec is chosen during the fit."""
        return self.codec is None

    def codec_for(self, message: PassMessage) -> GradientCodec | None:
        """Return what encodes the answer to a message, or None for an answer that is sent as it is."""
        if not message.query.request.is_step_gradient:
            return None
        if self.codec is not None or message.codec is None:
            return self.codec
        codec = gradient_codec(message.codec)
        return ErrorFeedback(codec) if message.codec == PLAIN_AGAIN else codec

    def encode(self, sums: PartialSum, message: PassMessage, sender: Sender) -> CommunicatedSum:
        """Encode the gradient of some sums, and store what was left out.

        Parameters
        ----------
        sums : PartialSum
            What is sent.
        message : PassMessage
            What was asked; its step orders residuals.
        sender : Sender
            Whose sums they are.
        """
        codec = self.codec_for(message)
        return CommunicatedSum.of(sums, None if codec is None else self._gradient(codec, sums, message, sender))

    def _gradient(
        self, codec: GradientCodec, sums: PartialSum, message: PassMessage, sender: Sender
    ) -> EncodedGradient:
        shape, step = sums.gradient.shape, message.query.step
        if sender.path is None and not sums.rows:  # a partition without rows
            return EncodedGradient(codec, shape, ((),) * self.slices)
        pieces = np.array_split(sums.gradient, self.slices, axis=1)
        residuals = Residuals(self.fit, sender.name, sender.path, self.store)
        before = self._before(residuals, step, codec, [piece.size for piece in pieces])
        rng = np.random.default_rng([self.seed, step, sender.index + 1])
        payloads, after = [], {}
        for number, piece in enumerate(pieces):
            payload, after[str(number)] = codec.encode(piece.ravel(), before[str(number)], rng)
            payloads.append((payload,))
        residuals.keep(step, after)
        return EncodedGradient(codec, shape, tuple(payloads))

    def _before(self, residuals: Residuals, step: int, codec: GradientCodec, sizes: list[int]) -> CodecState:
        """Return each slice's state; where the codec may change, the residual of the one before is kept."""
        fresh: CodecState = {str(number): codec.init(size) for number, size in enumerate(sizes)}
        if self.codec is not None:
            return residuals.before(step) or fresh
        known = residuals.before(step) if residuals.has_before(step) else None
        if known is None:
            return fresh
        return {number: {**fresh[number], "error": known[number]["error"]} for number in fresh}
