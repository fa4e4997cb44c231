"""The interface of a gradient codec, and error feedback, with which lossy ones converge.

A codec turns a vector into bytes and back. Its state (error-feedback residuals, a step counter, a basis) is passed in
and returned, never stored, so that a checkpoint is the state and a retried task is harmless. Payloads that are
*summable* can be added while encoded; the others are gathered, decoded and then added.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sparkopt.errors import CorruptDataError, DivergedError, IncompatibleError, ParameterError
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["CodecState", "ErrorFeedback", "GradientCodec", "NoCompression"]

CodecState: TypeAlias = dict[str, Any]
"""What a codec keeps from step to step: NumPy arrays, or such dicts again, by name. Data, fit for a checkpoint."""

_LARGEST = 1e30  # leaves float32 room for the factor of random-k and for sums over workers


class GradientCodec(ABC):
    """A compression of gradients.

    Attributes
    ----------
    name : str
        Name for ``compression=``.
    lossless : bool
        Whether ``decode`` returns exactly what was encoded.
    summable : bool
        Whether payloads can be added while encoded, with `add`.
    shared : bool
        Whether workers must agree on a value before they encode: each calls `propose`, and then `agree` with the
        largest proposal of all.
    whole : bool
        Whether a gradient must be encoded in one piece, not in slices.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = False
    summable: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    whole: ClassVar[bool] = False

    def init(self, size: int) -> CodecState:
        """Return the state before the first step, for vectors of ``size`` entries."""
        return {}

    @abstractmethod
    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        """Return the payload of a vector, shape (size,), and the state for the next step.

        Raises
        ------
        DivergedError
            If an entry is NaN or infinite, or beyond 1e30 for a lossy codec, whose payloads hold float32 at most.
        """

    @abstractmethod
    def decode(self, payload: bytes) -> Floats:
        """Return the vector, shape (size,), float64.

        Raises
        ------
        CorruptDataError
            If the payload is truncated or was not written by this codec. Damage that cannot be detected yields other
            numbers, but finite ones.
        """

    def entries(self, payload: bytes) -> int | None:
        """Return how many entries a payload claims to hold, without decoding it; None where that is not known."""
        return None

    def add_to(self, total: Floats, payload: bytes) -> None:
        """Add the decoded payload to ``total``, shape (size,), in place.

        Nothing of another size is decoded: a few bytes may claim to hold terabytes.

        Raises
        ------
        CorruptDataError
            As from ``decode``, and if the payload holds another number of entries.
        """
        claimed = self.entries(payload)
        if claimed is not None and claimed != total.size:
            raise self.other_size(payload, claimed, total.size)
        vector = self.decode(payload)
        if vector.size != total.size:
            raise self.other_size(payload, vector.size, total.size)
        total += vector

    def add(self, a: bytes, b: bytes) -> bytes:
        """Return a payload that decodes to the sum of both; summable codecs only."""
        raise IncompatibleError(
            f"Payloads of the codec {self.name!r} cannot be added. Decode them and add the vectors, "
            "or choose a summable codec: none, fp16, bf16, int8 or random-k."
        )

    def variance(self, size: int) -> float:
        """Return ω with E‖decode(encode(x)) − x‖² ≤ ω ‖x‖² for an unbiased random codec, 0 for any other."""
        return 0.0

    def propose(self, x: ArrayLike, state: CodecState) -> float:
        """Return the value that this worker needs for ``x``; 0 where nothing is shared."""
        return 0.0

    def agree(self, state: CodecState, value: float) -> CodecState:
        """Return the state with the value that all workers agreed on."""
        return state

    def unpack(self, header: struct.Struct, payload: bytes) -> tuple[Any, ...]:
        """Return the fields of a payload's header; CorruptDataError if the payload is shorter."""
        if len(payload) < header.size:
            raise self.corrupt(payload)
        return header.unpack_from(payload)

    def finite(self, numbers: Array, payload: bytes) -> Array:
        """Return the numbers of a payload; CorruptDataError if one of them is not finite."""
        if not np.isfinite(numbers).all():
            raise self.corrupt(payload, "it holds NaN or infinity")
        return numbers

    def other_size(self, payload: bytes, size: int, wanted: int) -> CorruptDataError:
        """Return the error for a payload of a vector of another size."""
        return self.corrupt(payload, f"it holds {size} entries instead of {wanted}")

    def corrupt(self, payload: bytes, reason: str | None = None) -> CorruptDataError:
        """Return the error for a payload that this codec cannot have written."""
        return CorruptDataError(
            f"Not a payload of the gradient codec {self.name!r}: {reason or f'{len(payload)} bytes do not fit'}."
        )


def as_vector(x: ArrayLike, codec: GradientCodec) -> Floats:
    """Return ``x`` as float64, shape (size,), after checking that it can be encoded."""
    vector = np.asarray(x, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise ParameterError(f"x must be a vector with at least one entry. Got shape {vector.shape} instead.")
    largest = np.inf if codec.lossless else _LARGEST
    fits = np.abs(vector) < largest  # False for NaN
    if not fits.all():
        where = int(np.argmin(fits))
        raise DivergedError(
            f"The gradient codec {codec.name!r} got {vector[where]} at entry {where}. "
            f"It needs numbers below {largest:g}. Check the features for such values, or take a smaller step."
        )
    return vector


@dataclass(frozen=True)
class NoCompression(GradientCodec):
    """No compression: the vector as float64."""

    name = "none"
    lossless = True
    summable = True

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        payload: bytes = as_vector(x, self).astype("<f8").tobytes()
        return payload, state

    def decode(self, payload: bytes) -> Floats:
        if not payload or len(payload) % 8:
            raise self.corrupt(payload)
        return self.finite(np.frombuffer(payload, "<f8"), payload).astype(np.float64)

    def add(self, a: bytes, b: bytes) -> bytes:
        same_length(self, a, b)
        total: Floats = np.frombuffer(a, "<f8") + np.frombuffer(b, "<f8")
        return total.tobytes()


def same_length(codec: GradientCodec, a: bytes, b: bytes) -> None:
    """Refuse to add payloads of vectors of different lengths."""
    if len(a) != len(b):
        raise IncompatibleError(
            f"Payloads of the codec {codec.name!r} of {len(a)} and {len(b)} bytes cannot be added: "
            "encode vectors of the same length with the same settings."
        )


@dataclass(frozen=True)
class ErrorFeedback(GradientCodec):
    """Add what was lost to the next step's vector (Karimireddy et al. 2019, "Error Feedback Fixes SignSGD", Alg. 2).

    With p = x + e the payload holds C(p), and the residual for the next step is e' = p − C(p). The analysis requires
    C to be a contraction, E‖C(p) − p‖² ≤ (1 − δ)‖p‖². The biased codecs are contractions; an unbiased codec of
    variance ω becomes one after division by 1 + ω, with δ = 1/(1 + ω), so ``decode`` divides by that.

    Parameters
    ----------
    codec : GradientCodec
        Any codec.

    Notes
    -----
    The residual is on the scale of the encoded vectors. If that scale changes between steps (a sum on one step, a
    mean on the next), the residual must be rescaled likewise.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt.codecs import ErrorFeedback, TopK
    >>> codec = ErrorFeedback(TopK(fraction=0.5))
    >>> payload, state = codec.encode([3.0, 1.0], codec.init(2), np.random.default_rng(0))
    >>> codec.decode(payload), state["error"]
    (array([3., 0.]), array([0., 1.]))
    """

    codec: GradientCodec

    def __post_init__(self) -> None:
        if isinstance(self.codec, ErrorFeedback):
            raise ParameterError("codec must be a codec without error feedback. Got an ErrorFeedback instead.")
        # instance values shadow the class defaults; a frozen dataclass needs object.__setattr__ for that
        for field in ("name", "lossless", "summable", "shared", "whole"):
            object.__setattr__(self, field, getattr(self.codec, field))

    def init(self, size: int) -> CodecState:
        return {"error": np.zeros(size), "codec": self.codec.init(size)}

    def encode(self, x: ArrayLike, state: CodecState, rng: np.random.Generator) -> tuple[bytes, CodecState]:
        corrected = self._corrected(x, state)
        payload, inner = self.codec.encode(corrected, state["codec"], rng)
        return payload, {"error": corrected - self.decode(payload), "codec": inner}

    def decode(self, payload: bytes) -> Floats:
        vector = self.codec.decode(payload)
        return vector / (1.0 + self.codec.variance(vector.size))

    def entries(self, payload: bytes) -> int | None:
        return self.codec.entries(payload)

    def add(self, a: bytes, b: bytes) -> bytes:
        return self.codec.add(a, b)

    def propose(self, x: ArrayLike, state: CodecState) -> float:
        return self.codec.propose(self._corrected(x, state), state["codec"])

    def agree(self, state: CodecState, value: float) -> CodecState:
        return {**state, "codec": self.codec.agree(state["codec"], value)}

    def _corrected(self, x: ArrayLike, state: CodecState) -> Floats:
        vector, error = as_vector(x, self), state["error"]
        if vector.shape != error.shape:
            raise ParameterError(
                f"x must have shape {error.shape}, as its error-feedback residual. Got shape {vector.shape} instead."
            )
        corrected: Floats = vector + error
        return corrected
