"""Image files as rows: of a DataFrame, or of a table without Spark. Files are opened where their content is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sparkopt.errors import DataError, ParameterError
from sparkopt.images.files import chosen_endings, listed_images
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief
from sparkopt.io.image_header import ENDINGS
from sparkopt.io.listing import FileBelow
from sparkopt.io.secrets import mask_uri
from sparkopt.machine import Table, TablePart
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["SCHEMA", "ImageFolderPart", "file_groups", "read", "table_of_files"]

FILES, BYTES = 128, 16 << 20
"""Most files of a partition, and about most bytes: many small partitions keep all processes busy until the end."""
BATCH_BYTES = 4 << 20
"""About most bytes of a batch."""
SCHEMA = pa.schema(
    {"path": pa.string(), "length": pa.int64(), "label": pa.string(), "content": pa.binary()},
)


@overload
def read(source: SparkSession, path: str | os.PathLike[str], *, endings: Sequence[str] = ...) -> DataFrame: ...
@overload
def read(source: str | os.PathLike[str], *, endings: Sequence[str] = ..., progress: bool = ...) -> Table: ...


def read(
    source: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    endings: Sequence[str] = ENDINGS,
    progress: bool = True,
) -> Any:
    """Read image files, empty ones too: as a DataFrame of Spark, or without Spark as a table.

    Without Spark, folders are listed one after the other, in the order of their names, and about a hundred bytes a
    file are kept, so that there may be millions.

    Parameters
    ----------
    source : SparkSession, or str or path
        The session, where Spark reads; or without Spark the path itself.
    path : str or path
        A directory, read with all its subdirectories, or a glob; what is a directory is not read as a glob.
    endings : sequence of str, optional
        Endings of the names of images, in any case; by default those of the formats that may be decoded. ("*",) takes
        every file. Files of other endings are left out, and so are files and folders below the path, or below the
        folder that a glob begins with, whose names begin with a dot or an underscore, and names that are not UTF-8:
        :func:`survey` counts them, and without Spark a line of the log does.
    progress : bool, default True
        Without Spark: whether to show how many files there are, if listing takes more than two seconds.

    Returns
    -------
    DataFrame or Table
        With the columns path (string), length (bytes, long), label (string; the name of the file's folder, as in
        ``photos/cat/1.jpg``) and content (binary). Files are opened only where content is used; in Spark, a filter on
        length excludes files before that.

    Raises
    ------
    DataError
        Without Spark: where there is nothing.
    ParameterError
        Where ``endings`` is no list, or is empty.

    Examples
    --------
    >>> from sparkopt import images
    >>> sorted(row.label for row in images.read(spark, "photos").select("label").distinct().collect())
    ['cat', 'dog']
    >>> images.read("photos").names
    ['path', 'length', 'label', 'content']
    """
    if path is None:
        if not isinstance(source, str | os.PathLike):
            raise ParameterError(f"give a path, or a SparkSession and a path. Got a {type(source).__name__} instead.")
        return table_of_files(listed_images(os.fspath(source), endings, progress=progress))
    from sparkopt.images.spark import read_on_spark

    return read_on_spark(source, os.fspath(path), chosen_endings(endings))


def table_of_files(files: Iterable[FileBelow]) -> Table:
    """Return image files as a table."""
    return Table(SCHEMA, tuple(map(ImageFolderPart.of, file_groups(files))))


def file_groups(files: Iterable[FileBelow]) -> Iterator[tuple[FileBelow, ...]]:
    """Yield files in groups for the partitions of a table; one group without files, where there are none."""
    group, held, is_any = list[FileBelow](), 0, False
    for file in files:
        is_any = True
        if group and (len(group) == FILES or held + file.size > BYTES):
            yield tuple(group)
            group, held = [], 0
        group.append(file)
        held += file.size
    if group or not is_any:
        yield tuple(group)


@dataclass(frozen=True, eq=False)
class ImageFolderPart(TablePart):
    """Some image files.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
        Where they are.
    prefix : str
        What precedes their paths in the column path.
    paths, sizes : pyarrow.Array of string and int64
        Paths and bytes: an object a file would need several times the memory.
    """

    filesystem: fs.FileSystem
    prefix: str
    paths: pa.Array
    sizes: pa.Array

    @classmethod
    def of(cls, files: Sequence[FileBelow]) -> ImageFolderPart:
        """Return a partition of these files, which are on one file system."""
        filesystem = files[0].location.filesystem if files else fs.LocalFileSystem()
        prefix = files[0].uri.removesuffix(files[0].location.path) if files else ""
        paths = pa.array([file.location.path for file in files], pa.string())
        return cls(filesystem, prefix, paths, pa.array([file.size for file in files], pa.int64()))

    @property
    def files(self) -> Iterator[FileBelow]:
        """The files."""
        for path, size in zip(self.paths.to_pylist(), self.sizes.to_pylist(), strict=True):
            yield FileBelow(Location(self.filesystem, path), self.prefix + path, size, 0)

    @property
    def name(self) -> str:  # type: ignore[override]  # known, not set
        """The first file, and how many more."""
        if not self.rows:
            return "no files"
        return f"{self.prefix}{self.paths[0].as_py()}" + (f" and {self.rows - 1} more" if self.rows > 1 else "")

    @property
    def rows(self) -> int:  # type: ignore[override]
        """Number of files."""
        return len(self.paths)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Bytes of the files."""
        return int(pc.sum(self.sizes).as_py() or 0)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows; files are opened where content is asked for."""
        wanted = SCHEMA.names if columns is None else list(columns)
        schema = pa.schema([SCHEMA.field(name) for name in wanted])
        waiting, held = list[FileBelow](), 0
        for file in self.files:
            if waiting and "content" in wanted and held + file.size > BATCH_BYTES:
                yield self._batch(waiting, schema)
                waiting, held = [], 0
            waiting.append(file)
            held += file.size
        if waiting:
            yield self._batch(waiting, schema)

    @staticmethod
    def _batch(files: Sequence[FileBelow], schema: pa.Schema) -> pa.RecordBatch:
        columns = [pa.array([_VALUES[field.name](file) for file in files], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _content(file: FileBelow) -> bytes:
    """Return a file's content; ``open`` takes a third of the time of Arrow's file system."""
    try:
        if not file.location.is_local:
            return file.location.read()
        with open(file.location.path, "rb") as stream:
            return stream.read()
    except STORAGE_ERRORS as error:
        raise DataError(f"the image {mask_uri(file.uri)!r} cannot be read: {brief(error)}") from None


_VALUES: Mapping[str, Callable[[FileBelow], Any]] = {
    "path": lambda file: file.uri,
    "length": lambda file: file.size,
    "label": lambda file: file.uri.split("/")[-2],
    "content": _content,
}
