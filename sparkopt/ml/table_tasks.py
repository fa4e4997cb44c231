"""Where a table's parts are read: in this process, or by its worker processes where there is much to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sparkopt.machine import ProcessPool, Table, TablePart
from sparkopt.machine.part import MemoryPart

__all__ = ["for_each_part"]

T = TypeVar("T")

LITTLE = 64 << 20
"""Bytes of rows that are read here: it takes less time than to ask other processes."""


def for_each_part(function: Callable[[TablePart], T], table: Table) -> list[T]:
    """Return what a function returns of each part, in their order."""
    if table.cluster is not None:
        return table.cluster.run(function, table.partitions)
    size = table.bytes
    with ProcessPool.shared() as shared:
        is_little = size is not None and size <= LITTLE
        if is_little or len(table.partitions) < 2 or any(map(_is_held, table.partitions)):
            return [function(part) for part in table.partitions]
        return shared.run(function, table.partitions)


def _is_held(part: Any) -> bool:
    """Whether the rows are in this process's memory: to send them takes longer than to read them."""
    while hasattr(part, "part"):
        part = part.part
    return isinstance(part, MemoryPart)
