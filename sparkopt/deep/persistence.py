"""Models and estimators of networks on disk: pyspark.ml's metadata as JSON, and tensors as one file of safetensors.

Spark writes and reads where a session is active; else this process does, to the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkRuntimeError
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReader, MLWriter
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect
from sparkopt.errors import DataError
from sparkopt.io.filesystem import resolve
from sparkopt.io.metadata import damage, digested, read_metadata, write_metadata
from sparkopt.io.saved import FileSession, fetched, written_whole
from sparkopt.values import dataclass

__all__ = ["NetworkReader", "NetworkWriter", "Saved", "read_from", "saved_in"]

WEIGHTS = "model.safetensors"
CHUNK = 1 << 24


@dataclass(frozen=True)
class Saved:
    """What is written.

    Attributes
    ----------
    params : Params
        Class, uid and parameters, whose values JSON holds.
    facts : dict
        What metadata hold in addition.
    weights : bytes
        Tensors, as safetensors.
    """

    params: Any
    facts: Mapping[str, Any]
    weights: bytes


def saved_in(saved: Saved, folder: Path) -> None:
    """Write into a folder of this machine, as ``save`` does; with Spark too, ``load`` reads it."""
    write_metadata(saved.params, folder, dict(saved.facts), [saved.weights])
    (folder / WEIGHTS).write_bytes(saved.weights)


def read_from(folder: str | Path, kind: str, restore: Callable[[dict[str, Any], bytes], Any]) -> Any:
    """Return what is in a folder of this machine, written there or by Spark.

    Parameters
    ----------
    folder : str or Path
        The folder.
    kind : str
        The class that is expected, with its module.
    restore : callable
        Returns the instance of metadata and weights.

    Raises
    ------
    DataError
        Where something else was saved there.
    """
    with damage(str(folder)):
        metadata = read_metadata(folder)
        _check_class(metadata, kind, str(folder))
        return restore(metadata, Path(folder, WEIGHTS).read_bytes())


def _check_class(metadata: Mapping[str, Any], kind: str, path: str) -> None:
    if metadata["class"] != kind:
        raise DataError(f"{path!r} holds a {metadata['class']}, not a {kind}. Load it with its own class.")


class _AnySpark:
    """Mixin of writer and reader: without a session of Spark, this machine's file systems are used."""

    _sparkSession: Any

    @property
    def _spark(self) -> Any:
        """The session that was set, or the active or default one; None is started where there is none."""
        if self._sparkSession is not None:
            return None if isinstance(self._sparkSession, FileSession) else self._sparkSession
        try:
            return SparkSession.active()
        except PySparkRuntimeError:
            return None


class NetworkWriter(_AnySpark, MLWriter):
    """Writes parameters and facts as pyspark.ml's metadata, and the tensors as one file of safetensors.

    Parameters
    ----------
    saved : Saved
        What to write.
    """

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self.saved = saved

    def save(self, path: str) -> None:
        """Write ``metadata`` and ``model.safetensors`` below ``path``.

        Raises
        ------
        ParameterError
            Without Spark, where there is something already and ``overwrite`` was not called. Spark raises its own.
        """
        if self._spark is not None:
            super().save(path)
            return
        with written_whole(path, self.shouldOverwrite) as folder:
            saved_in(self.saved, folder)

    def _handleOverwrite(self, path: str) -> None:
        if is_connect(self.sparkSession):
            from pyspark.ml.connect.readwrite import RemoteMLWriter  # here, since it needs gRPC

            RemoteMLWriter.handleOverwrite(path, True)
        else:
            super()._handleOverwrite(path)

    def saveImpl(self, path: str) -> None:
        """Let Spark write."""
        params, weights, spark = self.saved.params, self.saved.weights, self.sparkSession
        facts = digested(params, spark, [weights], self.saved.facts)
        DefaultParamsWriter.saveMetadata(params, path, spark, extraMetadata=facts)
        if is_connect(spark):
            chunks = [weights[start : start + CHUNK] for start in range(0, len(weights), CHUNK)] or [b""]
            table = pa.table(
                {"number": pa.array(range(len(chunks)), pa.int32()), "bytes": pa.array(chunks, pa.binary())}
            )
            rows = spark.createDataFrame(table).repartition(1)
            rows.mapInArrow(_WriteFile(f"{path}/{WEIGHTS}"), "written int").collect()
            return
        context: Any = spark.sparkContext
        file = context._jvm.org.apache.hadoop.fs.Path(f"{path}/{WEIGHTS}")  # with Spark's own credentials
        stream = file.getFileSystem(context._jsc.hadoopConfiguration()).create(file)
        try:
            for start in range(0, len(weights), CHUNK):
                stream.write(bytearray(weights[start : start + CHUNK]))
        finally:
            stream.close()


@dataclass(frozen=True)
class _WriteFile:
    """The task that writes a file of chunks, where a server of Spark Connect has its files."""

    uri: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts: dict[int, bytes] = {}
        for batch in batches:
            parts |= dict(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        target = resolve(self.uri, "path")
        with target.filesystem.open_output_stream(target.path) as stream:
            for number in sorted(parts):
                stream.write(parts[number])
        yield pa.RecordBatch.from_pydict({"written": pa.array([len(parts)], pa.int32())})


class NetworkReader(_AnySpark, MLReader[Any]):
    """Reads what ``NetworkWriter`` wrote.

    Parameters
    ----------
    kind : str
        The class that is expected, with its module.
    restore : callable
        Returns the instance of metadata and weights.
    """

    def __init__(self, kind: str, restore: Callable[[dict[str, Any], bytes], Any]) -> None:
        super().__init__()
        self._kind, self._restore = kind, restore

    def load(self, path: str) -> Any:
        """Return what was saved below ``path``.

        Raises
        ------
        DataError
            Where something else was saved there, or a network it names may not be called.
        """
        spark = self._spark
        if spark is None:
            with fetched(path) as folder:
                return read_from(folder, self._kind, self._restore)
        with damage(path):
            metadata = DefaultParamsReader.loadMetadata(path, spark)
            _check_class(metadata, self._kind, path)
            found = spark.read.format("binaryFile").load(f"{path}/{WEIGHTS}").select("content").collect()
            return self._restore(metadata, b"".join(bytes(row.content) for row in found))  # an empty file has no row
