"""Saved stages without Spark: folders that appear whole or not at all, and a session for pyspark.ml's writers.

The layout is pyspark.ml's, so what was saved here is loaded with Spark, and the other way round.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs, parquet

from sparkopt.errors import DataError, ParameterError
from sparkopt.io.arrow import text_of
from sparkopt.io.filesystem import STORAGE_ERRORS, UNFINISHED, Location, resolve

__all__ = ["FileSession", "copy_folder", "fetched", "replacing", "written_whole"]

REPLACED = ".replaced"
"""Ends the name of a folder that is being replaced."""
METADATA = "metadata"


@contextmanager
def written_whole(uri: str, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder of this machine that becomes the one at a path or URI once the block is left.

    Where the block raises, nothing is written.

    Parameters
    ----------
    uri : str
        Where to write.
    overwrite : bool
        Whether to replace what is there.

    Raises
    ------
    ParameterError
        Where there is something already, or the file system cannot be used.
    """
    with replacing(uri, overwrite) as target:
        if target.is_local:
            yield Path(target.path)
            return
        with tempfile.TemporaryDirectory(prefix="sparkopt-") as folder:
            yield Path(folder)
            copy_folder(Location(fs.LocalFileSystem(), folder), target)


@contextmanager
def replacing(uri: str, overwrite: bool) -> Iterator[Location]:
    """Yield an empty folder on the file system of a path or URI, which becomes the one there once the block is left.

    It is renamed in the end. An object store has no folders to rename: there it is the folder itself, and files are
    deleted again where the block raises.

    Parameters
    ----------
    uri : str
        Where to write.
    overwrite : bool
        Whether to replace what is there.

    Raises
    ------
    ParameterError
        Where there is something already, or the file system cannot be used.
    """
    target = resolve(uri, "path")
    renames = target.renames
    try:
        if target.exists() and not overwrite:
            raise ParameterError(
                f"{target.shown} exists already. Save elsewhere, or use write().overwrite().save(path)."
            )
        beside = f"{target.path}.{uuid.uuid4().hex}{UNFINISHED}" if renames else target.path
        if not renames:
            target.delete()
        with _deleted_on_error(replace(target, path=beside)):
            replace(target, path=beside).make_folder()
            yield replace(target, path=beside)
            if renames:
                _put(target, beside)
    except STORAGE_ERRORS as error:
        raise target.unusable(error) from None


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Yield a folder of this machine with what was saved at a path or URI.

    Raises
    ------
    DataError
        Where there is nothing.
    ParameterError
        Where the file system cannot be used.
    """
    source = resolve(uri, "path")
    try:
        if not source.exists():
            raise DataError(f"{source.shown} does not exist: nothing was saved there.")
        if source.is_local:
            yield Path(source.path)
            return
        with tempfile.TemporaryDirectory(prefix="sparkopt-") as folder:
            fs.copy_files(source.path, folder, source.filesystem, fs.LocalFileSystem())
            yield Path(folder)
    except STORAGE_ERRORS as error:
        raise source.unusable(error) from None


def copy_folder(source: Location, target: Location) -> None:
    """Copy all files below a folder; metadata come last, so that what was cut short is not loaded."""
    files = [info.path for info in source.listed(recursive=True) if info.type == fs.FileType.File]
    for path in sorted(files, key=lambda path: (f"/{METADATA}/" in path, path)):
        copy = target.child(path.removeprefix(f"{source.path.rstrip('/')}/"))
        replace(copy, path=copy.path.rpartition("/")[0]).make_folder()
        copy.write(replace(source, path=path).read())


def _put(target: Location, path: str) -> None:
    """Rename a folder to the target; what was there is put back where that fails."""
    system = target.filesystem
    if not target.exists():
        system.move(path, target.path)
        return
    aside = f"{target.path}.{uuid.uuid4().hex}{REPLACED}"
    system.move(target.path, aside)
    try:
        system.move(path, target.path)
    except BaseException:
        system.move(aside, target.path)
        raise
    Location(system, aside).delete()


@contextmanager
def _deleted_on_error(location: Location) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(*STORAGE_ERRORS):  # a store that has failed may not delete either
            location.delete()
        raise


class FileSession:
    """What pyspark.ml's writers and readers use of a SparkSession, on folders of this machine.

    Examples
    --------
    >>> import tempfile
    >>> session, folder = FileSession(), tempfile.mkdtemp()
    >>> session.createDataFrame([("one line",)], schema=["value"]).coalesce(1).write.text(f"{folder}/notes")
    >>> session.read.text(f"{folder}/notes").first()[0]
    'one line'
    """

    @property
    def version(self) -> str:
        """Version of pyspark, which metadata holds."""
        import pyspark

        return str(pyspark.__version__)

    @property
    def read(self) -> Any:
        """Reads files."""
        return FileReader()

    def createDataFrame(self, data: Any, schema: Any = None) -> Any:
        """Return rows that can be written: an Arrow table, or tuples of text."""
        if not isinstance(data, pa.Table):
            data = pa.Table.from_arrays([text_of(values) for values in zip(*data, strict=True)], names=list(schema))
        return FileRows(data)


class FileRows:
    """Rows that can be written as one file."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def write(self) -> FileRows:
        """Its own writer."""
        return self

    def coalesce(self, partitions: int) -> FileRows:
        """Return the rows, which are one partition."""
        return self

    def text(self, path: str) -> None:
        """Write the first column, a line a row."""
        lines = "".join(f"{line}\n" for line in self._table.column(0).to_pylist())
        self._file(path, "part-00000.txt").write_text(lines, encoding="utf-8")

    def parquet(self, path: str) -> None:
        """Write all columns."""
        # numbers of a model hardly repeat: to look for those that do took most of the time
        parquet.write_table(self._table, self._file(path, "part-00000.parquet"), use_dictionary=False)

    def _file(self, path: str, name: str) -> Path:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


class FileReader:
    """Reads what Spark or `FileRows` wrote."""

    def text(self, path: str) -> FirstRow:
        """Return the lines of a folder's files."""
        for part in sorted(Path(path).glob("part-*")):
            text = part.read_text(encoding="utf-8").strip()
            if text:
                return FirstRow((text.partition("\n")[0],))
        raise DataError(f"{str(Path(path).parent)!r} holds no saved model.")

    def parquet(self, path: str) -> FirstRow:
        """Return the rows of a folder's files."""
        for part in sorted(Path(path).glob("[!_.]*.parquet")):
            with parquet.ParquetFile(part) as file:
                rows = file.read().to_pylist()
            if rows:
                return FirstRow(rows[0])
        return FirstRow(None)


class FirstRow:
    """The first of some rows."""

    def __init__(self, row: Any) -> None:
        self._row = row

    def first(self) -> Any:
        """Return it; None where there is none."""
        return self._row
