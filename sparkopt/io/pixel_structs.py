"""Structs that hold a decoded image: rows of Spark's image schema, and tensors; told by the names of their fields."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["IMAGE_FIELDS", "TENSOR_FIELDS", "holds_image", "holds_pixels", "holds_tensor"]

IMAGE_FIELDS = ("origin", "height", "width", "nChannels", "mode", "data")
"""Of Spark's image schema; the origin may be missing."""
TENSOR_FIELDS = ("shape", "dtype", "data")


def holds_image(names: Iterable[str]) -> bool:
    """Whether a struct with these fields is a row of Spark's image schema."""
    return set(names) >= set(IMAGE_FIELDS[1:])


def holds_tensor(names: Iterable[str]) -> bool:
    """Whether a struct with these fields is a tensor."""
    return set(names) >= set(TENSOR_FIELDS)


def holds_pixels(names: Iterable[str]) -> bool:
    """Whether a struct with these fields holds a decoded image."""
    found = set(names)
    return holds_image(found) or holds_tensor(found)
