"""Files on any file system that pyarrow serves, each of them whole or not there at all."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from sparkopt.errors import ParameterError

__all__ = ["STORAGE_ERRORS", "brief", "named", "read_file", "resolve", "write_file"]

UNFINISHED = ".unfinished"
RENAMING = ("local", "hdfs")
"""File systems that rename at once; elsewhere a file appears, whole, when its one write ends."""

STORAGE_ERRORS = (OSError, pa.ArrowException)


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path there, without a slash at its end.

    Raises
    ------
    ParameterError
        For a scheme that pyarrow does not know.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri):
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    known = re.sub(r"^file:/+", "file:///", re.sub(r"^s3[an]://", "s3://", uri))  # Hadoop's ways to write them
    try:
        system, path = fs.FileSystem.from_uri(known)
    except STORAGE_ERRORS as error:
        raise ParameterError(
            f"{named(uri)} cannot be used: {brief(error)}. Give a path, or a URI that begins with file, s3, gs, "
            f"hdfs or abfs (for dbfs:/x, the path /dbfs/x)."
        ) from error
    return system, path.rstrip("/")


def named(uri: str) -> str:
    """Return the parameter as errors show it."""
    return f"checkpointDir={_masked(uri)!r}"


def _masked(text: str) -> str:
    """Return a text without the passwords of the URIs in it."""
    return re.sub(r"(//[^/:@\s]*):[^/@\s]*@", r"\1:…@", text)


def brief(error: Exception) -> str:
    """Return the beginning of an error, on one line: those of file systems run over many."""
    text = _masked(" ".join(str(error).split()))
    return text if len(text) <= 300 else f"{text[:300]} …"


def read_file(system: fs.FileSystem, path: str) -> bytes:
    """Return a file's content."""
    with system.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content


def write_file(system: fs.FileSystem, path: str, content: bytes) -> None:
    """Write so that the file appears whole or not at all."""
    if system.type_name not in RENAMING:
        with system.open_output_stream(path) as stream:
            stream.write(content)
        return
    aside = f"{path}.{uuid.uuid4().hex}{UNFINISHED}"
    with system.open_output_stream(aside) as stream:
        stream.write(content)
    if system.type_name == "hdfs" and system.get_file_info(path).type != fs.FileType.NotFound:
        system.delete_file(path)  # its rename does not replace
    system.move(aside, path)
