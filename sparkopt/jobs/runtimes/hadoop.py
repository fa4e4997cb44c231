"""Files and folders as Spark itself reaches them: on this machine, or by Hadoop with Spark's credentials.

Spark writes a job's output, so the job must publish it on the same file system with the same settings: through
Hadoop's API, not through pyarrow as `sparkopt.io.filesystem` does.
"""

from __future__ import annotations

import os
import re
from dataclasses import field
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.jvm_errors import Py4JJavaError
from sparkopt.errors import DataError
from sparkopt.io.filesystem import local_path
from sparkopt.io.secrets import mask_uri
from sparkopt.jobs.locations import JobLocation, LocalLocation
from sparkopt.values import dataclass

__all__ = ["HadoopLocation", "path_on", "spark_location"]


@dataclass(frozen=True)
class HadoopLocation(JobLocation):
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

    def child(self, name: str) -> JobLocation:
        return HadoopLocation(self.spark, f"{self.location.rstrip('/')}/{name}")

    def _parent(self) -> HadoopLocation:
        return HadoopLocation(self.spark, self.location.rstrip("/").rpartition("/")[0])

    def sibling(self, name: str) -> JobLocation:
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

    def move(self, target: JobLocation) -> None:
        goal = HadoopLocation(self.spark, target.uri)
        self._system().mkdirs(goal._parent()._path())
        if not self._system().rename(self._path(), goal._path()):
            raise DataError(f"{self.uri} could not be renamed to {target.uri}.")

    def delete(self) -> None:
        self._system().delete(self._path(), True)

    def make_folder(self) -> None:
        self._system().mkdirs(self._path())

    def add_files(self, files: Path) -> None:
        self.make_folder()
        for entry in files.iterdir():
            source = HadoopLocation(self.spark, f"file://{entry}")._path()
            self._system().copyFromLocalFile(False, True, source, self._path())


def spark_location(spark: SparkSession, location: str) -> JobLocation:
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


def path_on(spark: SparkSession, path: str) -> str:
    """Return a path as a session resolves it: the folder of this process is not that of a server of Spark Connect."""
    return (local_path(path) or path) if is_connect(spark) and _is_relative(path) else path


def _is_relative(path: str) -> bool:
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|[/~]", path) and ("/" in path or os.path.lexists(path))
