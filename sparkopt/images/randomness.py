"""Randomness that belongs to a row: it is augmented alike wherever, whenever and beside whatever it runs."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from sparkopt.typing import Array

__all__ = ["row_rng"]

_LONG = 2**11


def row_rng(seed: int, key: bytes | str | int, epoch: int = 0) -> np.random.Generator:
    """Return a generator that depends on nothing but (seed, key, epoch).

    A keyed BLAKE2 digest of the row's key becomes the key of a Philox generator, so that the streams of different
    rows are independent and none has to be skipped over. Of a key of over 2 KiB (an image's content) the length, the
    CRC-32 and the last KiB are digested, in a quarter of the time: two of ten million images hardly share all three,
    and would only be augmented alike.

    Parameters
    ----------
    seed, epoch : int
        From −2^63 to 2^63 − 1. Another epoch gives every row another augmentation.
    key : bytes, str or int
        What identifies the row: an identifier, a path, or the content itself.

    Examples
    --------
    >>> row_rng(0, "a.jpg").random() == row_rng(0, "a.jpg").random()
    True
    >>> row_rng(0, "a.jpg").random() == row_rng(0, "a.jpg", epoch=1).random()
    False
    """
    if isinstance(key, int):
        key = key.to_bytes(16, "little", signed=True)
    elif isinstance(key, str):
        key = key.encode()
    if len(key) > _LONG:
        key = struct.pack("<QI", len(key), zlib.crc32(key)) + key[-1024:]
    digest = hashlib.blake2b(key, digest_size=16, key=struct.pack("<qq", seed, epoch)).digest()
    return np.random.Generator(np.random.Philox(_Digest(digest)))  # type: ignore[arg-type]  # a seed sequence, too


class _Digest(ISeedSequence):
    """Bytes that seed a generator as they are; given as a key, NumPy asks the system for entropy besides."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> Array:  # type: ignore[override]
        """Return the first words of the bytes."""
        return np.frombuffer(self._digest, dtype)[:n_words]
