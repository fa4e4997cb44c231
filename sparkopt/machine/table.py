"""Table: rows on this machine, or on storage that it reaches, in partitions that have names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sparkopt.errors import ParameterError
from sparkopt.machine.listing import files_of
from sparkopt.machine.memory import from_arrow, from_pair, from_pandas
from sparkopt.machine.parquet import from_parquet
from sparkopt.machine.part import FilteredPart, TablePart

__all__ = ["Table"]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows that Arrow can read, in partitions: what estimators train on without Spark.

    ``Table.of`` makes one. Rows are read where they are used; making a table reads no more than files' footers.
    What a partition holds does not depend on the machine, so coefficients do not either.

    Parameters
    ----------
    schema : pyarrow.Schema
        Names and types of the columns.
    partitions : tuple of TablePart
        The rows. Each part is small, can be pickled, and opens its rows where it is used.

    Examples
    --------
    >>> import numpy as np
    >>> table = Table.of((np.eye(3, dtype=np.float32), np.array([0.0, 1.0, 1.0])))
    >>> table.names, table.rows, len(table.partitions)
    (['features', 'label'], 3, 1)
    """

    schema: pa.Schema
    partitions: tuple[TablePart, ...] = field(repr=False)

    @classmethod
    def of(cls, data: Any) -> Table:
        """Return what users have as a table.

        Parameters
        ----------
        data : object
            A Table, which is returned as it is; a pyarrow Table or RecordBatch; a pandas.DataFrame, whose index is
            left out; a path, pattern or folder of Parquet files, or a list of them; a pair (X, y) of arrays, whose
            columns are "features" and "label".

        Raises
        ------
        ParameterError
            For anything else.
        DataError
            Where a path does not exist, a folder has no rows, or X and y do not fit.
        SchemaError
            Where files or columns have no type that Arrow knows, or files do not agree.
        """
        if isinstance(data, Table):
            return data
        schema, parts = _opened(data)
        return cls(schema, tuple(parts))

    @staticmethod
    def is_one(data: object) -> bool:
        """Whether this is a Table."""
        return isinstance(data, Table)

    @staticmethod
    def accepts(data: object) -> bool:
        """Whether ``of`` takes it, as far as its type says; a Spark DataFrame is none."""
        return isinstance(data, Table) or _kind(data) is not None

    def __str__(self) -> str:
        more = f" and {len(self.partitions) - 1:,} more partitions" if len(self.partitions) > 1 else ""
        return f"{self.partitions[0].name}{more}" if self.partitions else "no rows"

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Number of rows; None where it is not known before they are read."""
        return _total([part.rows for part in self.partitions])

    @property
    def bytes(self) -> int | None:
        """Bytes of the rows in memory, roughly; None where that is not known."""
        return _total([part.bytes for part in self.partitions])

    def without(self, name: str) -> Table:
        """Return the rows in which a boolean column is false."""
        return Table(self.schema, tuple(FilteredPart(part, name) for part in self.partitions))


def _total(known: Sequence[int | None]) -> int | None:
    found = [count for count in known if count is not None]
    return sum(found) if len(found) == len(known) else None


def _kind(data: object) -> str | None:
    """Return which kind of table this is, without importing what made it."""
    module = type(data).__module__
    if isinstance(data, (str, os.PathLike)):
        return "paths"
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        return "arrow"
    if module.startswith("pandas.") and type(data).__name__ == "DataFrame":
        return "pandas"
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], (str, os.PathLike)):
        return "pair"
    if isinstance(data, (list, tuple)) and data and all(isinstance(path, (str, os.PathLike)) for path in data):
        return "paths"
    return None


def _opened(data: Any) -> tuple[pa.Schema, list[TablePart]]:
    kind = _kind(data)
    if kind == "arrow":
        return from_arrow(data if isinstance(data, pa.Table) else pa.Table.from_batches([data]))
    if kind == "pandas":
        return from_pandas(data)
    if kind == "pair":
        return from_pair(*data)
    if kind == "paths":
        return from_parquet(files_of([data] if isinstance(data, (str, os.PathLike)) else data))
    raise ParameterError(
        f"a table is made of a path, Arrow, pandas, or a pair (X, y) of arrays. Got a {type(data).__name__} instead."
    )
