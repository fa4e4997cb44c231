"""Files and folders of a job, on this machine or elsewhere, and outputs that appear whole.

An output is written next to its final path and renamed at the end. Spark writes a job's output by Hadoop's API with
Spark's own settings, so its locations are in `sparkopt.jobs.runtimes.hadoop`; a job without Spark reaches what is not
on this machine through `sparkopt.io.filesystem`, by ``ArrowLocation``.
"""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from pyarrow import fs

from sparkopt.io.filesystem import Location, child_uri, local_path, resolve
from sparkopt.values import dataclass

__all__ = ["ArrowLocation", "JobLocation", "LocalLocation", "is_staging", "machine_location", "publish", "staged"]

UNFINISHED, REPLACED = "unfinished", "replaced"


class JobLocation(ABC):
    """A file or a folder, by its URI."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The URI by which the job's runtime reads and writes it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    renames: bool = True
    """Whether a folder is renamed atomically; object stores copy its files one by one."""

    @abstractmethod
    def child(self, name: str) -> JobLocation:
        """Return a file or folder in this folder."""

    @abstractmethod
    def sibling(self, name: str) -> JobLocation:
        """Return a file or folder in the same folder."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a file or a folder."""

    @abstractmethod
    def refusal(self) -> str:
        """Return why no folder can be written here, or "" where one can; nothing is created to find out."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names in this folder; none where it does not exist."""

    @abstractmethod
    def sibling_names(self) -> list[str]:
        """Return the names in the parent folder."""

    @abstractmethod
    def read(self) -> str:
        """Return the file's text."""

    @abstractmethod
    def move(self, target: JobLocation) -> None:
        """Rename this; ``target`` must not exist."""

    @abstractmethod
    def delete(self) -> None:
        """Delete this and everything below it; harmless where it does not exist."""

    @abstractmethod
    def make_folder(self) -> None:
        """Make this folder, and those that it is in."""

    @abstractmethod
    def add_files(self, files: Path) -> None:
        """Copy the files of a local folder into this folder."""


@dataclass(frozen=True)
class LocalLocation(JobLocation):
    """On this machine."""

    path: Path

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    @property
    def name(self) -> str:
        return self.path.name

    def child(self, name: str) -> JobLocation:
        return LocalLocation(self.path / name)

    def sibling(self, name: str) -> JobLocation:
        return LocalLocation(self.path.with_name(name))

    def exists(self) -> bool:
        return self.path.exists()

    def refusal(self) -> str:
        for path in (self.path, self.path.parent):  # a new output is written next to it and renamed
            nearest = next(each for each in (path, *path.parents) if each.exists())
            if not nearest.is_dir():
                return f"{nearest} is a file"
            if not os.access(nearest, os.W_OK | os.X_OK):
                return f"{nearest} is read-only for this user"
        return ""

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []

    def sibling_names(self) -> list[str]:
        return LocalLocation(self.path.parent).names()

    def read(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def move(self, target: JobLocation) -> None:
        goal = Path(target.uri.removeprefix("file://"))
        goal.parent.mkdir(parents=True, exist_ok=True)
        self.path.rename(goal)

    def delete(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def make_folder(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def add_files(self, files: Path) -> None:
        self.make_folder()
        for entry in files.iterdir():
            shutil.copy2(entry, self.path / entry.name)


@dataclass(frozen=True)
class ArrowLocation(JobLocation):
    """On a file system of pyarrow, such as an object store, for jobs that run without Spark.

    Object stores copy where others rename: a reader may see part of an output there while a job ends; the manifest
    comes last.
    """

    location: Location
    address: str

    @property
    def renames(self) -> bool:  # type: ignore[override]
        return self.location.renames

    @property
    def uri(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return self.location.path.rstrip("/").rpartition("/")[2]

    def child(self, name: str) -> JobLocation:
        return ArrowLocation(self.location.child(name), child_uri(self.address, quote(name)))

    def _parent(self) -> ArrowLocation:
        above = self.location.path.rstrip("/").rpartition("/")[0]
        return ArrowLocation(
            Location(self.location.filesystem, above, self.location.shown),
            _above(self.address),
        )

    def sibling(self, name: str) -> JobLocation:
        return self._parent().child(name)

    def exists(self) -> bool:
        return self.location.exists()

    def refusal(self) -> str:
        return ""  # what a store allows shows when it is written to

    def names(self) -> list[str]:
        return sorted(info.base_name for info in self.location.listed() if info.path != self.location.path)

    def sibling_names(self) -> list[str]:
        return self._parent().names()

    def read(self) -> str:
        return self.location.read().decode("utf-8")

    def move(self, target: JobLocation) -> None:
        goal = target.location if isinstance(target, ArrowLocation) else resolve(target.uri, "output")
        system = self.location.filesystem
        if system.get_file_info(self.location.path).type != fs.FileType.Directory:
            Location(system, goal.path.rpartition("/")[0]).make_folder()
            system.move(self.location.path, goal.path)
            return
        goal.make_folder()
        for name in self.names():
            self.child(name).move(target.child(name))
        self.delete()

    def delete(self) -> None:
        self.location.delete()

    def make_folder(self) -> None:
        self.location.make_folder()

    def add_files(self, files: Path) -> None:
        self.make_folder()
        for entry in files.iterdir():
            self.location.child(entry.name).write(entry.read_bytes())


def machine_location(path: str) -> JobLocation:
    """Return a file or folder that a job reaches without Spark.

    Raises
    ------
    ParameterError
        For a file system that pyarrow does not know.
    """
    local = local_path(path)
    return LocalLocation(Path(local).absolute()) if local is not None else ArrowLocation(resolve(path, "path"), path)


def _above(address: str) -> str:
    """Return the URI of the folder that a file or folder is in."""
    folder, mark, query = address.partition("?")
    return folder.rstrip("/").rpartition("/")[0] + mark + query


def _hidden(output: JobLocation, kind: str) -> JobLocation:
    """Return this process's own folder next to ``output``; Spark reads no name that begins with a dot.

    Where nothing is renamed it is inside of ``output``: rights may hold for that prefix only.
    """
    own = f".{output.name}.{socket.gethostname()}-{os.getpid()}.{kind}"
    return output.sibling(own) if output.renames else output.child(own)


def is_staging(name: str) -> bool:
    """Whether a name in an output's folder is that of an unfinished run, which object stores have inside of it."""
    return name.startswith(".") and name.endswith(f".{UNFINISHED}")


@contextmanager
def staged(output: JobLocation) -> Iterator[JobLocation]:
    """Yield a folder next to ``output`` to write to; delete it afterwards, and what killed runs have left."""
    _sweep(output)
    staging = _hidden(output, UNFINISHED)
    staging.delete()
    try:
        yield staging
    finally:
        staging.delete()


def _sweep(output: JobLocation) -> None:
    """Delete what processes of this machine that have ended left next to ``output``."""
    begin = f".{output.name}.{socket.gethostname()}-"
    for name in output.sibling_names() if output.renames else output.names():
        pid, _, kind = name.removeprefix(begin).partition(".")
        if not name.startswith(begin) or not pid.isdigit() or _is_running(int(pid)):
            continue
        left = output.sibling(name) if output.renames else output.child(name)
        if kind == REPLACED and not output.exists():  # killed between two renames: the earlier output is whole
            left.move(output)
        elif kind in (UNFINISHED, REPLACED):
            left.delete()


def _is_running(pid: int) -> bool:
    """Whether a process of this machine is running; a zombie, which its parent has not yet waited for, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # Linux only; elsewhere a zombie counts as running until its parent has ended
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def publish(staging: JobLocation, output: JobLocation, last: str, earlier: Sequence[str]) -> None:
    """Move a finished output to its final path.

    Parameters
    ----------
    staging, output : JobLocation
        Where it was written, and its final path.
    last : str
        The file whose presence says that the output is complete.
    earlier : sequence of str
        Names that an earlier run of the same job left in ``output``; they are deleted.

    Notes
    -----
    A new folder takes one rename; a folder that holds only an earlier run's files is exchanged by two. A folder with
    other files keeps them: entries are replaced one by one, ``last`` deleted first and moved last. So are those of
    an object store, where each file appears whole, but a folder does not.
    """
    new = staging.names()
    if output.renames and not output.exists():
        staging.move(output)
        return
    if output.renames and set(output.names()) <= {*new, *earlier}:
        replaced = _hidden(output, REPLACED)
        replaced.delete()
        output.move(replaced)
        staging.move(output)
        replaced.delete()
        return
    output.child(last).delete()
    for name in {*earlier, *new}:
        if not is_staging(name):
            output.child(name).delete()
    for name in sorted(new, key=lambda name: name == last):
        staging.child(name).move(output.child(name))
