"""TablePart: some rows of a table, by name; it is small, can be pickled, and opens its rows where it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.errors import SchemaError
from sparkopt.values import dataclass

__all__ = [
    "BATCH",
    "BATCH_BYTES",
    "Batches",
    "FilteredPart",
    "IsFalse",
    "MemoryPart",
    "OfPart",
    "TablePart",
    "batch_rows",
    "in_batches",
]

BATCH = 10_000
"""Most rows of a batch, as many as Spark sends by default."""
BATCH_BYTES = 64 << 20
"""Most bytes of a batch, roughly."""


class TablePart(ABC):
    """One partition of a table.

    Attributes
    ----------
    name : str
        What errors call it, such as "people.parquet, row groups 0 to 3".
    rows : int or None
        Number of rows; None where that is not known before they are read.
    bytes : int or None
        Bytes of the rows in memory, roughly; None where that is not known.
    """

    name: str
    rows: int | None
    bytes: int | None

    @abstractmethod
    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow batches, of all columns or of some in the order given.

        Raises
        ------
        DataError
            Where a file is gone, was changed or cannot be read.
        """

    def coded(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the same rows, in which columns of text may be dictionaries, where these are read sooner."""
        return self.batches(columns)


def batch_rows(bytes_per_row: float) -> int:
    """Return how many rows a batch may have."""
    return int(np.clip(BATCH_BYTES / max(1.0, bytes_per_row), 1, BATCH))


def in_batches(rows: pa.Table, size: int) -> Iterator[pa.RecordBatch]:
    """Yield a table as batches of ``size`` rows, however it is chunked; one that spans chunks is a copy."""
    for start in range(0, rows.num_rows, size):
        whole = rows.slice(start, size).combine_chunks()
        if not rows.num_columns:
            yield pa.RecordBatch.from_struct_array(pa.array([{}] * whole.num_rows, pa.struct([])))
            continue
        yield pa.RecordBatch.from_arrays([_chunk(column) for column in whole.columns], schema=rows.schema)


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


@dataclass(frozen=True, eq=False)
class MemoryPart(TablePart):
    """Rows that are in memory.

    Parameters
    ----------
    name : str
        What errors call it.
    held : pyarrow.Table
        The rows, shared with what the table was made of.
    """

    name: str
    held: pa.Table

    @property
    def rows(self) -> int:  # type: ignore[override]  # known, not set
        """Number of rows."""
        return int(self.held.num_rows)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Bytes of the rows."""
        return int(self.held.nbytes)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        rows = self.held if columns is None else self.held.select(list(columns))
        for field in rows.schema:
            if field.metadata and UNREADABLE in field.metadata:
                raise SchemaError(f"column {field.name!r} cannot be read: {field.metadata[UNREADABLE].decode()}")
        return in_batches(rows, batch_rows(rows.nbytes / max(1, rows.num_rows)))

    def __reduce__(self) -> tuple[Callable[..., MemoryPart], tuple[str, pa.Buffer]]:
        """Pickle the rows of this part alone: Arrow would pickle all of the memory that it shares."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.held.schema) as writer:
            writer.write_table(self.held)
        return _unpickled, (self.name, sink.getvalue())


UNREADABLE = b"sparkopt.unreadable"
"""Metadata of a column that Arrow has no type for: the reason."""


def _unpickled(name: str, stream: pa.Buffer) -> MemoryPart:
    return MemoryPart(name, pa.ipc.open_stream(stream).read_all())


@dataclass(frozen=True)
class OfPart(TablePart):
    """A base class for the rows of another part in another form: it has its name, and as many rows and bytes.

    Parameters
    ----------
    part : TablePart
        The rows.
    """

    part: TablePart

    @property
    def name(self) -> str:  # type: ignore[override]  # known, not set
        """That of the part."""
        return self.part.name

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """Number of rows."""
        return self.part.rows

    @property
    def bytes(self) -> int | None:  # type: ignore[override]
        """Those of the part."""
        return self.part.bytes


@dataclass(frozen=True)
class FilteredPart(OfPart):
    """Some rows of another part.

    Parameters
    ----------
    part : TablePart
        The part.
    condition : callable
        From a batch to booleans: true in rows that stay. It can be pickled.
    columns : tuple of str
        The columns that it looks at.
    what : str
        What errors call these rows.
    """

    condition: Callable[[pa.RecordBatch], pa.Array]
    columns: tuple[str, ...]
    what: str
    rows = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the part, and the condition."""
        return f"{self.part.name}, {self.what}"

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield these rows."""
        names = None if columns is None else list(dict.fromkeys([*columns, *self.columns]))
        for batch in self.part.batches(names):
            kept = batch.filter(self.condition(batch))
            if kept.num_rows:
                yield kept if columns is None else kept.select(list(columns))


@dataclass(frozen=True)
class Batches:
    """The task: some columns of a partition, or all, as a list of batches."""

    columns: Sequence[str] | None = None

    def __call__(self, part: TablePart) -> list[pa.RecordBatch]:
        """Return the batches."""
        return list(part.batches(self.columns))


@dataclass(frozen=True)
class IsFalse:
    """The condition that a boolean column is false."""

    column: str

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        """Return it for each row."""
        return pc.invert(batch.column(self.column))
