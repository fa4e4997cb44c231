"""A function of many items, here or in this machine's worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sparkopt.machine import ProcessPool

__all__ = ["LITTLE", "for_each"]

A = TypeVar("A")
T = TypeVar("T")

LITTLE = 32 << 20
"""Bytes of rows that are read here: it takes less time than to start other processes."""


def for_each(function: Callable[[A], T], items: Sequence[A], size: int | None) -> list[T]:
    """Return the function's results, in the items' order.

    Parameters
    ----------
    function : callable
        What is done with an item. It can be pickled.
    items : sequence
        The items.
    size : int or None
        Bytes of their rows; None where that is not known.
    """
    if len(items) < 2 or (size is not None and size <= LITTLE):
        return [function(item) for item in items]
    with ProcessPool.shared() as pool:
        return pool.run(function, items)
