"""A function of many items, here or in this machine's worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sparkopt.machine import ProcessPool
from sparkopt.solver.callbacks import bar_is_visible

__all__ = ["LITTLE", "for_each"]

A = TypeVar("A")
T = TypeVar("T")

LITTLE = 32 << 20
"""Bytes of rows that are read here: it takes less time than to start other processes."""


def for_each(function: Callable[[A], T], items: Sequence[A], size: int | None, title: str = "") -> list[T]:
    """Return the function's results, in the items' order.

    Parameters
    ----------
    function : callable
        What is done with an item. It can be pickled.
    items : sequence
        The items.
    size : int or None
        Bytes of their rows; None where that is not known.
    title : str, default ""
        Title of a progress bar, which is drawn where somebody sees it; none without a title.
    """
    if len(items) < 2 or (size is not None and size <= LITTLE):
        return [function(item) for item in items]
    with ProcessPool.shared() as pool:
        if not title or not bar_is_visible():
            return pool.run(function, items)
        from tqdm import tqdm

        with tqdm(total=len(items), desc=title, unit="part", delay=2.0) as bar:
            found = []
            for result in pool.in_rounds(function, items):
                found.append(result)
                bar.update()
        return found
