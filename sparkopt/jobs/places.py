"""Where outputs go: folders of this machine, or of whatever file system Spark writes to.

What a job writes appears as a whole: it is written beside its place, and renamed at the end.
"""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect
from sparkopt.errors import DataError

__all__ = ["Place", "place_of", "publish", "staged"]

UNFINISHED, REPLACED = "unfinished", "replaced"


class Place(ABC):
    """A folder or a file, by its URI."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """What Spark reads and writes it by."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of its path."""

    @abstractmethod
    def child(self, name: str) -> Place:
        """Return what lies in it."""

    @abstractmethod
    def sibling(self, name: str) -> Place:
        """Return what lies beside it."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is something."""

    @abstractmethod
    def refusal(self) -> str:
        """Why no folder can be written here, or "" where one can; nothing is made to find out."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return what lies in it; nothing where it does not exist."""

    @abstractmethod
    def beside(self) -> list[str]:
        """Return what lies in the folder that it lies in."""

    @abstractmethod
    def read(self) -> str:
        """Return a file's text."""

    @abstractmethod
    def move(self, target: Place) -> None:
        """Rename it; ``target`` must not exist."""

    @abstractmethod
    def delete(self) -> None:
        """Delete it with all that lies in it; harmless where it does not exist."""

    @abstractmethod
    def take(self, files: Path) -> None:
        """Add the files of a local folder."""


@dataclass(frozen=True)
class LocalPlace(Place):
    """On this machine."""

    path: Path

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    @property
    def name(self) -> str:
        return self.path.name

    def child(self, name: str) -> Place:
        return LocalPlace(self.path / name)

    def sibling(self, name: str) -> Place:
        return LocalPlace(self.path.with_name(name))

    def exists(self) -> bool:
        return self.path.exists()

    def refusal(self) -> str:
        for path in (self.path, self.path.parent):  # what is new is made beside it, and then renamed
            nearest = next(each for each in (path, *path.parents) if each.exists())
            if not nearest.is_dir():
                return f"{nearest} is a file"
            if not os.access(nearest, os.W_OK | os.X_OK):
                return f"{nearest} is read-only for this user"
        return ""

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []

    def beside(self) -> list[str]:
        return LocalPlace(self.path.parent).names()

    def read(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def move(self, target: Place) -> None:
        goal = Path(target.uri.removeprefix("file://"))
        goal.parent.mkdir(parents=True, exist_ok=True)
        self.path.rename(goal)

    def delete(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def take(self, files: Path) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for entry in files.iterdir():
            shutil.copy2(entry, self.path / entry.name)


@dataclass(frozen=True)
class HadoopPlace(Place):
    """On a file system that Spark knows, with Spark's own credentials.

    Renaming is at once on HDFS and ABFS. Object stores copy instead: there, a reader that looks while a job ends may
    see a part of it, and the manifest comes last.
    """

    spark: SparkSession = field(repr=False)
    location: str

    @property
    def uri(self) -> str:
        return self.location

    @property
    def name(self) -> str:
        return self.location.rstrip("/").rpartition("/")[2]

    def _path(self) -> Any:
        return self.spark.sparkContext._jvm.org.apache.hadoop.fs.Path(self.location)  # type: ignore[union-attr]

    def _system(self) -> Any:
        return self._path().getFileSystem(self.spark.sparkContext._jsc.hadoopConfiguration())

    def child(self, name: str) -> Place:
        return HadoopPlace(self.spark, f"{self.location.rstrip('/')}/{name}")

    def _parent(self) -> HadoopPlace:
        return HadoopPlace(self.spark, self.location.rstrip("/").rpartition("/")[0])

    def sibling(self, name: str) -> Place:
        return self._parent().child(name)

    def exists(self) -> bool:
        return bool(self._system().exists(self._path()))

    def refusal(self) -> str:
        nearest, system = self._path(), self._system()
        while not system.exists(nearest) and nearest.getParent() is not None:
            nearest = nearest.getParent()
        if system.getFileStatus(nearest).isFile():
            return f"{nearest.toString()} is a file"
        write = self.spark.sparkContext._jvm.org.apache.hadoop.fs.permission.FsAction.WRITE  # type: ignore[union-attr]
        try:
            system.access(nearest, write)
        except Py4JJavaError as error:
            return str(error.java_exception.getMessage())
        return ""

    def names(self) -> list[str]:
        if not self.exists():
            return []
        return sorted(status.getPath().getName() for status in self._system().listStatus(self._path()))

    def beside(self) -> list[str]:
        return self._parent().names()

    def read(self) -> str:
        stream = self._system().open(self._path())
        try:
            return bytes(stream.readAllBytes()).decode("utf-8")
        finally:
            stream.close()

    def move(self, target: Place) -> None:
        goal = HadoopPlace(self.spark, target.uri)
        self._system().mkdirs(goal._parent()._path())
        if not self._system().rename(self._path(), goal._path()):
            raise DataError(f"{self.uri} could not be renamed to {target.uri}.")

    def delete(self) -> None:
        self._system().delete(self._path(), True)

    def take(self, files: Path) -> None:
        self._system().mkdirs(self._path())
        for entry in files.iterdir():
            source = HadoopPlace(self.spark, f"file://{entry}")._path()
            self._system().copyFromLocalFile(False, True, source, self._path())


def place_of(spark: SparkSession, location: str) -> Place:
    """Return the place that Spark itself would take ``location`` for.

    A path without a scheme is on Spark's default file system: this machine, or HDFS on most YARN clusters.
    """
    if is_connect(spark):  # no JVM to ask: what is local here must be local there too, as on Databricks volumes
        return LocalPlace(Path(location.removeprefix("file:")).absolute())
    place = HadoopPlace(spark, location)
    whole = str(place._system().makeQualified(place._path()).toString())
    if whole.startswith("file:"):
        return LocalPlace(Path("/" + whole.removeprefix("file:").lstrip("/")))
    return HadoopPlace(spark, whole)


def _aside(place: Place, kind: str) -> Place:
    """Return the place beside ``place`` that this process uses; Spark reads nothing that begins with a dot."""
    return place.sibling(f".{place.name}.{socket.gethostname()}-{os.getpid()}.{kind}")


@contextmanager
def staged(output: Place) -> Iterator[Place]:
    """Give a place beside ``output`` to write to, and leave nothing there; clear what killed runs have left."""
    _sweep(output)
    aside = _aside(output, UNFINISHED)
    aside.delete()
    try:
        yield aside
    finally:
        aside.delete()


def _sweep(output: Place) -> None:
    """Delete what processes of this machine left beside ``output`` which are no more."""
    begin = f".{output.name}.{socket.gethostname()}-"
    for name in output.beside():
        pid, _, kind = name.removeprefix(begin).partition(".")
        if not name.startswith(begin) or not pid.isdigit() or _lives(int(pid)):
            continue
        left = output.sibling(name)
        if kind == REPLACED and not output.exists():  # killed between two renames: the earlier output is whole
            left.move(output)
        elif kind in (UNFINISHED, REPLACED):
            left.delete()


def _lives(pid: int) -> bool:
    """Whether a process of this machine still runs; one that only waits to be noticed by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # where there is none, the signal's word stands
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def publish(staging: Place, output: Place, last: str, earlier: Sequence[str]) -> None:
    """Put what was written in its place.

    Parameters
    ----------
    staging, output : Place
        From where, to where.
    last : str
        The file that says that all is there.
    earlier : sequence of str
        What an earlier run of ours has left in ``output``, and may go.

    Notes
    -----
    A new folder comes by one rename, and one that holds nothing but an earlier run's files is exchanged by two. Where
    other files lie in it they stay, and entries are replaced one by one, ``last`` first taken away and put back last.
    """
    new = staging.names()
    if not output.exists():
        staging.move(output)
        return
    if set(output.names()) <= {*new, *earlier}:
        replaced = _aside(output, REPLACED)
        replaced.delete()
        output.move(replaced)
        staging.move(output)
        replaced.delete()
        return
    output.child(last).delete()
    for name in [*earlier, *new]:
        output.child(name).delete()
    for name in sorted(new, key=lambda name: name == last):
        staging.child(name).move(output.child(name))
