"""Results of tasks as rows: pickled and cut into chunks, since a server refuses rows far larger than its batches."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.cloudpickle import dumps

__all__ = ["CHUNK_SCHEMA", "chunks_of", "collected", "pickled"]

CHUNK = 1 << 20
"""Bytes of a result in one row."""
CHUNK_SCHEMA = "partition int, number int, bytes binary"


def pickled(value: Any) -> bytes:
    """Return a function or result for the other side of this session."""
    found: bytes = dumps(value)
    return found


def chunks_of(partition: int, result: bytes) -> Iterator[pa.RecordBatch]:
    """Yield a partition's pickled result as rows of ``CHUNK_SCHEMA``."""
    for number, start in enumerate(range(0, len(result), CHUNK)):
        columns = {
            "partition": pa.array([partition], pa.int32()),
            "number": pa.array([number], pa.int32()),
            "bytes": pa.array([result[start : start + CHUNK]], pa.binary()),
        }
        yield pa.RecordBatch.from_pydict(columns)


def collected(table: pa.Table) -> list[Any]:
    """Return the results that such rows hold, in the order of partitions."""
    found: dict[int, dict[int, bytes]] = defaultdict(dict)
    for partition, number, part in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
        found[partition][number] = part
    joined = [b"".join(parts[number] for number in sorted(parts)) for _, parts in sorted(found.items())]
    return [pickle.loads(result) for result in joined]  # noqa: S301  # written by this session's own tasks
