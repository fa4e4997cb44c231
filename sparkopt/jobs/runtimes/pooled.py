"""A function of many items, in this machine's worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["for_each"]

A = TypeVar("A")
T = TypeVar("T")


def for_each(function: Callable[[A], T], items: Sequence[A]) -> list[T]:
    """Return the function's results, in the items' order."""
    return [function(item) for item in items]
