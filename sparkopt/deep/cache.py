"""Decoded images that later epochs take again."""

from __future__ import annotations

import hashlib
import threading

from sparkopt.typing import Array

__all__ = ["ImageCache"]


class ImageCache:
    """Images by their encoded content, up to a bound on memory; what comes first stays.

    Every epoch takes the same images in another order, so that none is better kept than another, and nothing is
    ever thrown out.

    Parameters
    ----------
    most : int
        Bytes of images that are kept, ≥ 0.

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
        """Return what stands for encoded bytes: 128 bits of BLAKE2b."""
        return hashlib.blake2b(content, digest_size=16).digest()

    def find(self, key: bytes) -> Array | None:
        """Return the image, which is not to be written to, or None."""
        return self._found.get(key)

    def keep(self, key: bytes, image: Array) -> None:
        """Keep an image where there is room for it."""
        with self._lock:
            if key not in self._found and image.nbytes <= self._room:
                self._room -= image.nbytes
                self._found[key] = image
