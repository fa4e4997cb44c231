"""DerivedPart: a partition with further columns, which a function computes where and when its rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import pyarrow as pa

from sparkopt.machine.part import Batches, OfPart
from sparkopt.machine.pool import ProcessPool
from sparkopt.machine.table import Table
from sparkopt.values import dataclass

__all__ = ["BatchMap", "DerivedPart", "computed", "derived"]

BatchMap: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""A function of batches, as ``DataFrame.mapInArrow`` takes it: it can be pickled, and it keeps the other columns."""


@dataclass(frozen=True, eq=False)
class DerivedPart(OfPart):
    """The rows of another part with further columns.

    Parameters
    ----------
    part : TablePart
        The rows.
    function : callable
        From batches to batches that have the ``added`` columns too.
    read : tuple of str
        Columns that the function reads.
    names, added : tuple of str
        All columns, those of the part that stay among them, and those that the function adds or changes.
    drops : bool, default False
        Whether the function may leave out rows.
    """

    function: BatchMap
    read: tuple[str, ...]
    names: tuple[str, ...]
    added: tuple[str, ...]
    drops: bool = False

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """Number of rows, where it is known."""
        return None if self.drops else self.part.rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows; the function runs where what it adds is asked for, or where it may leave out rows."""
        wanted = list(self.names if columns is None else columns)
        given = [name for name in wanted if name not in self.added]
        if len(given) == len(wanted) and not self.drops:
            yield from self.part.batches(wanted)
            return
        for batch in self.function(self.part.batches(list(dict.fromkeys([*given, *self.read])))):
            yield batch.select(wanted)


def derived(
    table: Table,
    function: BatchMap,
    schema: pa.Schema,
    read: Sequence[str],
    added: Sequence[str],
    drops: bool = False,
) -> Table:
    """Return a table with the columns that a function adds, which are computed as they are read.

    Parameters
    ----------
    table : Table
        The rows.
    function : callable
        From batches to batches that have the added columns too.
    schema : pyarrow.Schema
        All columns of the result: those of ``table`` that stay, and those that are ``added``.
    read, added : sequence of str
        Columns that the function reads, and those that it adds.
    drops : bool, default False
        Whether the function may leave out rows.
    """
    columns = (tuple(read), tuple(schema.names), tuple(added))
    return table.with_parts((DerivedPart(part, function, *columns, drops) for part in table.partitions), schema)


IN_THIS_PROCESS = 16 << 20
"""Bytes of rows that are computed sooner than other processes would be ready."""


def computed(table: Table, in_processes: bool, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table's rows as Arrow, with what is derived of them.

    Parameters
    ----------
    table : Table
        The rows.
    in_processes : bool
        Whether large ones are worth the processes of `ProcessPool.shared`: what is computed keeps one core busy.
    columns : sequence of str, optional
        Which columns; unset, all of them.
    """
    names = table.names if columns is None else list(columns)
    read, schema = Batches(names), pa.schema([table.schema.field(name) for name in names])
    if table.cluster is not None:
        found = table.cluster.run(read, table.partitions)
        return pa.Table.from_batches([batch for batches in found for batch in batches], schema)
    is_small = table.bytes is not None and table.bytes <= IN_THIS_PROCESS
    if is_small or not in_processes or len(table.partitions) < 2:
        batches = [batch for part in table.partitions for batch in read(part)]
    else:
        with ProcessPool.shared() as pool:
            batches = [batch for found in pool.run(read, table.partitions) for batch in found]
    return pa.Table.from_batches(batches, schema)
