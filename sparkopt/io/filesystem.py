"""One way to open a path: Spark's and Hadoop's URIs on pyarrow's file systems.

Checkpoints, stores, images and models are all reached through `resolve`. What Spark itself writes goes through
Hadoop's file systems instead, with Spark's credentials (``sparkopt.jobs``). How a store is opened is in ``stores``,
for how long it is waited for in ``waiting``.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from sparkopt.errors import ParameterError
from sparkopt.io.hadoop import session_settings_of, settings_of
from sparkopt.io.secrets import mask, mask_uri
from sparkopt.io.stores import opened
from sparkopt.io.waiting import answered
from sparkopt.values import dataclass

__all__ = [
    "STORAGE_ERRORS",
    "LastingLocation",
    "Location",
    "arrow_uri",
    "brief",
    "child_uri",
    "local_path",
    "resolve",
]

T = TypeVar("T")
STORAGE_ERRORS = (OSError, pa.ArrowException)
"""What pyarrow's file systems raise."""

UNFINISHED = ".unfinished"
RENAMING = ("local", "hdfs")
"""File systems that rename atomically, and have folders. On the others, object stores, a file appears, whole, when
its one write ends, and a folder is what the names of files have in common."""

_PIECE = 1 << 26
_DEAD = "NETWORK_CONNECTION"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # one letter is a drive of Windows
_ARROW_SCHEMES = {"s3a": "s3", "s3n": "s3"}
_RESERVED = "%/:@!$&'()*+,;=-._~"  # what RFC 3986 allows in a path
_HINT = "Give a path, or a URI that begins with file, s3, gs, hdfs or abfs (for dbfs:/x, the path /dbfs/x)."


@dataclass(frozen=True)
class Location:
    """A file or folder on a file system.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
        The file system.
    path : str
        The path there, without a slash at its end.
    shown : str
        The parameter and its URI as errors show them, secrets masked.
    """

    filesystem: fs.FileSystem
    path: str
    shown: str = field(default="", repr=False, compare=False)

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine, which may be memory-mapped."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, *names: str) -> Location:
        """Return a file or folder below this one."""
        return replace(self, path="/".join([self.path.rstrip("/"), *names]))

    @property
    def renames(self) -> bool:
        """Whether the file system has folders, and renames them and files atomically; object stores do not."""
        return self.filesystem.type_name.removeprefix("py::") in RENAMING

    def exists(self) -> bool:
        """Whether there is a file, or a folder; in an object store, a folder with something in it."""
        kind = self._kind()
        if kind == fs.FileType.Directory and not self.renames:
            return any(_is_file(info) for deep in (False, True) for info in self.listed(recursive=deep))
        return bool(kind != fs.FileType.NotFound)

    def _kind(self) -> fs.FileType:
        """Return what is here; rights for all that is below a name do not hold for a file of that name."""
        try:
            return self._ask(lambda: self.filesystem.get_file_info(self.path).type)
        except STORAGE_ERRORS as error:
            if self.renames or _DEAD in str(error):  # who does not answer has been asked often enough
                raise
        try:
            return fs.FileType.Directory if self.listed() else fs.FileType.NotFound
        except STORAGE_ERRORS as error:  # where a listing is empty, pyarrow asks for that file again
            if "getting information for key" not in str(error):
                raise
            return fs.FileType.NotFound

    def listed(self, recursive: bool = False) -> list[fs.FileInfo]:
        """Return what this folder holds, in no order; nothing where it does not exist."""
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        found: list[fs.FileInfo] = self._ask(lambda: self.filesystem.get_file_info(selector))
        return found

    def make_folder(self) -> None:
        """Make this folder and those that it is in; object stores have none, and rights may be those of a prefix."""
        if self.renames:
            self._ask(lambda: self.filesystem.create_dir(self.path, recursive=True))

    def delete(self) -> None:
        """Delete this file, or this folder with all that it holds; harmless where there is neither."""
        system = self.filesystem
        kind = self._kind()
        try:
            if kind == fs.FileType.File:
                self._ask(lambda: system.delete_file(self.path))
            elif kind == fs.FileType.Directory:
                self._ask(lambda: system.delete_dir(self.path))
        except STORAGE_ERRORS:  # pyarrow asks for this name, and marks the folder above: for both rights may lack
            if self.renames:
                raise
            for info in self.listed(recursive=True):
                if _is_file(info):
                    self._ask(partial(system.delete_file, info.path))
            if self.exists():
                raise

    def read(self) -> bytes:
        """Return the file's content."""
        if self.is_local:
            with self.filesystem.open_input_stream(self.path) as stream:
                content: bytes = stream.read()
            return content
        pieces = []
        with self._ask(lambda: self.filesystem.open_input_stream(self.path)) as stream:
            while piece := self._ask(lambda: stream.read(_PIECE)):
                pieces.append(piece)
        return b"".join(pieces)

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Add this path to errors of the system that do not say where: pyarrow's of a full disk."""
        try:
            yield
        except OSError as error:
            if error.errno is None or self.path in str(error):
                raise
            raise OSError(error.errno, os.strerror(error.errno), self.path) from None

    @contextlib.contextmanager
    def output(self) -> Iterator[Any]:
        """Yield a stream that writes this file; errors of the system name it."""
        with self.named_in_errors(), self.filesystem.open_output_stream(self.path, compression=None) as stream:
            yield stream

    def write(self, content: bytes) -> None:
        """Write the file so that it appears whole or not at all; errors of the system name it."""
        with self.named_in_errors():
            self._write(content)

    def _write(self, content: bytes) -> None:
        system = self.filesystem
        if not self.renames:
            self._write_to(self.path, content)
            return
        unfinished = f"{self.path}.{uuid.uuid4().hex}{UNFINISHED}"
        try:
            self._write_to(unfinished, content)
            if system.type_name.endswith("hdfs") and self.exists():
                system.delete_file(self.path)  # its rename does not replace
            system.move(unfinished, self.path)
        except BaseException:  # a disk that is full keeps no part of it
            with contextlib.suppress(*STORAGE_ERRORS):
                system.delete_file(unfinished)
            raise

    def _write_to(self, path: str, content: bytes) -> None:
        if self.is_local:
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)
            return
        stream = self._ask(lambda: self.filesystem.open_output_stream(path, compression=None))
        for start in range(0, len(content), _PIECE):
            self._ask(partial(stream.write, content[start : start + _PIECE]))
        self._ask(stream.close)

    def _ask(self, question: Callable[[], T]) -> T:
        """Return the answer of the file system; another machine's may not come at all."""
        return question() if self.is_local else answered(question, self.shown or repr(self.path))

    def unusable(self, error: Exception) -> ParameterError:
        """Return the error to raise, ``from None``, where the location cannot be used: one line, secrets masked."""
        return ParameterError(f"{self.shown or repr(self.path)} cannot be used: {brief(error)}")

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Raise what the file system raises as ``unusable``: a disk that is full, a right that is lacking."""
        try:
            yield
        except STORAGE_ERRORS as error:
            raise self.unusable(error) from None


def resolve(uri: str, parameter: str) -> Location:
    """Return where a path or a URI leads.

    Parameters
    ----------
    uri : str
        A path of this machine, or a URI: ``file:``, ``s3:`` (``s3a:``, ``s3n:``), ``gs:``, ``hdfs:``, ``viewfs:``,
        ``abfs:`` (``abfss:``), ``dbfs:`` where Databricks has mounted it. Names may hold spaces and characters that
        are not ASCII; ``%xx`` in a URI stands for a byte, in a path for itself.
    parameter : str
        The parameter that holds the URI; errors name it.

    Returns
    -------
    Location
        For HDFS, and for S3 where the URI gives no region, a connection was opened; for the others none was.

    Raises
    ------
    ParameterError
        Where the scheme is not known, the URI is malformed or its file system cannot be reached. Passwords and tokens
        are masked.

    Examples
    --------
    >>> resolve("file:/data/rows of May/", "storePath").path
    '/data/rows of May'
    >>> resolve("abfss://models@account.dfs.core.windows.net/churn", "checkpointDir").path
    'models/churn'
    """
    shown = f"{parameter}={mask_uri(uri)!r}"
    local = local_path(uri)
    if local is not None:
        return Location(fs.LocalFileSystem(), local, shown)
    asked = arrow_uri(uri)
    settings = settings_of(asked)  # in this thread: a session may be a thread's own
    try:
        system, path = answered(lambda: opened(asked, settings), shown)
    except STORAGE_ERRORS as error:
        reason = brief(str(error).replace(asked, mask_uri(asked)))  # pyarrow's own message repeats the URI
        hint = f". {_HINT}" if isinstance(error, pa.ArrowInvalid) else ""
        raise ParameterError(f"{shown} cannot be used: {reason}{hint}") from None
    return Location(system, path.rstrip("/") or path[:1], shown)


RENEWED_AFTER = 60.0
"""Seconds for which a `LastingLocation` takes it for granted that the session's credentials are the same."""


class LastingLocation:
    """Where a path or a URI leads, for hours: credentials that the session renews are used from then on.

    It is pickled with the credentials that it has, which other processes may lack, and which stay as they are there.

    Parameters
    ----------
    uri, parameter : str
        As of `resolve`.

    Raises
    ------
    ParameterError
        As of `resolve`.

    Examples
    --------
    >>> LastingLocation("/data/checkpoints", "checkpointDir").now().path
    '/data/checkpoints'
    """

    def __init__(self, uri: str, parameter: str) -> None:
        self._uri, self._parameter = uri, parameter
        self._settings = session_settings_of(uri)
        self._found, self._asked = resolve(uri, parameter), time.monotonic()

    def now(self) -> Location:
        """Return where it leads with the credentials of now."""
        if time.monotonic() - self._asked >= RENEWED_AFTER:
            settings, self._asked = session_settings_of(self._uri), time.monotonic()
            if settings and settings != self._settings:
                self._settings, self._found = settings, resolve(self._uri, self._parameter)
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        self.now()
        return vars(self)


def local_path(uri: str) -> str | None:
    """Return the absolute path of this machine that a path or a URI stands for, or None where it is elsewhere.

    Examples
    --------
    >>> local_path("file:///data/a%20b"), local_path("s3://bucket/a")
    ('/data/a b', None)
    """
    found = _SCHEME.match(uri)
    if found is None:
        path = os.path.expanduser(uri)
        return _trimmed(path) if path.startswith("/") else str(Path(path).absolute())
    scheme, rest = found[1].lower(), uri[found.end() :]
    if scheme == "file":
        absolute = re.fullmatch(r"(?:/(?!/)|//(?:localhost)?/+)(.*)", rest, re.DOTALL)
        return _trimmed("/" + unquote(absolute[1], errors="surrogateescape")) if absolute else None
    if scheme == "dbfs" and rest.startswith("/"):
        path = "/" + rest.lstrip("/")
        mounted = path if path.startswith("/Volumes/") else f"/dbfs{path}"
        if os.path.isdir("/" + mounted.split("/")[1]):  # elsewhere it would be a new folder of this machine
            return _trimmed(mounted)
    return None


def _is_file(info: fs.FileInfo) -> bool:
    return bool(info.type == fs.FileType.File)


def _trimmed(path: str) -> str:
    return path.rstrip("/") or "/"  # as pathlib, which takes several times as long; this runs for every image


def arrow_uri(uri: str) -> str:
    """Return a URI as pyarrow reads it: its name of the scheme, and names quoted that are not.

    Examples
    --------
    >>> arrow_uri("s3a://bucket/rows of May/50%?region=eu-west-1")
    's3://bucket/rows%20of%20May/50%25?region=eu-west-1'
    """
    parts = re.fullmatch(r"([^:]*):(//[^/?]*)?([^?]*)(\?.*)?", uri, re.DOTALL)
    if parts is None:
        return uri
    scheme, authority, path, query = (part or "" for part in parts.groups())
    path = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path), safe=_RESERVED)
    scheme = scheme.lower()
    return f"{_ARROW_SCHEMES.get(scheme, scheme)}:{authority}{path}{query}"


def child_uri(uri: str, *names: str) -> str:
    """Return the URI, or path, of a file or folder below another; a query stays at the end.

    Examples
    --------
    >>> child_uri("s3://bucket/models/?region=eu-west-1", "churn", "model")
    's3://bucket/models/churn/model?region=eu-west-1'
    """
    folder, mark, query = uri.partition("?") if local_path(uri) is None else (uri, "", "")
    return "/".join([folder.rstrip("/"), *names]) + mark + query


def brief(error: BaseException | str) -> str:
    """Return the beginning of an error on one line, secrets masked: messages of file systems run over many lines."""
    text = mask(" ".join(str(error).split()))
    return text if len(text) <= 300 else f"{text[:300]} …"
