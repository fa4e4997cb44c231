"""A table's rows on disk: a Parquet file for each partition, in a folder that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from sparkopt.io.filesystem import Location
from sparkopt.io.saved import replacing
from sparkopt.machine.part import TablePart
from sparkopt.machine.pool import ProcessPool
from sparkopt.values import dataclass

__all__ = ["ParquetOutput", "write_parquet"]

GROUP, GROUP_BYTES = 1 << 17, 64 << 20
"""Rows of a row group, or their bytes in memory, roughly: whichever is reached first."""


def write_parquet(parts: Sequence[TablePart], schema: pa.Schema, path: str, overwrite: bool) -> int:
    """Write the rows of all parts by this machine's worker processes, and return how many they are.

    Raises
    ------
    ParameterError
        Where there is something already, or the file system cannot be used.
    """
    with replacing(path, overwrite) as folder, ProcessPool.shared() as pool:
        return sum(pool.run(_WritePart(folder, schema), list(enumerate(parts))))


class ParquetOutput:
    """A Parquet file that batches are written to, in row groups that do not depend on the batches' size.

    Parameters
    ----------
    stream : binary file
        The file.
    schema : pyarrow.Schema
        The columns of all batches.
    compression : str, default "snappy"
        Of the columns.
    """

    def __init__(self, stream: Any, schema: pa.Schema, compression: str = "snappy") -> None:
        self._schema, self._waiting = schema, list[pa.RecordBatch]()
        self._writer = parquet.ParquetWriter(
            stream, schema, compression=compression, use_dictionary=_with_dictionary(schema)
        )

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows."""
        self._waiting.append(batch)
        rows, size = (sum(getattr(one, name) for one in self._waiting) for name in ("num_rows", "nbytes"))
        if rows >= GROUP or size >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []

    def __enter__(self) -> ParquetOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _with_dictionary(schema: pa.Schema) -> bool | list[str]:
    """Return the columns that may have few different values: not floats in lists, where a search takes longest."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    kept = [path for path, is_float_of_list in leaves if not is_float_of_list]
    return True if len(kept) == len(leaves) else kept


def _leaves(path: str, kind: pa.DataType, in_list: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the columns of the file that a type makes, by their paths there, and whether they are floats in lists."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type, in_list)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type, in_list)
        yield from _leaves(f"{path}.key_value.value", kind.item_type, in_list)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type, True)
    else:
        yield path, in_list and pa.types.is_floating(kind)


@dataclass(frozen=True)
class _WritePart:
    """The task: one part's file."""

    folder: Location
    schema: pa.Schema

    def __call__(self, numbered: tuple[int, TablePart]) -> int:
        number, part = numbered
        file, rows = self.folder.child(f"part-{number:05d}.parquet"), 0
        with (
            file.filesystem.open_output_stream(file.path) as stream,
            ParquetOutput(stream, self.schema) as writer,
        ):
            for batch in part.batches():
                writer.write_batch(batch)
                rows += batch.num_rows
        return rows
