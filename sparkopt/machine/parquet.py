"""Tables of Parquet files: partitions of whole row groups, whatever machine reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from sparkopt.errors import DataError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief
from sparkopt.machine.listing import DataFile, folder_columns
from sparkopt.machine.part import TablePart, batch_rows
from sparkopt.machine.schemas import require_same
from sparkopt.values import dataclass

__all__ = ["ParquetPart", "RowGroups", "from_parquet", "refuse_changed"]

LEAST, MOST, PARTS = 8 << 20, 128 << 20, 32
"""Bytes in memory of a partition: a share of one in so many of the table's, between these two."""
MOST_SPANS = 4
"""Partitions of one row group that is larger."""


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a file.

    Attributes
    ----------
    location : Location
        The file.
    name : str
        What errors call it.
    groups : tuple of int or None
        Their numbers; None is all.
    size, modified : int
        Bytes of the file and its time of modification in milliseconds, as it was listed.
    constants : mapping of str to any
        Values of the columns that the file's folders stand for.
    span : tuple of int or None, default None
        The first of their rows, and the one after the last; None is all. Those before are read, too.
    """

    location: Location
    name: str
    groups: tuple[int, ...] | None
    size: int
    modified: int
    constants: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.groups is None:
            return self.name
        first, last = self.groups[0], self.groups[-1]
        rows = "" if self.span is None else f", rows {self.span[0]:,} to {self.span[1] - 1:,}"
        return f"{self.name}, row group{f' {first}' if first == last else f's {first} to {last}'}{rows}"


@dataclass(frozen=True)
class ParquetPart(TablePart):
    """Row groups of one file, or of several small ones.

    Parameters
    ----------
    pieces : tuple of RowGroups
        What it reads, in this order.
    schema : pyarrow.Schema
        The table's columns.
    rows, bytes : int or None
        Rows, and their bytes in memory as the files' footers say; None where these were not read.
    """

    pieces: tuple[RowGroups, ...]
    schema: pa.Schema = field(repr=False)
    rows: int | None
    bytes: int | None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The first of its pieces, and how many more there are."""
        more = f" and {len(self.pieces) - 1} more" if len(self.pieces) > 1 else ""
        return f"{self.pieces[0]}{more}"

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        return self._rows(self.schema.names if columns is None else list(columns), [])

    def coded(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows with the dictionaries of text that the files have."""
        return self._rows(columns, [name for name in columns if self.schema.field(name).type == pa.string()])

    def _rows(self, names: Sequence[str], coded: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for piece in self.pieces:
            refuse_changed(piece.location, piece.size, piece.modified)
            try:
                yield from self._read(piece, names, coded)
            except STORAGE_ERRORS as error:
                raise DataError(f"{piece} cannot be read: {brief(error)}") from None

    def _read(self, piece: RowGroups, names: Sequence[str], coded: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = [name for name in names if name not in piece.constants]
        fields = [self.schema.field(name) for name in names]
        with opened(piece.location, coded) as file:
            groups = list(range(file.metadata.num_row_groups) if piece.groups is None else piece.groups)
            batches = file.iter_batches(
                batch_rows(bytes_per_row(file.metadata, groups)), groups, wanted, use_threads=False
            )
            for batch in within(batches, piece.span):
                arrays = [
                    pa.array([piece.constants[name]] * batch.num_rows, kind.type)
                    if name in piece.constants
                    else batch.column(name)
                    for name, kind in zip(names, fields, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=list(names))


def opened(location: Location, coded: Sequence[str] = ()) -> parquet.ParquetFile:
    """Open a file; one of this machine is memory-mapped. ``coded`` are columns of text to read as dictionaries."""
    options = {"memory_map": True} if location.is_local else {"filesystem": location.filesystem}
    return parquet.ParquetFile(location.path, read_dictionary=list(coded), **options)


def within(batches: Iterator[pa.RecordBatch], span: tuple[int, int] | None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a span, and read no batch after its end."""
    if span is None:
        yield from batches
        return
    seen, (begin, end) = 0, span
    for batch in batches:
        first, last = max(begin - seen, 0), min(end - seen, batch.num_rows)
        if first < last:
            yield batch.slice(first, last - first)
        seen += batch.num_rows
        if seen >= end:
            return


def bytes_per_row(metadata: parquet.FileMetaData, groups: Sequence[int]) -> float:
    """Return the bytes of a row in the widest of some row groups."""
    found = [metadata.row_group(index) for index in groups]
    return max((group.total_byte_size / max(1, group.num_rows) for group in found), default=0.0)


def refuse_changed(location: Location, size: int, modified: int) -> None:
    """Refuse a file that is not the one that was listed: passes over two versions would train on neither.

    Raises
    ------
    DataError
        Naming the file.
    """
    info = location.filesystem.get_file_info(location.path)
    if not info.is_file:
        raise DataError(f"{location.path} is gone: it was deleted after the table was made. Make the table again.")
    if info.size != size or info.mtime_ns // 1_000_000 != modified:
        raise DataError(f"{location.path} was changed after the table was made. Make the table again.")


def from_parquet(files: Sequence[DataFile], declared: pa.Schema | None = None) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of Parquet files; their footers are read.

    Parameters
    ----------
    files : sequence of DataFile
        The files.
    declared : pyarrow.Schema or None, default None
        The table's columns, where they are known with the types of the folders' ones; None chooses these.

    Raises
    ------
    DataError
        Where a file is none.
    SchemaError
        Where two files have different columns.
    """
    if declared is None:
        folders, constants = folder_columns(files)
    else:
        folders = [declared.field(name) for name in files[0].constants]
        constants = [dict(file.constants) for file in files]
    known: pa.Schema | None = None
    pieces = list[tuple[RowGroups, int, int]]()  # row groups one by one, with rows and bytes
    for file, values in zip(files, constants, strict=True):
        try:
            with opened(file.location) as open_file:
                own, metadata = open_file.schema_arrow, open_file.metadata
        except STORAGE_ERRORS as error:
            raise DataError(f"{file.location.path} cannot be read as Parquet: {brief(error)}") from None
        if known is None:
            known = own
        require_same(known, own, files[0].name, file.name)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            piece = RowGroups(file.location, file.name, (index,), file.size, file.modified, values)
            pieces += _slices(piece, group.num_rows, group.total_byte_size)
    assert known is not None  # noqa: S101  # there is at least one file
    schema = pa.schema([f for f in known if f.name not in constants[0]] + folders, known.metadata)
    return schema, [ParquetPart(joined, schema, rows, size) for joined, rows, size in _packed(pieces)]


def _slices(piece: RowGroups, rows: int, size: int) -> Iterator[tuple[RowGroups, int, int]]:
    """Yield a row group, or a few spans of one so large that others would wait for it, with rows and bytes.

    A span's reader decodes the rows before it: so few that this costs less than the cores that would be idle.
    """
    count = min(MOST_SPANS, -(-size // MOST), max(rows, 1))
    if count < 2:
        yield piece, rows, size
        return
    ends = [rows * part // count for part in range(count + 1)]
    for span in itertools.pairwise(ends):
        yield replace(piece, span=span), span[1] - span[0], size // count


def _packed(groups: Sequence[tuple[RowGroups, int, int]]) -> Iterator[tuple[tuple[RowGroups, ...], int, int]]:
    """Yield row groups in partitions of about equal bytes, with rows and bytes."""
    target = int(np.clip(sum(size for _, _, size in groups) / PARTS, LEAST, MOST))
    waiting, rows, size = list[RowGroups](), 0, 0
    for piece, count, stored in groups:
        if waiting and size + stored > target:
            yield tuple(_merged(waiting)), rows, size
            waiting, rows, size = [], 0, 0
        waiting.append(piece)
        rows, size = rows + count, size + stored
    if waiting:
        yield tuple(_merged(waiting)), rows, size


def _merged(pieces: Sequence[RowGroups]) -> Iterator[RowGroups]:
    """Yield pieces with neighbouring row groups of a file as one."""
    last = pieces[0]
    for piece in pieces[1:]:
        if piece.location == last.location and piece.span is last.span is None:
            last = replace(last, groups=(*(last.groups or ()), *(piece.groups or ())))
        else:
            yield last
            last = piece
    yield last
