"""Damaged files: each is read, or refused in one line."""

import numpy as np

from sparkopt import images
from sparkopt.errors import CorruptImageError

MOST = 1 << 14


def read_or_refused(data, *, seed, count):
    """Decode an image so many times, with two other bytes each time."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for at in rng.integers(len(data), size=2):
            changed[at] = rng.integers(256)
        try:
            decoded = images.decode(bytes(changed), max_pixels=MOST)
        except CorruptImageError:
            continue
        assert decoded.dtype == np.uint8
        assert decoded.shape[0] * decoded.shape[1] <= MOST
