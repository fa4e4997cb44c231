"""Rows without Spark in partitions of the test's choice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from sparkopt.machine import Table, TablePart


def in_partitions(rows: pa.Table | pd.DataFrame, count: int) -> Table:
    """Return rows as a table of ``count`` partitions."""
    held = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    bounds = np.linspace(0, held.num_rows, count + 1).astype(int)
    return joined([Table.of(held.slice(low, high - low)) for low, high in itertools.pairwise(bounds)])


def joined(tables: list[Table]) -> Table:
    """Return the partitions of some tables as those of one."""
    return Table(tables[0].schema, tuple(part for table in tables for part in table.partitions))


@dataclass(frozen=True)
class Unread(TablePart):
    """A partition that must not be read: what is wrong with a fit is known before."""

    name = "unread"
    rows = 2
    bytes = 32

    @staticmethod
    def table() -> Table:
        """Return a table of features and labels that must not be read."""
        schema = pa.schema([pa.field("features", pa.list_(pa.float64())), pa.field("label", pa.float64())])
        return Table(schema, (Unread(),))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        raise AssertionError(f"{columns} were read")
