"""Writers and readers of stages: by Spark where a session is active, else by this machine, to the same files.

pyspark.ml's own functions write and read both ways; without Spark they are given a `sparkopt.io.FileSession`.
"""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from pyspark.errors import PySparkRuntimeError
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWritable,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWriter,
)
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.failures import path_errors
from sparkopt.blocks.session_settings import is_own_disk
from sparkopt.errors import DataError
from sparkopt.io.metadata import DIGEST, check_digest, damage, digested, read_metadata
from sparkopt.io.saved import FileSession, fetched, written_whole
from sparkopt.ml.pyspark_models import PYSPARK_MODELS

__all__ = [
    "OwnWriter",
    "ParamsReadable",
    "ParamsWritable",
    "ParamsWriter",
    "StageReader",
    "StageWriter",
    "class_named",
    "is_written_here",
    "load_stage",
    "save_stage",
    "session_here",
]

S = TypeVar("S")
V = TypeVar("V", bound="MLReadable[Any]")

OF_SPARK = {
    **PYSPARK_MODELS,
    "org.apache.spark.ml.PipelineModel": "sparkopt.ml.pipeline.PipelineModel",
    "org.apache.spark.ml.evaluation.": "sparkopt.ml.evaluation.",
    "pyspark.ml.evaluation.": "sparkopt.ml.evaluation.",
    "pyspark.ml.pipeline.": "sparkopt.ml.pipeline.",
    "pyspark.ml.tuning.": "sparkopt.ml.tuning.",
    "pyspark.ml.classification.OneVsRest": "sparkopt.ml.one_vs_rest.OneVsRest",
}
"""Classes of pyspark.ml that have one of sparkopt's in place of them, by how their names begin."""


def session_here() -> Any:
    """Return the active or default SparkSession; where there is none, a `FileSession`. None is started."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return FileSession()


class _AnySession:
    """Mixin of writers and readers: a session that was set, or the one that is here."""

    _sparkSession: Any

    @property
    def sparkSession(self) -> Any:
        """The SparkSession, or the `FileSession` in place of it."""
        if self._sparkSession is None:
            self._sparkSession = session_here()
        return self._sparkSession


class StageWriter(_AnySession, MLWriter):
    """A writer that needs no Spark, and that can overwrite on Spark Connect too; pyspark's own needs the JVM."""

    @property
    def needs_jobs(self) -> bool:
        """Whether Spark's jobs write where there is a session: also to disks that this process writes to."""
        return True

    def save(self, path: str) -> None:
        """Write below ``path``.

        Raises
        ------
        ParameterError
            Without Spark, where there is something already and ``overwrite`` was not called. Spark raises its own.
        """
        session = self.sparkSession
        if isinstance(session, FileSession):
            self._save_here(path)
        elif self.needs_jobs or not self._may_save_here(session, path):
            with path_errors(path):
                super().save(path)
        else:  # the same files, without two jobs, whose first ones in an application take about a second
            self._sparkSession = FileSession()
            try:
                self._save_here(path)
            finally:
                self._sparkSession = session

    def _save_here(self, path: str) -> None:
        with written_whole(path, self.shouldOverwrite) as folder:
            self.saveImpl(str(folder))

    def _may_save_here(self, session: Any, path: str) -> bool:
        """Whether there is nothing for Spark to do, nor to refuse."""
        if not is_own_disk(session, path):
            return False
        there = Path(path)
        return os.access(there.parent, os.W_OK | os.X_OK) and (self.shouldOverwrite or not os.path.lexists(there))

    def _handleOverwrite(self, path: str) -> None:
        if is_connect(self.sparkSession):
            from pyspark.ml.connect.readwrite import RemoteMLWriter  # here, since it needs gRPC

            RemoteMLWriter.handleOverwrite(path, True)
        else:
            super()._handleOverwrite(path)


class OwnWriter(StageWriter):
    """A writer of what is sparkopt's alone."""

    @property
    def needs_jobs(self) -> bool:
        return False


def is_written_here(stage: Any) -> bool:
    """Whether a stage, with all that it is made of, is written without Spark's jobs."""
    writer = stage.write() if hasattr(stage, "write") else None
    return isinstance(writer, StageWriter) and not writer.needs_jobs


class ParamsWriter(OwnWriter, DefaultParamsWriter):
    """Writes parameters, and their digest."""

    def saveImpl(self, path: str) -> None:
        own: Any = self.instance
        session = self.sparkSession
        DefaultParamsWriter.saveMetadata(own, path, session, digested(own, session, ()))


class ParamsWritable(DefaultParamsWritable):
    """Mixin of stages of which only the parameters are saved."""

    def write(self) -> MLWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``."""
        return ParamsWriter(self)  # type: ignore[arg-type]  # every class that mixes this in is a Params


class StageReader(_AnySession, MLReader[Any], Generic[S]):
    """A reader that needs no Spark.

    Parameters
    ----------
    kind : type
        The class of what is read.
    """

    def __init__(self, kind: type[S]) -> None:
        super().__init__()
        self.kind: Any = kind

    def load(self, path: str) -> S:
        """Return what was saved below ``path``.

        Raises
        ------
        DataError
            Where another class was saved, nothing completely, or parameters that this version does not take.
        CorruptDataError
            Where files were truncated or altered.
        """
        session = self.sparkSession
        if isinstance(session, FileSession):
            return self._load_here(path)
        if not (is_own_disk(session, path) and _is_own(Path(path))):
            with path_errors(path), damage(path):
                return self._load(path)
        self._sparkSession = FileSession()  # the same, without two jobs a stage
        try:
            return self._load_here(path)
        finally:
            self._sparkSession = session

    def _load_here(self, path: str) -> S:
        with fetched(path) as folder, damage(path):
            return self._load(str(folder))

    @abstractmethod
    def _load(self, path: str) -> S:
        """Return what was saved below a path that the session reads."""

    def _metadata(self, path: str) -> dict[str, Any]:
        return DefaultParamsReader.loadMetadata(path, self.sparkSession)


def _is_own(folder: Path) -> bool:
    """Whether sparkopt reads what was saved, with all of its stages; what cannot be told is left to Spark."""
    stages = [part.parents[1] for part in folder.rglob("metadata/part-*")]
    try:
        return bool(stages) and all(
            class_named(read_metadata(stage)["class"]).__module__.startswith("sparkopt.") for stage in stages
        )
    except (ImportError, OSError, ValueError, LookupError, TypeError, AttributeError, DataError):
        return False


class ParamsReader(StageReader[S]):
    """Reads parameters."""

    def _load(self, path: str) -> S:
        metadata = self._metadata(path)
        kind = class_named(metadata["class"])
        if not issubclass(kind, self.kind):
            raise DataError(
                f"path={path!r} holds a {kind.__name__}, and no {self.kind.__name__}. {kind.__name__}.load reads it."
            )
        check_digest(metadata, ())
        own = kind()
        own._resetUid(metadata["uid"])
        try:
            DefaultParamsReader.getAndSetParams(own, metadata)
        except (TypeError, ValueError, AttributeError) as error:
            if DIGEST not in metadata:  # of an earlier version: it may have been altered
                raise
            raise DataError(f"what {path!r} holds is as it was saved, but cannot be used here: {error}") from None
        found: S = own
        return found


class ParamsReadable(MLReadable[V], Generic[V]):
    """Mixin of stages of which only the parameters are saved."""

    @classmethod
    def read(cls) -> MLReader[V]:
        """Return a reader: ``Estimator.read().load(path)``."""
        return ParamsReader(cls)


def save_stage(stage: Any, path: str, session: Any) -> None:
    """Save a stage below a path, of whatever class; pyspark.ml's own need Spark, but for pipelines."""
    if isinstance(session, FileSession):
        stage.write().session(session).save(path)
    else:
        stage.save(path)


def load_stage(path: str, session: Any) -> Any:
    """Return the stage saved below a path, of whatever class.

    Raises
    ------
    DataError
        Without Spark, for a class that needs it.
    """
    if not isinstance(session, FileSession):
        return DefaultParamsReader.loadParamsInstance(path, session)
    kind: Any = class_named(read_metadata(path)["class"])
    return kind.read().session(session).load(path)


def class_named(name: str) -> Any:
    """Return the class that metadata names: one of sparkopt's, or of a module that is imported already.

    A file imports no other, so that reading one runs no code.

    Raises
    ------
    DataError
        For another class.
    """
    for theirs, ours in OF_SPARK.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    module, _, kind = name.rpartition(".")
    found = None
    if module.startswith("sparkopt.") and _is_module(module):
        found = getattr(import_module(module), kind, None)
    elif module in sys.modules:
        found = getattr(sys.modules[module], kind, None)
    if not (isinstance(found, type) and issubclass(found, MLReadable)):
        raise DataError(
            f"a {name} was saved, which is not read without Spark: it is no stage of sparkopt, nor of a module that "
            f"is imported. Import it, or start a SparkSession."
        )
    return found


def _is_module(name: str) -> bool:
    """Whether there is such a module; a damaged name is of none."""
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):  # nor is there a package around it
        return False
