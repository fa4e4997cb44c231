"""Whether a table's blocks fit on disk: found out before its rows are read, from the first of them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.reader import Reader
from sparkopt.blocks.tables import TableReader
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.machine.folders import local_roots
from sparkopt.machine.parquet import ParquetPart
from sparkopt.machine.table import Table
from sparkopt.matrices import as_csr
from sparkopt.validation import Interval

__all__ = ["estimated_bytes", "refuse_what_does_not_fit"]

logger = logging.getLogger(__name__)

SAMPLE = 1000
"""Rows whose blocks are measured."""


def refuse_what_does_not_fit(
    table: Table, columns: Columns, targets: Interval, codec: str = "none", roots: Sequence[Path] | None = None
) -> None:
    """Refuse a table whose blocks would fill the disk, before it is read.

    Parameters
    ----------
    table, columns, targets, codec
        Those of the store.
    roots : sequence of Path or None, default None
        Where partitions are written in turn; None is where temporary files go.

    Raises
    ------
    IncompatibleError
        With the sizes, and what would train on it.
    """
    roots = local_roots() if roots is None else roots
    needed = estimated_bytes(table, columns, targets, codec)
    if needed is None:
        logger.info("whether the blocks of %s fit on disk is not known before they are written", table)
        return
    disks: dict[int, list[Path]] = {}
    for root in roots:
        disks.setdefault(os.stat(root).st_dev, []).append(root)
    for on_disk in disks.values():
        share, free = needed * len(on_disk) // len(roots), shutil.disk_usage(on_disk[0]).free
        if share > free:
            raise IncompatibleError(
                f"the blocks of {table} take about {share / 1e9:,.1f} GB, and {on_disk[0]} has {free / 1e9:,.1f} GB "
                f"free. {_ways_out(table, columns)}"
            )


def _ways_out(table: Table, columns: Columns) -> str:
    features = columns.features if isinstance(columns.features, str) else ",".join(columns.features)
    submit = f"spark-submit jobs/run.py train --parquet {_path(table)} --label {columns.label} --features {features}"
    return f"Set SPARK_LOCAL_DIRS to a folder with more room, or train on a cluster: {submit}"


def _path(table: Table) -> str:
    """Return the folder of a table's files, where it has some."""
    parts = [part for part in table.partitions if isinstance(part, ParquetPart)]
    files = {piece.location.path for part in parts for piece in part.pieces}
    if not files:
        return "PATH"
    return files.pop() if len(files) == 1 else os.path.commonpath(files)


def estimated_bytes(table: Table, columns: Columns, targets: Interval, codec: str = "none") -> int | None:
    """Return roughly how many bytes the blocks of a table will have; None where nothing is known of its rows.

    The first rows are read. What is wrong with them is told by who reads all of them.
    """
    read = TableReader.of(table.schema, columns)
    for part in table.partitions:
        try:
            batch = next((batch for batch in read(part) if batch.num_rows), None)
            if batch is None:
                continue
            blocks = list(Reader(columns, targets, 0)(iter([batch.slice(0, SAMPLE)])))
        except DataError:
            return None
        sampled = sum(block.rows for block in blocks)
        if not sampled:
            continue
        per_row = sum(block.nbytes for block in blocks) / sampled
        if codec != "none":
            values = [
                np.ravel(block.X if isinstance(block.X, np.ndarray) else as_csr(block.X).data) for block in blocks
            ]
            smaller = sum(pa.compress(found, codec).size for found in values)
            per_row *= smaller / max(1, sum(found.nbytes for found in values))
        rows = table.rows
        if rows is None and table.bytes is not None:
            rows = int(table.bytes / max(1.0, batch.nbytes / batch.num_rows))
        return None if rows is None else int(rows * per_row)
    return 0
