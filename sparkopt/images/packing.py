"""Arrays as bytes, as networks keep masks and decoded images of any size and type."""

from __future__ import annotations

import numpy as np

from sparkopt.typing import Array

__all__ = ["is_packed", "packed_array", "unpacked_array"]

_PACKED = b"\x93sparkopt mask"
"""How they begin, as no image file does; the word is that of the first stores, which held masks alone."""


def packed_array(array: Array) -> bytes:
    """Return an array as bytes: what says that these follow, its type, its shape and its values."""
    shape = np.array(array.shape, np.int32).tobytes()
    return _PACKED + array.dtype.str.encode().ljust(4) + bytes([array.ndim]) + shape + array.tobytes()


def is_packed(data: bytes) -> bool:
    """Whether bytes are an array's, and not a file's."""
    return data.startswith(_PACKED)


def unpacked_array(data: bytes) -> Array:
    """Return the array of ``packed_array``; it must not be written to."""
    at = len(_PACKED)
    begin = at + 5 + 4 * data[at + 4]
    shape = np.frombuffer(data[at + 5 : begin], np.int32)
    found: Array = np.frombuffer(data, data[at : at + 4].decode().strip(), offset=begin).reshape(shape)
    return found if found.flags.aligned else found.copy()
