"""A fingerprint of the files below a path that is the same one as Spark's."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.io.arrow import array_of, text_of
from sparkopt.io.fingerprint import digest
from sparkopt.io.hashing import xxhash64
from sparkopt.io.listing import FileBelow, files_below

__all__ = ["FileBelow", "files_below", "fingerprint_of"]


def fingerprint_of(*paths: str) -> dict[str, Any]:
    """Return count, bytes and a hash of the files below some paths."""
    files = [file for path in paths for file in files_below(path) if file.size]
    hashes = xxhash64(
        [
            text_of([file.uri for file in files]),
            array_of(np.array([file.size for file in files], np.int64)),
            array_of(np.array([file.modified * 1000 for file in files], np.int64)),
        ]
    )
    both = [int(np.bitwise_xor.reduce(hashes)), int(np.fmod(hashes, 1_000_003).sum())]
    count, size = len(files), sum(file.size for file in files)
    return {"files": count, "bytes": size, "digest": digest({"count": count, "bytes": size, "hashes": both})}
