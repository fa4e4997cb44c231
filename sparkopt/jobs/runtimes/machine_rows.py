"""Tables of a job's inputs that need more than ``Table.of``: folders of images, and held-out rows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.io.filesystem import Location
from sparkopt.io.hashing import xxhash64
from sparkopt.io.image_header import is_image_name
from sparkopt.jobs.runtimes.files import FileBelow, files_below
from sparkopt.jobs.sources import FEATURES, LABEL, image_names, image_pipeline
from sparkopt.machine import Table, TablePart
from sparkopt.machine.part import OfPart
from sparkopt.values import dataclass

__all__ = ["SHARES", "image_table", "split_table"]

SHARES = 1_000_000
"""Rows are held out by their hash modulo this number."""


def split_table(rows: Table, fraction: float, seed: int) -> tuple[Table, Table]:
    """Return training and held-out rows: to the row those that Spark's runtime takes."""
    key = ("path",) if "path" in rows.names else tuple(rows.names)
    below = int(fraction * SHARES)
    training, held_out = (
        rows.with_parts(SplitPart(part, key, seed, below, held) for part in rows.partitions) for held in (False, True)
    )
    return training, held_out


@dataclass(frozen=True)
class SplitPart(OfPart):
    """The rows of a part whose hash is below a bound, or the others.

    Parameters
    ----------
    part : TablePart
        The rows.
    key : tuple of str
        Columns of which the hash is taken; "path" alone counts with the names of file and folder only.
    seed, below : int
        Seed of the hash, and the bound.
    held : bool
        Whether rows below the bound are kept, or the others.
    """

    key: tuple[str, ...]
    seed: int
    below: int
    held: bool
    rows = None

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield these rows."""
        read = None if columns is None else list(dict.fromkeys([*columns, *self.key]))
        for batch in self.part.batches(read):
            kept = batch.filter(pa.array((self._shares(batch) < self.below) == self.held))
            if kept.num_rows:
                yield kept if columns is None else kept.select(list(columns))

    def _shares(self, batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
        """Return each row's hash modulo ``SHARES``."""
        columns = [_keyed(name, batch.column(name), alone=self.key == ("path",)) for name in self.key]
        narrow = -(2**31) <= self.seed < 2**31
        start = xxhash64([pa.array([self.seed], pa.int32() if narrow else pa.int64())])[0]
        found: np.ndarray[Any, Any] = np.mod(xxhash64(columns, int(start)), SHARES)
        return found


def _keyed(name: str, column: pa.Array, *, alone: bool) -> pa.Array:
    if alone:
        return pa.array(["/".join(path.split("/")[-2:]) for path in column.to_pylist()], pa.string())
    return column.cast(pa.int64()) if pa.types.is_integer(column.type) else column


def image_table(
    args: argparse.Namespace, labels: Sequence[str], *, encoded: bool, invalid: str = "skip"
) -> tuple[Table, list[str]]:
    """Return image files as rows of features (or content), label and path, and the labels' names in order.

    Raises
    ------
    DataError
        Where there are no images, or a folder is not in ``labels``, where these are given.
    """
    from sparkopt.images.folder import file_groups

    folder = args.source.location
    files = [file for file in files_below(folder) if is_image_name(file.uri)]
    names = image_names(folder, sorted({_folder(file.uri) for file in files}), labels)
    pipeline = None if encoded else image_pipeline(args)
    column = pa.field("content", pa.binary()) if encoded else pa.field(FEATURES, pa.list_(pa.float32()))
    width = 0 if encoded else args.image_size**2 * (3 if args.color == "rgb" else 1)
    schema = pa.schema([column, pa.field(LABEL, pa.int32()), pa.field("path", pa.string())])
    mode = "FAILFAST" if invalid == "error" else "PERMISSIVE"
    parts = tuple(ImagePart(group, tuple(names), pipeline, schema, width, mode) for group in file_groups(files))
    return Table(schema, parts), names


def _folder(uri: str) -> str:
    """Return the name of a file's folder."""
    return uri.split("/")[-2]


@dataclass(frozen=True)
class ImagePart(TablePart):
    """Image files, decoded where they are read.

    Parameters
    ----------
    files : tuple of FileBelow
        The files.
    names : tuple of str
        Folders in the order of the labels.
    pipeline : Compose or None
        What makes features of a file; None leaves it encoded.
    schema : pyarrow.Schema
        The columns.
    width : int
        Number of features; 0 of files that are left encoded.
    mode : {"PERMISSIVE", "FAILFAST"}
        Whether a file that cannot be decoded has no features, or is an error.
    """

    files: tuple[FileBelow, ...]
    names: tuple[str, ...]
    pipeline: Any
    schema: pa.Schema
    width: int
    mode: str = "PERMISSIVE"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The first file, and how many more."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].location.path}{more}"

    @property
    def rows(self) -> int:  # type: ignore[override]
        """Number of files."""
        return len(self.files)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Bytes of the files, or of the features."""
        if self.pipeline is None:
            return sum(file.size for file in self.files)
        return 4 * self.width * len(self.files)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows; files are opened where content or features are asked for."""
        wanted = self.schema.names if columns is None else list(columns)
        paths = pa.array([file.uri for file in self.files], pa.string())
        found = {
            LABEL: pa.array([self.names.index(_folder(file.uri)) for file in self.files], pa.int32()),
            "path": paths,
        }
        first = self.schema.names[0]
        if first in wanted:
            content = pa.array([_content(file.location) for file in self.files], pa.binary())
            found[first] = content if self.pipeline is None else self._features(content, paths)
        yield pa.RecordBatch.from_arrays(
            [found[name] for name in wanted], schema=pa.schema([self.schema.field(name) for name in wanted])
        )

    def _features(self, content: pa.Array, paths: pa.Array) -> pa.Array:
        from sparkopt.images import ImageKernel
        from sparkopt.images.opencv import use_cores

        use_cores(1)
        kernel = ImageKernel(self.pipeline, "array", self.mode)
        pieces = [values for values, _ in kernel(content, paths)]
        return pa.concat_arrays(pieces).cast(pa.list_(pa.float32()))


def _content(location: Location) -> bytes:
    return location.read()
