"""Handles: where each partition's blocks are, and what the driver knows of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import pyarrow as pa

from sparkopt.blocks.block import InMemoryBlocks
from sparkopt.blocks.moments import Moments
from sparkopt.errors import DataError
from sparkopt.values import dataclass

__all__ = ["HANDLE_SCHEMA", "Handle", "KnownRows", "MemoryHandle"]

HANDLE_SCHEMA = (
    "partition int, path string, starts array<bigint>, validation array<int>, folds array<int>, bytes bigint, "
    "error string, unread string, skipped bigint, digest bigint, source string"
)


@dataclass(frozen=True)
class Handle:
    """Where one partition's blocks are, or why there are none.

    ``error`` is a value that cannot be trained on; ``unread`` is why the task left its files to Spark's reader;
    ``skipped`` is the number of invalid rows that were left out. ``digest`` is that of its rows, and ``source`` what
    errors call what they were read from, where the task knows it.
    """

    partition: int
    path: str
    starts: tuple[int, ...]
    validation: tuple[int, ...]
    folds: tuple[int, ...]
    bytes: int
    error: str | None
    unread: str | None = None
    skipped: int = 0
    digest: int = 0
    source: str = ""

    @classmethod
    def empty(cls, partition: int, error: str | None = None, unread: str | None = None) -> Handle:
        """Return the handle of a partition without blocks."""
        return cls(partition, "", (0,), (), (), 0, error, unread)

    def to_batch(self) -> pa.RecordBatch:
        """Return one row of ``HANDLE_SCHEMA``."""
        columns = {
            "partition": pa.array([self.partition], pa.int32()),
            "path": [self.path],
            "starts": pa.array([list(self.starts)], pa.list_(pa.int64())),
            "validation": pa.array([list(self.validation)], pa.list_(pa.int32())),
            "folds": pa.array([list(self.folds)], pa.list_(pa.int32())),
            "bytes": pa.array([self.bytes], pa.int64()),
            "error": pa.array([self.error], pa.string()),
            "unread": pa.array([self.unread], pa.string()),
            "skipped": pa.array([self.skipped], pa.int64()),
            "digest": pa.array([self.digest], pa.int64()),
            "source": [self.source],
        }
        return pa.RecordBatch.from_pydict(columns)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Handle:
        """Return the handle that such a row holds."""
        return cls(**{**row, **{name: tuple(row[name]) for name in ("starts", "validation", "folds")}})


@dataclass(frozen=True)
class MemoryHandle(Handle):
    """One partition's blocks themselves, in this process."""

    blocks: InMemoryBlocks = InMemoryBlocks(())
    moments: Mapping[bool, Mapping[int, Moments]] = field(default_factory=dict)
    """Of training rows (False) and of validation rows (True), by fold."""


@dataclass(frozen=True)
class KnownRows:
    """What the driver knows of a store's partitions, for the tasks that open them.

    Attributes
    ----------
    first_rows : sequence of int
        The number of the first row of each partition, and last the number of rows.
    digests : sequence of int
        That of each partition's rows when the store was written.
    copies : mapping of int to sequence of Handle
        Files of partitions that were written again, since a task did not find the first.
    """

    first_rows: Sequence[int]
    digests: Sequence[int]
    copies: Mapping[int, Sequence[Handle]] = field(default_factory=dict)

    def check(self, handle: Handle) -> None:
        """Refuse a partition that has other rows than when the store was written.

        Raises
        ------
        DataError
            Naming the partition and, where the task knows it, the source.
        """
        index = handle.partition
        changed = handle.error or handle.unread  # it was written before without one
        if changed is None and handle.digest != self.digests[index]:
            before, now = self.first_rows[index + 1] - self.first_rows[index], handle.starts[-1]
            changed = f"{before:,} rows became {now:,}" if before != now else f"values in its {now:,} rows changed"
        if changed is not None:
            where = f", {handle.source}," if handle.source else ""
            raise DataError(
                f"the rows of partition {index}{where} are not what they were when the fit began: {changed}"
            )
