"""Decoded images that later epochs use again."""

from __future__ import annotations

import hashlib
import threading

from sparkopt.typing import Array

__all__ = ["ImageCache"]


class ImageCache:
    """Images by their encoded content, up to a bound on memory; the first ones are kept.

    Every epoch needs each image once, in another order: no image is worth more than another, so none is evicted.

    Parameters
    ----------
    most : int
        Most bytes of images to keep, ≥ 0.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ImageCache(most=100)
    >>> cache.keep(cache.key(b"png"), np.zeros((5, 5, 1)))
    >>> cache.keep(cache.key(b"jpeg"), np.zeros((2, 2, 1)))
    >>> cache.find(cache.key(b"png")) is None, cache.find(cache.key(b"jpeg")).shape
    (True, (2, 2, 1))
    """

    def __init__(self, most: int) -> None:
        self._room = most
        self._found: dict[bytes, Array] = {}
        self._lock = threading.Lock()

    @staticmethod
    def key(content: bytes) -> bytes:
        """Return the key of encoded bytes: 128 bits of BLAKE2b."""
        return hashlib.blake2b(content, digest_size=16).digest()

    def find(self, key: bytes) -> Array | None:
        """Return the image, which must not be modified, or None."""
        return self._found.get(key)

    def keep(self, key: bytes, image: Array) -> None:
        """Keep an image if there is room for it."""
        with self._lock:
            if key not in self._found and image.nbytes <= self._room:
                self._room -= image.nbytes
                self._found[key] = image
