"""Random generators by row: a row is augmented alike whatever the partitioning, the batch and the attempt."""

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
    """Return a generator that depends only on (seed, key, epoch).

    The key of a Philox generator is a keyed BLAKE2 digest of the row's key, so that rows have independent streams. Of
    keys over 2 KiB (an image's content) only the length, the CRC-32 and the last KiB are digested, in a quarter of
    the time. A collision among ten million images is unlikely, and would only augment two images alike.

    Parameters
    ----------
    seed, epoch : int
        From −2^63 to 2^63 − 1. Each epoch gives a row another augmentation.
    key : bytes, str or int
        Identifies the row: a number, a path, or the content itself.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> row_rng(0, "a.jpg").random() == row_rng(0, "a.jpg").random()
    True
    >>> row_rng(0, "a.jpg").random() == row_rng(0, "a.jpg", epoch=1).random()
    False
    """
    if isinstance(key, int | np.integer):
        key = int(key)
        key = key.to_bytes(16, "little", signed=True)
    elif isinstance(key, str):
        key = key.encode()
    if len(key) > _LONG:
        key = struct.pack("<QI", len(key), zlib.crc32(key)) + key[-1024:]
    digest = hashlib.blake2b(key, digest_size=16, key=struct.pack("<qq", seed, epoch)).digest()
    return np.random.Generator(np.random.Philox(_Digest(digest)))  # type: ignore[arg-type]  # is a seed sequence


class _Digest(ISeedSequence):
    """Bytes that seed a generator directly; for a key, NumPy would also read entropy from the system."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> Array:  # type: ignore[override]
        """Return the first words of the bytes."""
        return np.frombuffer(self._digest, dtype)[:n_words]
