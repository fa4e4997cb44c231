"""Files below a path, as Spark lists them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyarrow import fs

from sparkopt.errors import DataError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, local_path, resolve
from sparkopt.io.secrets import mask

__all__ = ["FileBelow", "files_below", "walk_below"]

MAGIC = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
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
    return list(walk_below(path))


def walk_below(path: str, hidden: Callable[[str], None] | None = None) -> Iterator[FileBelow]:
    """Yield the files that ``files_below`` returns, in their order; on a disk, a folder is listed when it is reached.

    Parameters
    ----------
    path : str
        A folder, a file or a pattern.
    hidden : callable, optional
        Called with the path of each file that is left out since it, or a folder on its path, begins with a dot or an
        underscore.

    Raises
    ------
    DataError
        Where there is nothing.
    """
    root = resolve(path, "path")
    patterns = [one.split("/") for one in _alternatives(root.path)] if _is_pattern(root) else None
    base = root
    if patterns is not None:
        whole = root.path.split("/")
        first = next(place for place, name in enumerate(whole) if MAGIC.search(name))
        base = Location(root.filesystem, "/".join(whole[:first]) or "/", root.shown)
    prefix = "file:" if local_path(path) is not None else path.partition("://")[0] + "://"
    is_any = False
    try:
        for info in _walk(base, hidden):
            if patterns is None or any(_matches(info.path.split("/"), pattern) for pattern in patterns):
                is_any = True
                location = Location(root.filesystem, info.path)
                yield FileBelow(location, prefix + info.path, info.size, info.mtime_ns // 1_000_000)
    except STORAGE_ERRORS as error:
        raise root.unusable(error) from None
    if not is_any and (patterns is not None or not root.exists()):
        raise DataError(f"cannot read {mask(path)!r}: it does not exist.")


def _walk(root: Location, hidden: Callable[[str], None] | None = None) -> Iterator[fs.FileInfo]:
    """Yield the files below a folder in the order of their paths, or the file itself."""
    (own,) = root.filesystem.get_file_info([root.path])
    if own.type == fs.FileType.File:
        yield own
    if own.type != fs.FileType.Directory:
        return
    begin = len(root.path.rstrip("/").split("/"))
    waiting = _listed(root, root.path)
    while waiting:
        info = waiting.pop()
        is_left_out = any(map(_is_hidden, info.path.split("/")[begin:]))
        if info.type == fs.FileType.Directory and root.is_local and (hidden is not None or not is_left_out):
            waiting += _listed(root, info.path)
        elif info.type == fs.FileType.File and not is_left_out:
            yield info
        elif info.type == fs.FileType.File and hidden is not None:
            hidden(info.path)


def _listed(root: Location, path: str) -> list[fs.FileInfo]:
    """Return what a folder has, last one first; a store of objects lists a prefix in one go, by fewer requests."""
    selector = fs.FileSelector(path, recursive=not root.is_local)
    return sorted(root.filesystem.get_file_info(selector), key=_place, reverse=True)


def _place(info: fs.FileInfo) -> str:
    """Return where a file comes among all; a folder's files begin with its path and a slash."""
    path: str = info.path
    return f"{path}/" if info.type == fs.FileType.Directory else path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _is_pattern(root: Location) -> bool:
    return MAGIC.search(root.path) is not None and not root.exists()


def _alternatives(pattern: str) -> list[str]:
    """Return the patterns that one with braces stands for, as Hadoop reads them: {a,b} is a or b."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [found for choice in braces[1].split(",") for found in _alternatives(before + choice + after)]


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a file, or a folder that it is in, matches a pattern."""
    return len(names) >= len(pattern) and all(
        fnmatch.fnmatchcase(name, part) for name, part in zip(names, pattern, strict=False)
    )
