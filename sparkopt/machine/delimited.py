"""Tables of CSV files, cut at lines into parts of some bytes, as Spark cuts them; the first rows choose the types."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import pyarrow as pa
from pyarrow import csv

from sparkopt.errors import DataError, SchemaError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief
from sparkopt.machine.csv_format import CsvFormat
from sparkopt.machine.listing import DataFile, folder_columns
from sparkopt.machine.parquet import refuse_changed
from sparkopt.machine.part import TablePart, batch_rows, in_batches
from sparkopt.values import dataclass

__all__ = ["CsvPart", "from_csv"]

PART_BYTES = 32 << 20
"""Bytes of text in a partition."""
INFERRED_BYTES = 4 << 20
"""Bytes at the beginning of a file by which types are chosen."""
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
LARGER = 8
"""How many times as large a compressed text is in memory, roughly."""
RFC_4180 = CsvFormat()


@dataclass(frozen=True)
class CsvPart(TablePart):
    """The lines of a file that begin in a range of bytes; of a compressed file all.

    Parameters
    ----------
    location : Location
        The file.
    shown : str
        Its name.
    begin, end : int
        The range.
    size, modified : int
        Bytes of the file and its time of modification in milliseconds, as it was listed.
    header : bool
        Whether the first line has names.
    own : pyarrow.Schema
        The file's columns.
    schema : pyarrow.Schema
        The table's columns.
    constants : mapping of str to any
        Values of the columns that the file's folders stand for.
    form : CsvFormat
        How the text is cut.
    """

    location: Location
    shown: str
    begin: int
    end: int
    size: int
    modified: int
    header: bool
    own: pa.Schema = field(repr=False)
    schema: pa.Schema = field(repr=False)
    constants: Mapping[str, Any]
    form: CsvFormat = field(default=RFC_4180, repr=False)
    rows = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The file, and the range where it is not all of it."""
        whole = self.begin == 0 and self.end == self.size
        return self.shown if whole else f"{self.shown}, bytes {self.begin:,} to {self.end - 1:,}"

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Bytes of the text, which are about those of its numbers."""
        return (self.end - self.begin) * (LARGER if compression_of(self.shown) else 1)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        refuse_changed(self.location, self.size, self.modified)
        names = self.schema.names if columns is None else list(columns)
        try:
            for batch in self._read([name for name in names if name not in self.constants]):
                arrays = [
                    pa.array([self.constants[name]] * batch.num_rows, self.schema.field(name).type)
                    if name in self.constants
                    else batch.column(name)
                    for name in names
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=names)
        except STORAGE_ERRORS as error:
            raise DataError(
                f"{self.name} cannot be read: {brief(error)}. Types are chosen by a file's first rows; set one by "
                f"Table.of(path, types={{'column': 'double'}}), in commands by --type column=double."
            ) from None

    def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        first = self.begin == 0
        reading = csv.ReadOptions(
            use_threads=False,
            column_names=self.own.names,
            skip_rows=int(self.header and first),
            block_size=8 << 20,
            encoding=self.form.encoding,
        )
        converting = csv.ConvertOptions(
            column_types=self.own,
            include_columns=list(names) or self.own.names[:1],
            null_values=self.form.nulls,
            strings_can_be_null=True,
        )
        options = (reading, self.form.parsing(self.shown), converting)
        compression = compression_of(self.shown)
        if compression or not self.form.cuts_at_lines:
            with self.location.filesystem.open_input_stream(self.location.path, compression=compression) as stream:
                for block in csv.open_csv(stream, *options):
                    yield from self._cut(pa.Table.from_batches([block]))
            return
        text = lines_between(self.location, self.begin, self.end)
        if text.strip() and not (first and self.header and b"\n" not in text.rstrip()):
            yield from self._cut(csv.read_csv(pa.BufferReader(text), *options))

    def _cut(self, rows: pa.Table) -> Iterator[pa.RecordBatch]:
        return in_batches(rows, batch_rows(rows.nbytes / max(1, rows.num_rows)))


def compression_of(name: str) -> str | None:
    """Return how a file is compressed, by its ending."""
    return COMPRESSED.get(os.path.splitext(name.lower())[1])


def lines_between(location: Location, begin: int, end: int) -> bytes:
    """Return the lines that begin in a range of bytes."""
    with location.filesystem.open_input_file(location.path) as file:
        size = file.size()
        start = max(0, begin - 1)
        file.seek(start)
        text: bytes = file.read(end - start)
        while not text.endswith(b"\n") and file.tell() < size:
            more = file.read(1 << 16)
            line, newline, _ = more.partition(b"\n")
            text += line + newline
            if newline:
                break
    if begin == 0:
        return text
    _, _, rest = text.partition(b"\n")  # the byte before the range ends a line, or begins the rest of one
    return rest


def from_csv(
    files: Sequence[DataFile], header: bool, types: Mapping[str, pa.DataType], form: CsvFormat = RFC_4180
) -> tuple[pa.Schema, list[TablePart]]:
    """Return schema and partitions of CSV files; their first rows are read.

    Raises
    ------
    SchemaError
        Where two files have different columns.
    DataError
        Where a file cannot be read.
    """
    folders, constants = folder_columns(files)
    found = [_columns(file, header, form) for file in files]
    for own, file in zip(found, files, strict=True):
        if sorted(own.names) != sorted(found[0].names):
            raise SchemaError(
                f"{file.name} has the columns {', '.join(own.names)}; {files[0].name} has "
                f"{', '.join(found[0].names)}. All files of a table need the same columns."
            )
    for name in types:
        if name not in found[0].names:
            raise SchemaError(f"types has {name!r}, which is no column. Columns: {', '.join(found[0].names)}.")
    joined = {name: types.get(name) or _joined([own.field(name).type for own in found]) for name in found[0].names}
    schema = pa.schema([*(pa.field(*item) for item in joined.items() if item[0] not in constants[0]), *folders])
    parts = list[TablePart]()
    for own, file, values in zip(found, files, constants, strict=True):
        typed = pa.schema([pa.field(name, joined[name]) for name in own.names])
        step = file.size if compression_of(file.name) or not form.cuts_at_lines else PART_BYTES
        for begin in range(0, file.size, step):
            end = min(file.size, begin + step)
            place = (file.location, file.name, begin, end, file.size, file.modified)
            parts.append(CsvPart(*place, header, typed, schema, values, form))
    return schema, parts


def _columns(file: DataFile, header: bool, form: CsvFormat) -> pa.Schema:
    """Return the columns of a file, of the types that its first rows suggest."""
    reading = csv.ReadOptions(
        use_threads=False,
        autogenerate_column_names=not header,
        block_size=min(INFERRED_BYTES, max(1, file.size)),
        encoding=form.encoding,
    )
    converting = csv.ConvertOptions(null_values=form.nulls, strings_can_be_null=True)
    try:
        compression = compression_of(file.name)
        with file.location.filesystem.open_input_stream(file.location.path, compression=compression) as stream:
            own = csv.open_csv(stream, reading, form.parsing(file.name), converting).schema
    except STORAGE_ERRORS as error:
        raise DataError(f"{file.location.path} cannot be read as CSV: {brief(error)}") from None
    names = own.names if header else [f"_c{number}" for number in range(len(own))]  # as Spark calls them
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"{file.location.path} has several columns {twice!r}: rename all but one.")
    return pa.schema([pa.field(name, column.type) for name, column in zip(names, own, strict=True)])


def _joined(types: Sequence[pa.DataType]) -> pa.DataType:
    """Return the type that holds the values of all files."""
    found = {kind for kind in types if not pa.types.is_null(kind)}
    if len(found) < 2:
        return found.pop() if found else pa.null()
    return pa.float64() if found == {pa.int64(), pa.float64()} else pa.string()
