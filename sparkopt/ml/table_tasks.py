"""Where a table's parts are read: in this process, or by its worker processes where there is much to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sparkopt.machine import Table, TablePart

__all__ = ["for_each_part"]

T = TypeVar("T")


def for_each_part(function: Callable[[TablePart], T], table: Table) -> list[T]:
    """Return what a function returns of each part, in their order."""
    return [function(part) for part in table.partitions]
