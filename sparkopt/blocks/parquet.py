"""Rows of Parquet files, read by Arrow inside the tasks: the same rows in the same partitions as Spark reads them.

Whatever Spark might read otherwise (another type in one of the files, a missing column, a file that was replaced) is
refused with ``NotReadHere``, and Spark reads instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from sparkopt.blocks.columns import FEATURES, FOLD, LABEL, OFFSET, RAW, VALIDATION, WEIGHT
from sparkopt.blocks.filters import Filter
from sparkopt.blocks.layout import unit_rows
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.arrow import array_of, fixed_width_values
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief, resolve
from sparkopt.machine.parquet import bytes_per_row, within
from sparkopt.machine.part import batch_rows
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["ColumnSource", "FilePart", "NotReadHere", "ParquetReader"]

VECTOR, ARRAY, ASSEMBLED, NUMBER = "vector", "array", "assembled", "number"
"""What a column is made of: a Vector, a list, several columns, one number."""

ANY = "any"
"""Type of a column that is not compared: of which only the nulls count, or of a table whose schema is known."""

TARGETS = {LABEL: pa.float64(), WEIGHT: pa.float64(), OFFSET: pa.float64(), VALIDATION: pa.bool_(), FOLD: pa.int64()}
"""Types of the columns of one number, as the checks of rows expect them."""

SIMPLE = {
    "byte": pa.int8(),
    "short": pa.int16(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
"""Spark's types by their names in its plans."""

DECIMAL = re.compile(r"decimal\((\d+),(-?\d+)\)")
EXACT_DIGITS = 15
"""Digits of a decimal whose two factors, the unscaled number and a power of ten, a double holds exactly."""

Casts: TypeAlias = tuple[str, ...]
"""Types that a number is cast to, one after the other."""


class NotReadHere(Exception):
    """Arrow does not read these rows as Spark would; the message says why."""


@dataclass(frozen=True)
class FilePart:
    """A part of a file: the row groups whose middle lies in it.

    Attributes
    ----------
    uri : str
        The file.
    start, length : int
        The part, in bytes.
    size, modified : int
        Bytes of the file, and its time of modification in milliseconds, as it was listed.
    constants : mapping of str to number or str
        Values of the columns that the file's folder stands for.
    groups : sequence of int or None, default None
        The row groups, where they are known already.
    location : Location or None, default None
        Where the file is, where that is known already.
    span : tuple of int or None, default None
        The first row of these row groups, and the one after the last; None is all.
    """

    uri: str
    start: int
    length: int
    size: int
    modified: int
    constants: Mapping[str, float | str | None]
    groups: Sequence[int] | None = None
    location: Location | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class ColumnSource:
    """How a column of training rows is made of the files' columns.

    Attributes
    ----------
    kind : str
        "vector", "array", "assembled" (of several columns) or "number".
    names : sequence of str
        The files' columns.
    types : sequence of str
        Their types, of an array's entries for an array.
    casts : sequence of sequence of str
        What each is cast to, one after the other.
    as_vector : bool, default False
        Whether the columns are assembled to a Vector, which is sparse where that is smaller.
    """

    kind: str
    names: Sequence[str]
    types: Sequence[str]
    casts: Sequence[Casts]
    as_vector: bool = False


@dataclass(frozen=True)
class ParquetReader:
    """Reads parts of files as the batches that the checks of rows expect.

    Parameters
    ----------
    sources : mapping of str to ColumnSource
        How each column is made.
    conditions : sequence of Filter, default ()
        Which rows stay.
    looked_at : sequence of ColumnSource, default ()
        The columns that the conditions look at, by their numbers.
    """

    sources: Mapping[str, ColumnSource]
    conditions: Sequence[Filter] = ()
    looked_at: Sequence[ColumnSource] = ()

    @property
    def every_source(self) -> list[ColumnSource]:
        """How every column that is read is made."""
        return [*self.sources.values(), *self.looked_at]

    def __call__(self, parts: Sequence[FilePart]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one partition.

        Raises
        ------
        NotReadHere
            Where Spark would read them otherwise, or Arrow cannot.
        DataError
            Where a file is gone: no reader could read it.
        """
        for part in parts:
            try:
                yield from self._rows(part)
            except STORAGE_ERRORS as error:
                raise NotReadHere(f"{part.uri}: {brief(error)}") from None

    def _rows(self, part: FilePart) -> Iterator[pa.RecordBatch]:
        location = part.location or _resolved(part.uri)
        _refuse_replaced(location, part)
        # one request for several columns: each takes a store as long as reading a megabyte does
        remote = {"filesystem": location.filesystem, "pre_buffer": True}
        options = {"memory_map": True} if location.is_local else remote
        with parquet.ParquetFile(location.path, read_dictionary=self._coded, **options) as file:
            self._check(file.schema_arrow, part)
            groups = _groups(file.metadata, part)
            vectors = [name for source in self.sources.values() if source.kind == VECTOR for name in source.names]
            dense = {name for name in vectors if _is_dense(file.metadata, groups, name)}
            wanted = [f"{name}.values" if name in dense else name for name in self._names(part)]
            if not groups:
                return
            size = self._in_units(batch_rows(bytes_per_row(file.metadata, groups)), file.metadata, groups)
            for batch in within(file.iter_batches(size, groups, wanted, use_threads=False), part.span):
                yield self.made(self._chosen(batch, part), part.constants, dense)

    def _in_units(self, rows: int, metadata: parquet.FileMetaData, groups: Sequence[int]) -> int:
        """Return about so many rows that are whole units of blocks, so that none is put together of two batches."""
        source = self.sources.get(FEATURES)
        if source is None:
            return rows
        is_narrow = (
            source.kind != VECTOR and not source.as_vector and all(map(_is_narrow, source.types, source.casts))
        )
        width = len(source.names) if source.kind == ASSEMBLED else _entries_of(metadata, groups[0], source.names[0])
        unit = unit_rows(width * (4 if is_narrow else 8))
        return rows // unit * unit or rows

    def _chosen(self, batch: pa.RecordBatch, part: FilePart) -> pa.RecordBatch:
        """Return the rows for which every condition is true."""
        for condition in self.conditions:
            seen = batch
            number = lambda i: _number(seen, part.constants, self.looked_at[i], 0)  # noqa: B023, E731
            batch = batch.filter(condition(number))
        return batch

    @cached_property
    def _coded(self) -> list[str]:
        """Names of raw columns of text, which are read as the dictionaries that files have: that is less work."""
        compared = {name for source in self.looked_at for name in source.names}
        raw = [source for role, source in self.sources.items() if role.startswith(RAW)]
        return [source.names[0] for source in raw if source.types[0] == "string" and source.names[0] not in compared]

    def _names(self, part: FilePart) -> list[str]:
        """Return the columns to read, each once."""
        names = dict.fromkeys(name for source in self.every_source for name in source.names)
        return [name for name in names if name not in part.constants]

    def _check(self, schema: pa.Schema, part: FilePart) -> None:
        """Refuse a file whose columns are not of the table's types."""
        for source in self.every_source:
            for name, kind in zip(source.names, source.types, strict=True):
                if name in part.constants:
                    continue
                found = schema.get_all_field_indices(name)
                if len(found) != 1:
                    raise NotReadHere(f"{part.uri} has {len(found)} columns {name!r}")
                own = schema.field(found[0]).type
                if name in self._coded and pa.types.is_dictionary(own):
                    own = own.value_type
                if not _is_of(own, source.kind, kind):
                    raise NotReadHere(f"{part.uri} has column {name!r} as {own}")

    def made(
        self, batch: pa.RecordBatch, constants: Mapping[str, float | str | None], dense: Collection[str] = ()
    ) -> pa.RecordBatch:
        """Return rows of the files' columns as the checks of rows expect them.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            The rows.
        constants : mapping of str to number or str
            Values of columns that they do not have.
        dense : collection of str, default ()
            Columns of Vectors of which only the values were read.
        """
        columns = {}
        for role, source in self.sources.items():
            if source.kind == VECTOR:
                column = batch.column(source.names[0])
                columns[role] = column.field("values") if source.names[0] in dense else column
            elif source.kind == ARRAY:
                columns[role] = _entries(batch.column(source.names[0]), source.casts[0])
            elif source.kind == ASSEMBLED:
                numbers = [_number(batch, constants, source, index) for index in range(len(source.names))]
                columns[role] = _assembled(numbers, source.as_vector)
            elif role.startswith(RAW):
                columns[role] = _raw(batch, constants, source)
            else:
                columns[role] = _as(_number(batch, constants, source, 0), TARGETS.get(role, pa.float64()))
        return pa.RecordBatch.from_pydict(columns)

    def number(self, batch: pa.RecordBatch, role: str) -> Array:
        """Return a column of numbers as doubles, in which null is NaN."""
        column = _as(_number(batch, {}, self.sources[role], 0), pa.float64())
        found: Array = fixed_width_values(column.fill_null(np.nan))
        return found


def _resolved(uri: str) -> Location:
    try:
        return resolve(uri, "file")
    except ParameterError as reason:  # not on this machine
        raise NotReadHere(str(reason)) from None


def _refuse_replaced(location: Location, part: FilePart) -> None:
    """Refuse a file that is not the one that was listed: passes over two versions would train on neither."""
    info = location.filesystem.get_file_info(location.path)
    if not info.is_file and not location.is_local and part.groups is None:  # Spark's own reader says what is true
        raise NotReadHere(f"{part.uri} is not found by Arrow")
    if not info.is_file:
        raise DataError(
            f"{part.uri} is gone: it was deleted after the files were listed. Read them again: on Spark by "
            f"spark.read or after REFRESH TABLE, else by making the table again."
        )
    unit = 1 if location.is_local else 1000  # stores tell some clients full seconds
    if info.size != part.size or info.mtime_ns // 1_000_000 // unit != part.modified // unit:
        raise NotReadHere(f"{part.uri} was changed after it was listed")


def _groups(metadata: parquet.FileMetaData, part: FilePart) -> list[int]:
    """Return the row groups whose middle is in the part, by which Spark's readers share out a file."""
    if part.groups is not None:
        return list(part.groups)
    every = range(metadata.num_row_groups)
    if part.start == 0 and part.length >= part.size:
        return list(every)
    return [index for index in every if part.start <= _middle(metadata.row_group(index)) < part.start + part.length]


def _middle(group: parquet.RowGroupMetaData) -> int:
    first = group.column(0)
    begin = first.data_page_offset
    if first.has_dictionary_page and first.dictionary_page_offset < begin:
        begin = first.dictionary_page_offset
    size = sum(group.column(index).total_compressed_size for index in range(group.num_columns))
    return int(begin + size // 2)


def _is_dense(metadata: parquet.FileMetaData, groups: Sequence[int], name: str) -> bool:
    """Whether statistics say that each Vector is there and dense: then its values are all there is to read."""
    return all(_has_dense(metadata.row_group(index), f"{name}.type") for index in groups)


def _has_dense(group: parquet.RowGroupMetaData, path: str) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == path:
            known = column.statistics
            return bool(
                known is not None
                and known.has_min_max
                and known.has_null_count
                and (known.min, known.max, known.null_count) == (1, 1, 0)
            )
    return False


def _is_narrow(kind: str, casts: Casts) -> bool:
    return (casts[-1] if casts else kind) == "float"


def _entries_of(metadata: parquet.FileMetaData, index: int, name: str) -> int:
    """Return the entries that a column's rows have on average in a row group: as many as each of dense rows."""
    group = metadata.row_group(index)
    most = 0  # a Vector's values are more than its sizes
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema.startswith(f"{name}."):
            most = max(most, column.num_values)
    return int(most // max(1, group.num_rows))


def _is_of(found: pa.DataType, kind: str, wanted: str) -> bool:
    """Whether a file's column has the type that the table says."""
    if kind == VECTOR:
        return pa.types.is_struct(found) and [field.name for field in found] == ["type", "size", "indices", "values"]
    if wanted == ANY:
        return True
    if kind == ARRAY:
        lists = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
        return lists and bool(found.value_type == SIMPLE.get(wanted))
    if (decimal := DECIMAL.fullmatch(wanted)) is not None:
        return bool(
            pa.types.is_decimal128(found) and (found.precision, found.scale) == tuple(map(int, decimal.groups()))
        )
    if wanted == "string":  # of raw columns, and of what conditions look at
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if wanted == "date":
        return bool(pa.types.is_date32(found))
    return bool(found == SIMPLE.get(wanted))


def _entries(column: pa.Array, casts: Casts) -> pa.Array:
    """Return rows of lists with their entries cast."""
    if pa.types.is_decimal(column.type.value_type):
        values = from_decimal(column.flatten())
        column = pa.ListArray.from_arrays(_int_offsets(column), values, mask=column.is_null())
    for name in casts:
        if column.type.value_type != SIMPLE[name]:
            column = column.cast(pa.list_(SIMPLE[name]), safe=False)
    if pa.types.is_fixed_size_list(column.type):
        return column
    return _as(column, pa.list_(column.type.value_type))


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column of a type. One that has it is not cast: that would load all of Arrow's functions."""
    return column if column.type == kind else column.cast(kind, safe=False)


def _int_offsets(column: pa.Array) -> pa.Array:
    """Return where each list of ``column.flatten()`` begins, and the end; null lists are empty there."""
    lengths = fixed_width_values(pc.list_value_length(column).fill_null(0))
    return array_of(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _number(
    batch: pa.RecordBatch, constants: Mapping[str, float | str | None], source: ColumnSource, index: int
) -> pa.Array:
    """Return one of a source's columns, cast."""
    name, kind = source.names[index], source.types[index]
    if name in constants:
        column = pa.array([constants[name]] * batch.num_rows, SIMPLE.get(kind, pa.string()))
    else:
        column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = from_decimal(column)
    for cast in source.casts[index]:
        column = pc.cast(column, SIMPLE[cast], safe=False)
    return column


def _raw(batch: pa.RecordBatch, constants: Mapping[str, float | str | None], source: ColumnSource) -> pa.Array:
    """Return a column that is not one of numbers, or not yet: text may stay in a dictionary."""
    name = source.names[0]
    if name in constants or source.casts[0] or pa.types.is_decimal(batch.column(name).type):
        return _number(batch, constants, source, 0)
    return batch.column(name)


def from_decimal(column: pa.Array) -> pa.Array:
    """Return decimals as the nearest doubles: for few digits as a quotient, whose two terms are then exact."""
    if column.type.precision > EXACT_DIGITS or not pa.types.is_decimal128(column.type):
        return column.cast(pa.string()).cast(pa.float64())
    low = np.frombuffer(column.buffers()[1], np.int64)[column.offset * 2 : (column.offset + len(column)) * 2 : 2]
    found = array_of(low / 10.0**column.type.scale)
    return pc.if_else(column.is_valid(), found, None)


def _assembled(columns: Sequence[pa.Array], as_vector: bool) -> pa.Array:
    """Return one list, or Vector, a row of several columns of one type."""
    rows = len(columns[0])
    matrix: Array = np.empty((rows, len(columns)), columns[0].type.to_pandas_dtype())
    nulls: dict[int, Array] = {}
    for index, column in enumerate(columns):
        if column.null_count:
            nulls[index] = fixed_width_values(column.is_null())
            column = column.fill_null(0)
        matrix[:, index] = fixed_width_values(column)
    missing = None
    if nulls:
        missing = np.zeros(matrix.shape, bool)
        for index, where in nulls.items():
            missing[:, index] = where
    elif as_vector and (is_sparse := 1.5 * (np.count_nonzero(matrix, axis=1) + 1) < len(columns)).any():
        return _compressed(matrix, is_sparse)
    values = matrix.reshape(-1)
    flat = array_of(values) if missing is None else pa.array(values, mask=missing.reshape(-1))
    return pa.ListArray.from_arrays(array_of(np.arange(rows + 1, dtype=np.int32) * len(columns)), flat)


def _compressed(matrix: Array, is_sparse: Array) -> pa.StructArray:
    """Return Vectors as pyspark.ml's VectorAssembler makes them: sparse in the rows where that is smaller."""
    rows, width = matrix.shape
    stored = (matrix != 0) | ~is_sparse[:, None]
    ends = pa.array(np.concatenate([[0], np.cumsum(stored.sum(axis=1))]).astype(np.int32))
    indices = np.broadcast_to(np.arange(width, dtype=np.int32), matrix.shape)
    only_sparse = stored & is_sparse[:, None]
    sparse_ends = np.concatenate([[0], np.cumsum(only_sparse.sum(axis=1))]).astype(np.int32)
    is_dense = pa.array(~is_sparse)
    return pa.StructArray.from_arrays(
        [
            pa.array(~is_sparse, pa.bool_()).cast(pa.int8()),
            pa.array(np.full(rows, width, np.int32), mask=~is_sparse),
            pa.ListArray.from_arrays(pa.array(sparse_ends), pa.array(indices[only_sparse]), mask=is_dense),
            pa.ListArray.from_arrays(ends, pa.array(matrix[stored])),
        ],
        ["type", "size", "indices", "values"],
    )
