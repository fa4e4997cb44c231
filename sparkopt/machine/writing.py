"""A table's rows on disk: a Parquet file for each partition, in a folder that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import parquet

from sparkopt.io.filesystem import Location
from sparkopt.io.saved import replacing
from sparkopt.machine.part import TablePart
from sparkopt.machine.pool import ProcessPool

__all__ = ["write_parquet"]

GROUP = 1 << 17
"""Rows of a row group, roughly."""


def write_parquet(parts: Sequence[TablePart], schema: pa.Schema, path: str, overwrite: bool) -> int:
    """Write the rows of all parts by this machine's worker processes, and return how many they are.

    Raises
    ------
    ParameterError
        Where there is something already, or the file system cannot be used.
    """
    with replacing(path, overwrite) as folder, ProcessPool.shared() as pool:
        return sum(pool.run(_WritePart(folder, schema), list(enumerate(parts))))


@dataclass(frozen=True)
class _WritePart:
    """The task: one part's file."""

    folder: Location
    schema: pa.Schema

    def __call__(self, numbered: tuple[int, TablePart]) -> int:
        number, part = numbered
        file, rows = self.folder.child(f"part-{number:05d}.parquet"), 0
        waiting: list[pa.RecordBatch] = []
        with (
            file.filesystem.open_output_stream(file.path) as stream,
            parquet.ParquetWriter(stream, self.schema) as writer,
        ):
            for batch in part.batches():
                waiting.append(batch)
                rows += batch.num_rows
                if sum(one.num_rows for one in waiting) >= GROUP:
                    writer.write_table(pa.Table.from_batches(waiting, self.schema))
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, self.schema))
        return rows
