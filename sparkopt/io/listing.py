"""Files below a path, as Spark lists them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pyarrow import fs

from sparkopt.errors import DataError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, local_path, resolve
from sparkopt.io.secrets import mask

__all__ = ["FileBelow", "files_below"]

MAGIC = re.compile(r"[*?\[{]")


@dataclass(frozen=True)
class FileBelow:
    """A file.

    Attributes
    ----------
    location : Location
        Where it is.
    uri : str
        Its path as Spark shows it, such as ``file:/data/rows/part-0.parquet``.
    size, modified : int
        Bytes, and the time of the last change in milliseconds.
    """

    location: Location
    uri: str
    size: int
    modified: int


def files_below(path: str) -> list[FileBelow]:
    """Return the files at a path, a folder or a pattern, in all folders below it, in the order of their names.

    Names that begin with a dot or an underscore are left out.

    Raises
    ------
    DataError
        Where there is nothing.
    """
    root = resolve(path, "path")
    pattern = root.path.split("/") if MAGIC.search(path) and not root.exists() else None
    base = root
    if pattern is not None:
        first = next(place for place, name in enumerate(pattern) if MAGIC.search(name))
        base = Location(root.filesystem, "/".join(pattern[:first]) or "/", root.shown)
    prefix = "file:" if local_path(path) is not None else path.partition("://")[0] + "://"
    try:
        found = [
            FileBelow(Location(root.filesystem, info.path), prefix + info.path, info.size, info.mtime_ns // 1_000_000)
            for info in _walk(base)
            if pattern is None or _matches(info.path.split("/"), pattern)
        ]
    except STORAGE_ERRORS as error:
        raise root.unusable(error) from None
    if not found and (pattern is not None or not root.exists()):
        raise DataError(f"cannot read {mask(path)!r}: it does not exist.")
    return sorted(found, key=lambda file: file.uri)


def _walk(root: Location) -> Iterator[fs.FileInfo]:
    """Yield the files below a folder, or the file itself."""
    (own,) = root.filesystem.get_file_info([root.path])
    if own.type == fs.FileType.File:
        yield own
    if own.type != fs.FileType.Directory:
        return
    begin = len(root.path.rstrip("/").split("/"))
    for info in root.filesystem.get_file_info(fs.FileSelector(root.path, recursive=True)):
        if info.type == fs.FileType.File and not any(map(_is_hidden, info.path.split("/")[begin:])):
            yield info


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a file, or a folder that it is in, matches a pattern."""
    return len(names) >= len(pattern) and all(
        fnmatch.fnmatchcase(name, part) for name, part in zip(names, pattern, strict=False)
    )
