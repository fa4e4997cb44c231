"""Tables that the tests train on, with partitions that they choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sparkopt.machine import Table
from sparkopt.machine.part import MemoryPart


def parted(rows: Mapping[str, Any] | pa.Table, ends: Sequence[int] = ()) -> Table:
    """Return rows as a table whose partitions end before these rows, and at the last one."""
    held = rows if isinstance(rows, pa.Table) else pa.table(dict(rows))
    starts, stops = [0, *ends], [*ends, held.num_rows]
    pieces = [held.slice(start, stop - start) for start, stop in zip(starts, stops, strict=True)]
    return table_of(pieces)


def table_of(pieces: Iterable[pa.Table]) -> Table:
    """Return a table with a partition of each of these."""
    parts = tuple(MemoryPart(f"part {number}", piece) for number, piece in enumerate(pieces))
    return Table(parts[0].held.schema, parts)
