"""Dask's DataFrames that are Parquet files as they are: the same partitions, read by Arrow where a task runs.

Dask reads a partition whole, as pandas. Where its expression only chooses or renames columns of files, tasks read the
same row groups in batches instead, as those of tables of files do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sparkopt.errors import ParameterError, SparkoptError
from sparkopt.io.filesystem import Location
from sparkopt.machine.parquet import ParquetPart, RowGroups
from sparkopt.machine.part import OfPart, TablePart
from sparkopt.values import dataclass

__all__ = ["SETTING", "DaskScan", "NoScan", "dask_scan"]

SETTING = "sparkopt.reader"
"""Dask's setting that chooses: "auto", or "dask" for Dask's own reader alone."""

CHOOSING = ("Projection", "RenameFrame", "ColumnsSetter")
"""Expressions that only choose or rename columns."""


class NoScan(SparkoptError):
    """A DataFrame is more than columns of Parquet files; the message says what it is."""


@dataclass(frozen=True)
class DaskScan:
    """Columns of Parquet files, in the partitions that Dask reads.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns, in the types of the files.
    parts : list of TablePart
        The partitions.
    """

    schema: pa.Schema
    parts: list[TablePart] = field(repr=False)


@dataclass(frozen=True)
class RenamedPart(OfPart):
    """Columns of another part under other names.

    Parameters
    ----------
    part : TablePart
        The rows.
    names : mapping of str to str
        From each name to the part's own.
    """

    names: Mapping[str, str]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        wanted = list(self.names if columns is None else columns)
        for batch in self.part.batches([self.names[name] for name in wanted]):
            yield pa.RecordBatch.from_arrays(batch.columns, names=wanted)


def dask_scan(frame: Any) -> DaskScan:
    """Return the row groups that a Dask DataFrame's partitions are.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Its files are listed, and no rows are read.

    Raises
    ------
    NoScan
        Where it is anything else than columns of files.
    ParameterError
        Where the setting is neither "auto" nor "dask".
    """
    _refuse_setting()
    try:
        names, buckets, node = _of_expression(frame.expr.optimize(fuse=False))
        read = READERS.get(type(node).__name__)
        if read is None:
            raise NoScan(f"the DataFrame is made by {type(node).__name__}")
        _refuse_options(node)
        schema, files = read(node)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # another version of Dask
        raise NoScan(f"Dask's expression is not understood: {error}") from error
    missing = [name for name in names.values() if name not in schema.names]
    if missing:
        raise NoScan(f"{missing[0]!r} is no column of the files")
    if buckets is None:
        buckets = [[index] for index in node._partitions]
    own = pa.schema([schema.field(name) for name in dict.fromkeys(names.values())])
    pieces = _pieces([files[index] for bucket in buckets for index in bucket])
    parts = list[TablePart]()
    for bucket in buckets:
        part = ParquetPart(tuple(piece for _ in bucket for piece in next(pieces)), own, None, None)
        same = all(name == there for name, there in names.items())
        parts.append(part if same else RenamedPart(part, names))
    return DaskScan(pa.schema([own.field(there).with_name(name) for name, there in names.items()]), parts)


def _refuse_setting() -> None:
    from dask import config

    chosen = config.get(SETTING, "auto")
    if chosen not in ("auto", "dask"):
        raise ParameterError(f"{SETTING} must be one of 'auto', 'dask'. Got {chosen!r} instead.")
    if chosen == "dask":
        raise NoScan(f"{SETTING} is 'dask'")


def _of_expression(node: Any) -> tuple[dict[str, str], list[list[int]] | None, Any]:
    """Return the name that each column has in the files, which of their partitions are one, and what reads them."""
    names = {name: name for name in node.columns}
    buckets = None
    while type(node).__name__ in CHOOSING:
        below = node.frame
        if type(node).__name__ != "Projection":
            names = {
                name: dict(zip(node.columns, below.columns, strict=True))[there] for name, there in names.items()
            }
        node = below
    if type(node).__name__ in ("FusedIO", "FusedParquetIO"):  # small partitions that Dask reads together
        buckets = [list(bucket) for bucket in node._fusion_buckets]
        node = node.operand("_expr")
    return names, buckets, node


def _refuse_options(node: Any) -> None:
    """Refuse what changes rows or their types."""
    for option in ("filters", "categories", "arrow_to_pandas"):
        if option in node._parameters and node.operand(option) is not None:
            raise NoScan(f"read_parquet was given {option}")
    given = {name for name, value in (node.operand("kwargs") or {}).items() if value}
    if given - {"dtype_backend"}:
        raise NoScan(f"read_parquet was given {min(given)}")


Files = list[list[tuple[fs.FileSystem, str, "tuple[int, ...] | None"]]]
"""Of each partition: file system, path and row groups of its files; None is all of them."""


def _of_fsspec(node: Any) -> tuple[pa.Schema, Files]:
    """Return schema and files of what reads by fsspec, as it does where nothing else was asked for."""
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

    found = node._dataset_info
    if not isinstance(found["fs"], LocalFileSystem):
        raise NoScan(f"files of fsspec's {type(found['fs']).__name__}: read_parquet(filesystem='arrow') shows more")
    if node._plan["empty"]:
        raise NoScan("there are no files")
    here, files = fs.LocalFileSystem(), Files()
    for part in node._plan["parts"]:
        pieces = [each["piece"] for each in (part if isinstance(part, list) else [part])]
        files.append([(here, path, _numbers(groups)) for path, groups, _ in pieces])
    folders = {partition.name for partition in found["partitions"]}
    return pa.schema([field for field in found["schema"] if field.name not in folders]), files


def _numbers(groups: Any) -> tuple[int, ...] | None:
    found = groups if isinstance(groups, list) else [groups]
    return None if found == [None] else tuple(int(group) for group in found)


def _of_arrow(node: Any) -> tuple[pa.Schema, Files]:
    """Return schema and files of what reads by pyarrow's file systems."""
    return node._dataset_info["schema"], [[(node.fs, fragment.path, None)] for fragment in node.fragments]


READERS = {"ReadParquetFSSpec": _of_fsspec, "ReadParquetPyarrowFS": _of_arrow}
"""Dask's expressions that read Parquet files."""


def _pieces(files: Files) -> Iterator[list[RowGroups]]:
    """Yield the row groups of each partition; file systems are asked once for the state of all files."""
    paths = {path: system for part in files for system, path, _ in part}
    known = dict[str, fs.FileInfo]()
    for system in {id(system): system for system in paths.values()}.values():
        own = [path for path, its in paths.items() if its is system]
        known |= {info.path: info for info in system.get_file_info(own)}
    for part in files:
        pieces = []
        for system, path, groups in part:
            info = known[path]
            if not info.is_file:
                raise NoScan(f"{path} is no file")
            name = path.rpartition("/")[2]
            modified = info.mtime_ns // 1_000_000
            pieces.append(RowGroups(Location(system, path), name, groups, info.size, modified))
        yield pieces
