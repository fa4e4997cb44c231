"""Results of images as Parquet files, which appear once they are whole."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from sparkopt.errors import ParameterError
from sparkopt.images.arrow import ImageKernel
from sparkopt.images.batches import BatchFunction
from sparkopt.io.filesystem import UNFINISHED, Location
from sparkopt.machine import TablePart
from sparkopt.values import dataclass

__all__ = ["CONTENT", "MADE_BY", "PATH", "WriteCounts", "WriteImages", "made_by"]

PATH, CONTENT, ERROR = "path", "content", "error"
COMPRESSION = "zstd"
"""As Spark's profiles have it."""
MADE_BY = b"sparkopt.made_by"
"""Metadata of a file of results: what made them."""


def made_by(kernel: ImageKernel) -> dict[bytes, bytes]:
    """Return metadata of what results depend on, next to the images; none where JSON does not hold a user's step."""
    drawn = {"seed": kernel.seed, "epoch": kernel.epoch} if kernel.pipeline.random else {}
    try:
        steps = kernel.pipeline.to_json()
    except (TypeError, ValueError, ParameterError):
        return {}
    return {MADE_BY: json.dumps({"pipeline": steps, "output": kernel.output, **drawn}).encode()}


@dataclass(frozen=True)
class WriteCounts:
    """What a task did.

    Attributes
    ----------
    images, skipped : int
        Images that it processed, and those that are in the output already.
    failures : mapping of str to (int, str)
        How many have no result, and the first path, by reason.
    """

    images: int
    skipped: int
    failures: Mapping[str, tuple[int, str]]


def _together(rows: pa.RecordBatch) -> Iterable[tuple[str, pa.RecordBatch]]:
    return [("", rows)]


@dataclass(frozen=True)
class WriteImages:
    """The task: the results of a partition's images, as a file of their own in each folder.

    Parameters
    ----------
    kernel : ImageKernel
        What is done with an image.
    output : Location
        The folder; it exists, where there are folders.
    column : str
        The column of the results.
    done : frozenset of str, default ()
        Paths of images that are left out.
    placed : callable, optional
        Splits rows by the folder below ``output`` that they are written to, and may add columns. It can be pickled.
    """

    kernel: ImageKernel
    output: Location
    column: str
    done: frozenset[str] = frozenset()
    placed: Callable[[pa.RecordBatch], Iterable[tuple[str, pa.RecordBatch]]] = _together

    def __call__(self, part: TablePart) -> WriteCounts:
        """Write a partition."""
        drops = self.kernel.mode == "DROPMALFORMED"  # here, once their paths and reasons are counted
        kernel = replace(self.kernel, mode="PERMISSIVE") if drops else self.kernel
        function = BatchFunction(kernel, CONTENT, self.column, ERROR, PATH)
        counts = _Counting(self.done)
        with _WholeFiles(self.output, made_by(self.kernel)) as files:
            for rows in function(counts.pending(part)):
                counts.add(rows)
                kept = rows.filter(rows.column(ERROR).is_null()) if drops else rows
                for folder, some in self.placed(kept):
                    if some.num_rows:
                        files.write(folder, some)
        return WriteCounts(counts.images, counts.skipped, counts.failures)


@dataclass
class _Counting:
    """The counts of a partition while it is processed."""

    done: frozenset[str]
    images: int = 0
    skipped: int = 0
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)

    def pending(self, part: TablePart) -> Iterator[pa.RecordBatch]:
        """Yield path and content of the images that are not done."""
        done = pa.array(list(self.done), pa.string())
        for batch in part.batches([PATH, CONTENT]):
            rows = batch.filter(pc.invert(pc.is_in(batch.column(PATH), done)))
            self.images, self.skipped = self.images + rows.num_rows, self.skipped + batch.num_rows - rows.num_rows
            yield rows

    def add(self, rows: pa.RecordBatch) -> None:
        """Count reasons."""
        for path, error in zip(rows.column(PATH).to_pylist(), rows.column(ERROR).to_pylist(), strict=True):
            if error is not None:
                reason = error.partition(":")[0]
                count, first = self.failures.get(reason, (0, path or ""))
                self.failures[reason] = (count + 1, min(first, path or ""))


class _WholeFiles:
    """Parquet files, one in each folder, that appear when the block ends well, and not at all otherwise."""

    def __init__(self, root: Location, metadata: Mapping[bytes, bytes]) -> None:
        self._root, self._metadata = root, metadata
        self._name = f"part-{uuid.uuid4().hex}.{COMPRESSION}.parquet"
        self._renames = root.renames  # another store shows a file when it is closed
        self._open: dict[str, tuple[Location, Location, Any]] = {}

    def write(self, folder: str, rows: pa.RecordBatch) -> None:
        """Append rows to the file of a folder."""
        if folder not in self._open:
            target = self._root.child(folder) if folder else self._root
            target.make_folder()
            whole = target.child(self._name)
            written = target.child(f".{self._name}{UNFINISHED}") if self._renames else whole
            schema = rows.schema.with_metadata({**(rows.schema.metadata or {}), **self._metadata})
            writer = parquet.ParquetWriter(
                written.path, schema, filesystem=written.filesystem, compression=COMPRESSION
            )
            self._open[folder] = (whole, written, writer)
        self._open[folder][2].write_batch(rows)

    def __enter__(self) -> _WholeFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with contextlib.ExitStack() as rest:  # one that cannot be closed or moved keeps no other from its end
            for whole, written, writer in self._open.values():
                rest.callback(self._end, whole, written, writer, kind is None)

    def _end(self, whole: Location, written: Location, writer: Any, is_good: bool) -> None:
        writer.close()
        if not is_good:
            written.delete()
        elif self._renames:
            whole.filesystem.move(written.path, whole.path)
