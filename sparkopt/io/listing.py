"""Files below a path, as Spark lists them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyarrow import fs

from sparkopt.errors import DataError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, local_path, resolve
from sparkopt.io.secrets import mask

__all__ = ["NOT_TEXT", "FileBelow", "check_text", "files_below", "folder_of_pattern", "is_hidden", "walk_below"]

MAGIC = re.compile(r"[*?\[{]")
NOT_TEXT = "not UTF-8"
"""Why a name of bytes that are no text is left out: no column of paths can hold it."""
BROKEN_LINK = "broken link"
"""Why a link that leads nowhere is left out, as Spark leaves it out."""
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
        Where there is nothing, or a name is not UTF-8.
    """
    return list(walk_below(path))


def walk_below(path: str, left_out: Callable[[str, str], None] | None = None) -> Iterator[FileBelow]:
    """Yield the files that ``files_below`` returns, in their order; on a disk, a folder is listed when it is reached.

    Parameters
    ----------
    path : str
        A folder, a file or a pattern.
    left_out : callable, optional
        Called with the reason and the path of what is left out: "hidden" of a file where it, or a folder on its path
        below ``path``, begins with a dot or an underscore, "not UTF-8" of a file or folder whose name is no text,
        "broken link" of one that leads to no file.

    Raises
    ------
    DataError
        Where there is nothing; and for a name that is no text, without ``left_out``.
    """
    check_text(path)
    root = resolve(path, "path")
    pattern = re.sub("/+", "/", root.path) if root.is_local else root.path
    patterns = [one.split("/") for one in _alternatives(pattern)] if _is_pattern(root) else None
    base = root
    if patterns is not None:
        base = Location(root.filesystem, folder_of_pattern(pattern) or "/", root.shown)
    prefix = "file:" if local_path(path) is not None else path.partition("://")[0] + "://"
    is_any = False
    try:
        for info in _walk(base, left_out):
            if patterns is None or any(_matches(info.path.split("/"), pattern) for pattern in patterns):
                is_any = True
                location = Location(root.filesystem, info.path)
                yield FileBelow(location, prefix + info.path, info.size, info.mtime_ns // 1_000_000)
    except STORAGE_ERRORS as error:
        raise root.unusable(error) from None
    if not is_any and (patterns is not None or not root.exists()):
        raise DataError(f"cannot read {mask(path)!r}: it does not exist.")


def check_text(path: str) -> None:
    """Raise DataError for a path that is no text: Python has other bytes of names as halves of characters."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"cannot read {path!r}: the name is {NOT_TEXT}; rename it.") from None


def folder_of_pattern(pattern: str) -> str:
    """Return what precedes the first name of a pattern that is one, without a slash at its end; all where none is.

    Examples
    --------
    >>> folder_of_pattern("/photos/2024*/cat/*.jpg")
    '/photos'
    """
    names = pattern.split("/")
    return "/".join(names[: next((place for place, name in enumerate(names) if MAGIC.search(name)), len(names))])


def _walk(root: Location, left_out: Callable[[str, str], None] | None = None) -> Iterator[fs.FileInfo]:
    """Yield the files below a folder in the order of their paths, or the file itself."""
    (own,) = root.filesystem.get_file_info([root.path])
    if own.type == fs.FileType.File:
        yield own
    if own.type != fs.FileType.Directory:
        return
    begin = len(root.path.rstrip("/").split("/"))
    waiting = _listed(root, root.path, left_out)
    while waiting:
        info = waiting.pop()
        is_left_out = any(map(is_hidden, info.path.split("/")[begin:]))
        if info.type == fs.FileType.Directory and root.is_local and (left_out is not None or not is_left_out):
            waiting += _listed(root, info.path, left_out)
        elif info.type == fs.FileType.File and not is_left_out:
            yield info
        elif info.type == fs.FileType.File and left_out is not None:
            left_out("hidden", info.path)


def _listed(root: Location, path: str, left_out: Callable[[str, str], None] | None) -> list[fs.FileInfo]:
    """Return what a folder has, last one first; a store of objects lists a prefix in one go, by fewer requests."""
    selector = fs.FileSelector(path, recursive=not root.is_local)
    listed = root.filesystem.get_file_info(selector)
    if root.is_local and left_out is not None:
        _count_broken_links(path, len(listed), left_out)
    return sorted((info for info in listed if _is_text(info, left_out)), key=_place, reverse=True)


def _count_broken_links(folder: str, listed: int, left_out: Callable[[str, str], None]) -> None:
    """Count what Arrow does not list: links that lead nowhere."""
    names = os.listdir(folder)
    if len(names) == listed:
        return
    for name in sorted(names):
        path = os.path.join(folder, name)
        if not os.path.exists(path) and not is_hidden(name):
            left_out(BROKEN_LINK, os.fsencode(path).decode(errors="backslashreplace"))


def _is_text(info: fs.FileInfo, left_out: Callable[[str, str], None] | None) -> bool:
    try:
        return bool(info.path)
    except UnicodeDecodeError as error:
        name = bytes(error.object).decode(errors="backslashreplace")
        if left_out is None:
            raise DataError(f"cannot read {mask(name)!r}: the name is {NOT_TEXT}; rename it.") from None
        left_out(NOT_TEXT, name)
        return False


def _place(info: fs.FileInfo) -> str:
    """Return where a file comes among all; a folder's files begin with its path and a slash."""
    path: str = info.path
    return f"{path}/" if info.type == fs.FileType.Directory else path


def is_hidden(name: str) -> bool:
    """Whether Spark leaves out files and folders of such a name."""
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
