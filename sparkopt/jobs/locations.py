"""Files and folders as Spark itself reaches them: on this machine, or by Hadoop with Spark's credentials.

Spark writes a job's output, so the job must publish it on the same file system with the same settings: through
Hadoop's API, not through pyarrow as `sparkopt.io.filesystem` does. An output appears whole: it is written next to
its final path and renamed at the end.
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
from sparkopt.io.filesystem import local_path
from sparkopt.io.secrets import mask_uri

__all__ = ["SparkLocation", "publish", "spark_location", "staged"]

UNFINISHED, REPLACED = "unfinished", "replaced"


class SparkLocation(ABC):
    """A file or a folder, by its URI."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The URI that Spark reads and writes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @abstractmethod
    def child(self, name: str) -> SparkLocation:
        """Return a file or folder in this folder."""

    @abstractmethod
    def sibling(self, name: str) -> SparkLocation:
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
    def move(self, target: SparkLocation) -> None:
        """Rename this; ``target`` must not exist."""

    @abstractmethod
    def delete(self) -> None:
        """Delete this and everything below it; harmless where it does not exist."""

    @abstractmethod
    def add_files(self, files: Path) -> None:
        """Copy the files of a local folder into this folder."""


@dataclass(frozen=True)
class LocalLocation(SparkLocation):
    """On this machine."""

    path: Path

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    @property
    def name(self) -> str:
        return self.path.name

    def child(self, name: str) -> SparkLocation:
        return LocalLocation(self.path / name)

    def sibling(self, name: str) -> SparkLocation:
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

    def move(self, target: SparkLocation) -> None:
        goal = Path(target.uri.removeprefix("file://"))
        goal.parent.mkdir(parents=True, exist_ok=True)
        self.path.rename(goal)

    def delete(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def add_files(self, files: Path) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for entry in files.iterdir():
            shutil.copy2(entry, self.path / entry.name)


@dataclass(frozen=True)
class HadoopLocation(SparkLocation):
    """On a file system that Spark knows, with Spark's own credentials.

    HDFS and ABFS rename atomically. Object stores copy instead: a reader may see part of an output there while a job
    ends; the manifest comes last.
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

    def child(self, name: str) -> SparkLocation:
        return HadoopLocation(self.spark, f"{self.location.rstrip('/')}/{name}")

    def _parent(self) -> HadoopLocation:
        return HadoopLocation(self.spark, self.location.rstrip("/").rpartition("/")[0])

    def sibling(self, name: str) -> SparkLocation:
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

    def sibling_names(self) -> list[str]:
        return self._parent().names()

    def read(self) -> str:
        stream = self._system().open(self._path())
        try:
            return bytes(stream.readAllBytes()).decode("utf-8")
        finally:
            stream.close()

    def move(self, target: SparkLocation) -> None:
        goal = HadoopLocation(self.spark, target.uri)
        self._system().mkdirs(goal._parent()._path())
        if not self._system().rename(self._path(), goal._path()):
            raise DataError(f"{self.uri} could not be renamed to {target.uri}.")

    def delete(self) -> None:
        self._system().delete(self._path(), True)

    def add_files(self, files: Path) -> None:
        self._system().mkdirs(self._path())
        for entry in files.iterdir():
            source = HadoopLocation(self.spark, f"file://{entry}")._path()
            self._system().copyFromLocalFile(False, True, source, self._path())


def spark_location(spark: SparkSession, location: str) -> SparkLocation:
    """Return what Spark itself takes ``location`` for.

    A path without a scheme is on Spark's default file system: this machine, or HDFS on most YARN clusters.
    """
    if is_connect(spark):  # no JVM to ask: local paths must be shared, as Databricks volumes are
        local = local_path(location)
        if local is None:
            raise DataError(
                f"{mask_uri(location)!r} cannot be reached: on Spark Connect jobs read models and write outputs on "
                "paths that this process shares with Spark, such as a Databricks volume."
            )
        return LocalLocation(Path(local))
    given = HadoopLocation(spark, location)
    whole = str(given._system().makeQualified(given._path()).toString())
    if whole.startswith("file:"):
        return LocalLocation(Path("/" + whole.removeprefix("file:").lstrip("/")))
    return HadoopLocation(spark, whole)


def _hidden(output: SparkLocation, kind: str) -> SparkLocation:
    """Return this process's own folder next to ``output``; Spark reads no name that begins with a dot."""
    return output.sibling(f".{output.name}.{socket.gethostname()}-{os.getpid()}.{kind}")


@contextmanager
def staged(output: SparkLocation) -> Iterator[SparkLocation]:
    """Yield a folder next to ``output`` to write to; delete it afterwards, and what killed runs have left."""
    _sweep(output)
    staging = _hidden(output, UNFINISHED)
    staging.delete()
    try:
        yield staging
    finally:
        staging.delete()


def _sweep(output: SparkLocation) -> None:
    """Delete what processes of this machine that have ended left next to ``output``."""
    begin = f".{output.name}.{socket.gethostname()}-"
    for name in output.sibling_names():
        pid, _, kind = name.removeprefix(begin).partition(".")
        if not name.startswith(begin) or not pid.isdigit() or _is_running(int(pid)):
            continue
        left = output.sibling(name)
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


def publish(staging: SparkLocation, output: SparkLocation, last: str, earlier: Sequence[str]) -> None:
    """Move a finished output to its final path.

    Parameters
    ----------
    staging, output : SparkLocation
        Where it was written, and its final path.
    last : str
        The file whose presence says that the output is complete.
    earlier : sequence of str
        Names that an earlier run of the same job left in ``output``; they are deleted.

    Notes
    -----
    A new folder takes one rename; a folder that holds only an earlier run's files is exchanged by two. A folder with
    other files keeps them: entries are replaced one by one, ``last`` deleted first and moved last.
    """
    new = staging.names()
    if not output.exists():
        staging.move(output)
        return
    if set(output.names()) <= {*new, *earlier}:
        replaced = _hidden(output, REPLACED)
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
