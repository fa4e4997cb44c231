"""Models on disk: metadata as JSON, coefficients as Parquet; nothing is unpickled.

The layout is pyspark.ml's: ``metadata/`` holds one JSON line with class, uid and parameters, ``data/`` the numbers.
Any path that Spark can write works; without Spark, any that `sparkopt.io.resolve` knows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, GeneralMLWriter, MLReadable

from sparkopt import __version__
from sparkopt.errors import DataError
from sparkopt.io.arrow import array_of, list_of, text_of
from sparkopt.io.metadata import check_digest, digested
from sparkopt.ml.online import OnlineState, restored_state
from sparkopt.ml.pmml import regression_pmml
from sparkopt.ml.pyspark_models import PYSPARK_MODELS, class_for_pyspark, of_pyspark, write_for_pyspark
from sparkopt.ml.saving import OwnWriter, StageReader
from sparkopt.typing import Floats
from sparkopt.validation import OneOf, check

__all__ = ["GeneralModelWriter", "ModelReader", "ModelWriter", "numbers_of", "restored", "table_of"]

M = TypeVar("M", bound="MLReadable[Any]")
W = TypeVar("W", bound="ModelWriter")


class ModelWriter(OwnWriter):
    """Writes a linear model, in sparkopt's format or another.

    Parameters
    ----------
    model : LinearModel
        The model.
    """

    formats: ClassVar[tuple[str, ...]] = ("internal", "pyspark")

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.source = "internal"

    def format(self: W, source: str) -> W:
        """Choose "internal", which ``load`` reads, or a format for other software.

        "pyspark" is that of pyspark.ml's own model, which Spark loads in every language, and ``load`` too.

        Raises
        ------
        ParameterError
            For any other format.
        IncompatibleError
            For "pyspark", where pyspark.ml has no such model.
        """
        self.source = check("format", source.lower(), OneOf(list(self.formats)))
        if self.source == "pyspark":
            class_for_pyspark(self.model)  # now, before what is to be overwritten is deleted
        return self

    def saveImpl(self, path: str) -> None:
        """Write ``metadata`` and ``data`` below ``path``."""
        spark, model = self.sparkSession, self.model
        if self.source == "pyspark":
            write_for_pyspark(model, path, spark)
            return
        DefaultParamsWriter.saveMetadata(model, path, spark, digested(model, spark, numbers_of(model)))
        spark.createDataFrame(table_of(model)).coalesce(1).write.parquet(f"{path}/data")


class ModelReader(StageReader[M], Generic[M]):
    """Reads a linear model, of sparkopt or of pyspark.ml."""

    def _load(self, path: str) -> M:
        metadata = self._metadata(path)
        expected = f"{self.kind.__module__}.{self.kind.__name__}"
        is_pysparks = PYSPARK_MODELS.get(metadata["class"]) == expected
        if metadata["class"] != expected and not is_pysparks:
            raise DataError(f"{path!r} holds a {metadata['class']}, not a {expected}. Load it with its own class.")
        row = self.sparkSession.read.parquet(f"{path}/data").first()
        if row is None:
            raise DataError(f"{path!r} has no coefficients: it was not written completely. Save the model again.")
        found: M = (of_pyspark if is_pysparks else restored)(self.kind, metadata, row)
        return found


class GeneralModelWriter(ModelWriter, GeneralMLWriter):
    """Writes a linear regression, in sparkopt's format or another; "pmml" too."""

    formats = ("internal", "pyspark", "pmml")

    def saveImpl(self, path: str) -> None:
        """Write the model, or a text file with its PMML."""
        if self.source != "pmml":
            super().saveImpl(path)
            return
        model, features = self.model, self.model._features()
        if isinstance(features, str):  # pyspark.ml's names
            names, target = [f"field_{i}" for i in range(model.numFeatures)], "target"
        else:
            names, target = features, model.getLabelCol()
        text = regression_pmml(names, target, model.coefficients.toArray(), model.intercept, __version__)
        self.sparkSession.createDataFrame(pa.table({"value": [text]})).coalesce(1).write.text(path)


def table_of(model: Any) -> pa.Table:
    """Return a linear model's numbers as a table of one row."""
    matrix, intercept = model.arrays
    columns = {
        "rows": array_of(np.array([matrix.shape[0]], np.int32)),
        "columns": array_of(np.array([matrix.shape[1]], np.int32)),
        "coefficients": list_of(array_of(matrix.ravel())),
        "intercept": list_of(array_of(intercept)),
        "constants": list_of(array_of(model.auxiliary)),
        "names": list_of(text_of(model.featureNames)),
    }
    if model.onlineState is not None:
        columns["online"] = pa.array([model.onlineState.to_bytes()], pa.binary())
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def numbers_of(model: Any) -> list[bytes]:
    """Return what the digest covers of a linear model's numbers."""
    matrix, intercept = model.arrays
    return _numbers(matrix, intercept, model.auxiliary, model.onlineState)


def _numbers(matrix: Floats, intercept: Floats, auxiliary: Floats, state: OnlineState | None = None) -> list[bytes]:
    """Return what the digest covers of a model's numbers: their shapes and bits."""
    arrays = (matrix, intercept, auxiliary)
    shapes = str([array.shape for array in arrays]).encode()
    online = [] if state is None else [str(state.coef.tolist()).encode()]
    return [shapes, *(np.ascontiguousarray(array, dtype="<f8").tobytes() for array in arrays), *online]


def restored(kind: type[M], metadata: dict[str, Any], row: Any) -> M:
    """Return the model whose metadata and row of numbers these are."""
    matrix: Floats = np.array(row["coefficients"], dtype=np.float64).reshape(row["rows"], row["columns"])
    intercept, auxiliary = (np.array(row[name], dtype=np.float64) for name in ("intercept", "constants"))
    state = restored_state(row if isinstance(row, dict) else row.asDict())
    check_digest(metadata, _numbers(matrix, intercept, auxiliary, state))
    model = kind(matrix, intercept, auxiliary)  # type: ignore[call-arg]
    params: Any = model
    params.onlineState = state
    params._names = tuple(row["names"] or ()) if "names" in row else ()  # models of earlier versions have none
    params._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(params, metadata)
    return model
