"""Tables of Arrow files: those of users, and those that streams are written to since they can be read only once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from sparkopt.errors import DataError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief
from sparkopt.machine.folders import private_folders
from sparkopt.machine.listing import DataFile, folder_columns
from sparkopt.machine.memory import from_arrow, parts_of
from sparkopt.machine.parquet import refuse_changed
from sparkopt.machine.part import BATCH, TablePart, batch_rows, in_batches
from sparkopt.machine.schemas import require_same
from sparkopt.values import dataclass

__all__ = ["ArrowPart", "from_arrow_files", "from_stream"]

LEAST, MOST, PARTS = 8 << 20, 128 << 20, 32
"""Bytes of a partition: a share of one in so many of the table's, between these two."""

IN_MEMORY = 64 << 20
"""Bytes of a stream that are kept in memory; one that is longer is written to a file."""


@dataclass(frozen=True)
class ArrowPart(TablePart):
    """Some batches of an Arrow file.

    Parameters
    ----------
    name : str
        What errors call it.
    rows : int or None
        Rows, where they are known.
    bytes : int
        Bytes.
    location : Location
        The file.
    first, last : int
        The first of its batches, and the one after the last.
    size, modified : int
        Bytes of the file and its time of modification in milliseconds, as it was listed.
    schema : pyarrow.Schema
        The table's columns.
    constants : mapping of str to any
        Values of the columns that the file's folders stand for.
    """

    name: str
    rows: int | None
    bytes: int
    location: Location
    first: int
    last: int
    size: int
    modified: int
    schema: pa.Schema = field(repr=False)
    constants: Mapping[str, Any] = field(default_factory=dict)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        refuse_changed(self.location, self.size, self.modified)
        names = self.schema.names if columns is None else list(columns)
        try:
            with opened(self.location) as file:
                for index in range(self.first, self.last):
                    yield from self._cut(file.get_batch(index), names)
        except STORAGE_ERRORS as error:
            raise DataError(f"{self.name} cannot be read: {brief(error)}") from None

    def _cut(self, batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        arrays = [
            pa.array([self.constants[name]] * batch.num_rows, self.schema.field(name).type)
            if name in self.constants
            else batch.column(name)
            for name in names
        ]
        whole = pa.RecordBatch.from_arrays(arrays, names=list(names))
        size = batch_rows(whole.nbytes / max(1, whole.num_rows))
        return (whole.slice(start, size) for start in range(0, whole.num_rows, size))


@contextlib.contextmanager
def opened(location: Location) -> Iterator[Any]:
    """Open an Arrow file; one of this machine is memory-mapped."""
    system, path = location.filesystem, location.path
    with pa.memory_map(path) if location.is_local else system.open_input_file(path) as source:
        yield pa.ipc.open_file(source)


def from_arrow_files(files: Sequence[DataFile]) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of Arrow or Feather files; their footers are read.

    Raises
    ------
    DataError
        Where a file is none.
    SchemaError
        Where two files have different columns.
    """
    folders, constants = folder_columns(files)
    known: pa.Schema | None = None
    counts = []
    for file in files:
        try:
            with opened(file.location) as reader:
                own, count = reader.schema, reader.num_record_batches
        except STORAGE_ERRORS as error:
            raise DataError(
                f"{file.location.path} cannot be read as an Arrow file: {brief(error)}. A stream is given "
                f"as pyarrow.ipc.open_stream(path)."
            ) from None
        known = own if known is None else known
        require_same(known, own, files[0].name, file.name)
        counts.append(count)
    assert known is not None  # noqa: S101  # there is at least one file
    schema = pa.schema([f for f in known if f.name not in constants[0]] + folders)
    target = int(np.clip(sum(file.size for file in files) / PARTS, LEAST, MOST))
    parts = list[TablePart]()
    for file, count, values in zip(files, counts, constants, strict=True):
        cuts = min(count, max(1, file.size // target))
        for part in range(cuts):
            first, last = count * part // cuts, count * (part + 1) // cuts
            name = file.name if cuts == 1 else f"{file.name}, batches {first} to {last - 1}"
            size = file.size // cuts
            parts.append(
                ArrowPart(name, None, size, file.location, first, last, file.size, file.modified, schema, values)
            )
    return schema, parts


class PrivateFolder:
    """A folder that nobody else can read, and that goes with its last user."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="table-", dir=private_folders()[0]))  # mode 0700
        self.delete = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Stay in this process: another one that has parts must not delete their file."""
        return type(None), ()


def from_stream(stream: pa.RecordBatchReader) -> tuple[pa.Schema, list[TablePart], PrivateFolder | None]:
    """Return schema and partitions of a stream, which is read once, and the folder of its file.

    A short one stays in memory.
    """
    schema, held, size = stream.schema, list[pa.RecordBatch](), 0
    for batch in stream:
        held.append(batch)
        size += batch.nbytes
        if size > IN_MEMORY:
            return schema, *_spooled(stream, held)
    return *from_arrow(pa.Table.from_batches(held, schema)), None


def _spooled(stream: pa.RecordBatchReader, held: list[pa.RecordBatch]) -> tuple[list[TablePart], PrivateFolder]:
    """Write a stream's batches, of which the first ones are known, to a file, and return its partitions."""
    folder = PrivateFolder()
    path = folder.path / "rows.arrow"
    try:
        rows = _written(path, stream.schema, _all(held, stream))
    except BaseException:
        folder.delete()  # now, whoever holds the error
        raise
    location = Location(fs.LocalFileSystem(), str(path))
    (info,) = location.filesystem.get_file_info([str(path)])
    ends = np.concatenate([[0], np.cumsum(rows)])
    parts = list[TablePart]()
    for begin, end in parts_of(int(ends[-1]), info.size):
        first, last = np.searchsorted(ends, [begin, end]).tolist()
        count = int(ends[last] - ends[first])
        name = f"rows {ends[first]:,} to {ends[last] - 1:,}"
        size = info.size * count // int(ends[-1])
        modified = info.mtime_ns // 1_000_000
        parts.append(ArrowPart(name, count, size, location, first, last, info.size, modified, stream.schema))
    return parts, folder


def _written(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> list[int]:
    """Write batches to a file, none of them long, and return the rows of each."""
    rows = list[int]()
    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in batches:
            for small in in_batches(pa.Table.from_batches([batch]), BATCH):
                writer.write_batch(small)
                rows.append(small.num_rows)
    return rows


def _all(held: list[pa.RecordBatch], stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while held:
        yield held.pop(0)
    yield from stream
