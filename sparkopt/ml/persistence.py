"""Models on disk: metadata as JSON, coefficients as Parquet; nothing is unpickled.

The layout is pyspark.ml's: ``metadata/`` holds one JSON line with class, uid and parameters, ``data/`` the numbers.
Any path that Spark can write works.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWritable,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWriter,
)

from sparkopt.blocks.backend import is_connect
from sparkopt.errors import DataError
from sparkopt.typing import Floats

__all__ = ["ModelReader", "ModelWriter", "ParamsWritable", "restored", "table_of"]

M = TypeVar("M", bound="MLReadable[Any]")


class _Writer(MLWriter):
    """A writer that can overwrite on Spark Connect too; pyspark's own needs the JVM."""

    def _handleOverwrite(self, path: str) -> None:
        if is_connect(self.sparkSession):
            from pyspark.ml.connect.readwrite import RemoteMLWriter  # here, since it needs gRPC

            RemoteMLWriter.handleOverwrite(path, True)
        else:
            super()._handleOverwrite(path)


class _ParamsWriter(_Writer, DefaultParamsWriter):
    """Writes parameters."""


class ParamsWritable(DefaultParamsWritable):
    """Mixin of stages of which only the parameters are saved."""

    def write(self) -> MLWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``."""
        return _ParamsWriter(self)  # type: ignore[arg-type]  # every class that mixes this in is a Params


class ModelWriter(_Writer):
    """Writes a linear model.

    Parameters
    ----------
    model : LinearModel
        The model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write ``metadata`` and ``data`` below ``path``."""
        spark = self.sparkSession
        DefaultParamsWriter.saveMetadata(self.model, path, spark)
        spark.createDataFrame(table_of(self.model)).coalesce(1).write.parquet(f"{path}/data")


class ModelReader(MLReader[M], Generic[M]):
    """Reads a linear model.

    Parameters
    ----------
    kind : type
        The model's class.
    """

    def __init__(self, kind: type[M]) -> None:
        super().__init__()
        self.kind = kind

    def load(self, path: str) -> M:
        """Return the model saved below ``path``.

        Raises
        ------
        DataError
            Where a model of another class was saved, or none completely.
        """
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        expected = f"{self.kind.__module__}.{self.kind.__name__}"
        if metadata["class"] != expected:
            raise DataError(f"{path!r} holds a {metadata['class']}, not a {expected}. Load it with its own class.")
        row = self.sparkSession.read.parquet(f"{path}/data").first()
        if row is None:
            raise DataError(f"{path!r} has no coefficients: it was not written completely. Save the model again.")
        return restored(self.kind, metadata, row)


def table_of(model: Any) -> pa.Table:
    """Return a linear model's numbers as a table of one row."""
    matrix, intercept = model.arrays
    return pa.table(
        {
            "rows": pa.array([matrix.shape[0]], pa.int32()),
            "columns": pa.array([matrix.shape[1]], pa.int32()),
            "coefficients": [matrix.ravel()],
            "intercept": [intercept],
            "constants": [model.auxiliary],
        }
    )


def restored(kind: type[M], metadata: dict[str, Any], row: Any) -> M:
    """Return the model whose metadata and row of numbers these are."""
    matrix: Floats = np.array(row["coefficients"], dtype=np.float64).reshape(row["rows"], row["columns"])
    intercept, auxiliary = (np.array(row[name], dtype=np.float64) for name in ("intercept", "constants"))
    model = kind(matrix, intercept, auxiliary)  # type: ignore[call-arg]
    params: Any = model
    params._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(params, metadata)
    return model
