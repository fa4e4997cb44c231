"""The partitions of files as Spark reads them, for a table without Spark."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.parquet import FilePart, _groups
from sparkopt.blocks.scan import parquet_scan
from sparkopt.io import resolve
from sparkopt.machine import Table
from sparkopt.machine.parquet import ParquetPart, RowGroups


def as_spark_reads(df: DataFrame, columns: Columns, path: Path) -> Table:
    """Return a table of the files below ``path`` in the partitions that Spark makes of them."""
    schema = Table.of(path).schema
    parts = parquet_scan(columns.select(df)).partitions
    return Table(schema, tuple(ParquetPart(tuple(map(_piece, part)), schema, 0, 1) for part in parts))


def _piece(part: FilePart) -> RowGroups:
    location = resolve(part.uri, "file")
    groups = tuple(_groups(pq.ParquetFile(location.path).metadata, part))
    return RowGroups(location, location.path, groups, part.size, part.modified, part.constants)
