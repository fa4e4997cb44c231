"""Which files a path stands for: a file, a folder, a pattern or a list of them, as Spark lists them.

Names that begin with a dot or an underscore are left out, and so are empty files. A folder's folders count where they
are named ``column=value``: the column then has this value in each of their rows.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from sparkopt.errors import DataError, SchemaError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, resolve
from sparkopt.values import dataclass

__all__ = ["FORMATS", "DataFile", "files_of", "folder_columns"]

FORMATS: Mapping[str, str] = {
    ".parquet": "Parquet",
    ".parq": "Parquet",
    ".pq": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".csv.bz2": "CSV",
    ".csv.zst": "CSV",
    ".tsv": "CSV",
    ".tsv.gz": "CSV",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
}
"""Formats by the endings of files' names, in lower case."""

TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}
"""Folders of which not every file counts, by what they hold."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class DataFile:
    """A file of a table.

    Attributes
    ----------
    location : Location
        Where it is.
    name : str
        Its path below what was asked for, as errors show it.
    format : str
        One of the values of ``FORMATS``.
    size, modified : int
        Bytes, and the time of modification in milliseconds.
    constants : mapping of str to (str or None)
        Values of the columns that its folders stand for, as text.
    """

    location: Location
    name: str
    format: str
    size: int
    modified: int
    constants: Mapping[str, str | None] = field(default_factory=dict)


def files_of(paths: Sequence[str | os.PathLike[str]]) -> list[DataFile]:
    """Return the files that paths stand for, in the order of the paths, then of their names.

    Raises
    ------
    DataError
        Where there is no such file, or a folder has none.
    SchemaError
        Where a file's ending is unknown, or files are of several formats.
    """
    found = [file for path in paths for file in _under(os.fspath(path))]
    if not found:
        raise DataError("the list of paths is empty: name at least one file or folder.")
    other = next((file for file in found if file.format != found[0].format), None)
    if other is not None:
        raise SchemaError(
            f"{found[0].name} is {found[0].format} and {other.name} is {other.format}: a table has one format. Give "
            f"the paths of one of them."
        )
    return found


def _under(path: str) -> Iterator[DataFile]:
    location = resolve(path, "path")
    try:
        places = [location] if not MAGIC.search(location.path) or location.exists() else list(_matching(location))
        if not places:
            raise DataError(f"{path!r} matches no file or folder.")
        for place in places:
            (info,) = place.filesystem.get_file_info([place.path])
            if info.type == fs.FileType.NotFound:
                raise DataError(f"{path!r} does not exist.")
            yield from [_file(place, info, {})] if info.is_file else _in_folder(place)
    except STORAGE_ERRORS as error:
        raise location.unusable(error) from None


def _matching(location: Location) -> Iterator[Location]:
    """Yield what a pattern matches, name by name, sorted."""
    names = location.path.split("/")
    first = next(place for place, name in enumerate(names) if MAGIC.search(name))
    found = ["/".join(names[:first])]
    for name in names[first:]:
        found = [below for folder in found for below in _step(location, folder, name)]
    for path in found:
        yield Location(location.filesystem, path, location.shown)


def _step(location: Location, folder: str, name: str) -> Iterator[str]:
    if not MAGIC.search(name):
        path = f"{folder}/{name}"
        if location.filesystem.get_file_info(path).type != fs.FileType.NotFound:
            yield path
        return
    for info in _listed(location.filesystem, folder or "/"):
        if fnmatch.fnmatchcase(info.base_name, name) and not _is_hidden(info.base_name):
            yield f"{folder}/{info.base_name}"


def _listed(system: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    found = system.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(found, key=lambda info: str(info.base_name))


def _in_folder(folder: Location) -> Iterator[DataFile]:
    """Yield the files of a folder."""
    found = list(_walk(folder, folder.path, {}))
    if not found:
        inside = [info.base_name for info in _listed(folder.filesystem, folder.path) if not info.is_file]
        hint = f" It has the folders {', '.join(inside[:5])}: name one of them." if inside else ""
        raise DataError(f"{folder.path!r} has no files of rows.{hint}")
    columns = {tuple(file.constants) for file in found}
    if len(columns) > 1:
        one, two = sorted(columns)[:2]
        raise SchemaError(
            f"{folder.path!r} has files in folders of {', '.join(one) or 'no columns'} and of {', '.join(two)}: all "
            f"need the same."
        )
    yield from found


def _walk(folder: Location, root: str, constants: Mapping[str, str | None]) -> Iterator[DataFile]:
    infos = _listed(folder.filesystem, folder.path)
    for info in infos:
        kind = TABLES.get(info.base_name)
        if info.base_name == "metadata" and _is_iceberg(folder.child("metadata")):
            kind = "Iceberg"
        if kind is not None:
            raise DataError(
                f"{folder.path!r} is a table of {kind}, whose log says which files count. Read it with Spark, or "
                f"with a package for {kind} that returns Arrow."
            )
    for info in infos:
        name = str(info.base_name)
        if _is_hidden(name):
            continue
        place = folder.child(name)
        if info.is_file:
            if info.size:
                yield _file(place, info, constants, root)
        elif "=" in name:
            column, _, value = name.partition("=")
            value = unquote(value)
            own = {unquote(column): None if value == NO_VALUE else value}
            yield from _walk(place, root, {**constants, **own})


def _is_iceberg(folder: Location) -> bool:
    """Whether a folder has the versions of an Iceberg table."""
    return any(info.base_name.endswith(".metadata.json") for info in _listed(folder.filesystem, folder.path))


def _is_hidden(name: str) -> bool:
    """Whether Spark leaves out files and folders of this name."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def _file(
    place: Location, info: fs.FileInfo, constants: Mapping[str, str | None], root: str | None = None
) -> DataFile:
    name = place.path.rsplit("/", 1)[-1] if root is None else place.path[len(root) :].lstrip("/")
    lower = name.lower()
    known = next((FORMATS[ending] for ending in FORMATS if lower.endswith(ending)), None)
    if known is None:
        raise SchemaError(
            f"{place.path!r} has an ending that is not known. Known are {', '.join(FORMATS)}; a file of another "
            f"format can be read with another package that returns Arrow, pandas or NumPy."
        )
    return DataFile(place, name, known, info.size, info.mtime_ns // 1_000_000, dict(constants))


def folder_columns(files: Sequence[DataFile]) -> tuple[list[pa.Field], list[dict[str, Any]]]:
    """Return the columns that folders stand for, and each file's values, of the types that Spark would take.

    Whole numbers, numbers, dates, or text where one of the values is neither.
    """
    values = {name: [file.constants[name] for file in files] for name in files[0].constants}
    for file in files:
        if list(file.constants) != list(values):
            raise SchemaError(
                f"{file.name} is in folders of {', '.join(file.constants) or 'no columns'}, {files[0].name} of "
                f"{', '.join(values) or 'no columns'}: all need the same."
            )
    typed = {name: _typed(found) for name, found in values.items()}
    fields = [pa.field(name, kind) for name, (kind, _) in typed.items()]
    return fields, [{name: found[i] for name, (_, found) in typed.items()} for i in range(len(files))]


def _typed(values: Sequence[str | None]) -> tuple[pa.DataType, list[Any]]:
    for convert, kind in ((_whole, pa.int32()), (_whole, pa.int64()), (_number, pa.float64()), (_date, pa.date32())):
        try:
            found = [None if value is None else convert(value) for value in values]
            pa.array(found, kind)
        except (ValueError, pa.ArrowException, OverflowError):
            continue
        return kind, found
    return pa.string(), list(values)


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        raise ValueError(text)
    return float(text)


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
