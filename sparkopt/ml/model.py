"""What every linear model does: holds coefficients, scores rows in Arrow batches, and is saved as data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.ml import Model
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector, Vector, VectorUDT
from pyspark.ml.util import MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.functions import arrow_udf
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructType

from sparkopt.blocks.columns import column_type, feature_matrix, features_column, quoted
from sparkopt.errors import DataError, SchemaError
from sparkopt.ml.params import LinearParams
from sparkopt.ml.persistence import ModelReader, ModelWriter
from sparkopt.ml.summary import Summary, TrainingSummary
from sparkopt.trainer import Fit
from sparkopt.typing import Array, Floats

__all__ = ["NUMBER", "VECTOR", "LinearModel", "ScalarModel"]

S = TypeVar("S", bound=TrainingSummary)

SCORES = "__sparkopt_scores"
NUMBER, VECTOR = DoubleType(), VectorUDT()


class LinearModel(Model, LinearParams, MLWritable, MLReadable["LinearModel[Any]"], Generic[S]):
    """Coefficients and what to do with them.

    Parameters
    ----------
    matrix : ndarray of shape (outputs, features)
        Coefficients in the user's units.
    intercept : ndarray of shape (outputs,)
        Intercepts.
    constants : ndarray of shape (constants,), optional
        Parameters of the loss that were fitted along.
    """

    def __init__(self, matrix: Floats, intercept: Floats, constants: Floats | None = None) -> None:
        super().__init__()
        # rows of a matrix in another memory order are rounded otherwise: one order, so that a loaded model predicts
        # to the last bit what the fitted one did
        self._matrix, self._intercept = np.ascontiguousarray(matrix), intercept
        self.constants = np.zeros(0) if constants is None else constants
        self._summary: S | None = None

    @property
    def arrays(self) -> tuple[Floats, Floats]:
        """Coefficients (outputs, features) and intercepts (outputs,) as arrays."""
        return self._matrix, self._intercept

    @property
    def numFeatures(self) -> int:
        """Number of features."""
        return self._matrix.shape[1]

    @property
    def hasSummary(self) -> bool:
        """Whether the model comes straight from ``fit`` and not from disk."""
        return self._summary is not None

    @property
    def summary(self) -> S:
        """How the training went, and how good the predictions on its rows are.

        Raises
        ------
        AttributeError
            For a model that was loaded.
        """
        if self._summary is None:
            raise AttributeError("this model has no summary: it was not trained in this session.")
        return self._summary

    def _summarise(self, dataset: DataFrame, fit: Fit) -> None:
        """Remember how the model was trained, and on what."""
        solution = fit.solution
        self._summary = self._training_summary(
            model=self.copy(),
            dataset=dataset,
            objectiveHistory=[record.objective for record in solution.history],
            validationHistory=[record.validation for record in solution.history],
            totalIterations=solution.iterations,
            converged=solution.converged,
            receipt=fit.receipt,
        )

    @property
    @abstractmethod
    def _training_summary(self) -> type[S]:
        """What ``summary`` is."""

    @abstractmethod
    def evaluate(self, dataset: DataFrame) -> Summary:
        """Return how good the predictions on these rows are; nothing is computed until a metric is asked for.

        Parameters
        ----------
        dataset : DataFrame
            Rows with features, label and, where the model was trained with them, weights.
        """

    def predict(self, value: Vector) -> float:
        """Return the prediction for one row's features."""
        X = value.toArray()[None, :]
        return float(self._outputs(self._raw(X))["prediction"][0])

    @abstractmethod
    def _outputs(self, raw: Array) -> dict[str, Array]:
        """Return the output columns of raw predictions (n, outputs): (n,) for numbers, (n, k) for vectors."""

    @abstractmethod
    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        """Return name and type of the wanted output columns, by the keys of ``_outputs``."""

    def _raw(self, X: Any) -> Array:
        """Return raw predictions (n, outputs)."""
        if X.shape[1] != self.numFeatures:
            raise DataError(f"a row has {X.shape[1]} features; the model was trained on {self.numFeatures}.")
        return np.asarray(X @ self._matrix.T) + self._intercept

    def _transform(self, dataset: DataFrame) -> DataFrame:
        columns = {key: column for key, column in self._output_columns().items() if column[0]}
        for name, _ in columns.values():
            if name in dataset.columns:
                raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")
        rows, offset = features_column(dataset.schema, self._features()), self._columns().offset
        if offset is not None:
            column_type(dataset.schema, offset, "offset")
            rows = F.struct(rows.alias("features"), F.col(quoted(offset)).cast("double").alias("offset"))
        scored = dataset.withColumn(SCORES, self._scorer(columns, has_offset=offset is not None)(rows))
        return scored.select(
            *[F.col(f"`{name}`") for name in dataset.columns],
            *[_as(kind, F.col(f"{SCORES}.{key}")).alias(name) for key, (name, kind) in columns.items()],
        )

    def _scorer(self, columns: dict[str, tuple[str, DataType]], *, has_offset: bool) -> Any:
        """Return an Arrow UDF from features to a struct of the output columns: one pass for all of them.

        With an offset it takes a struct of both.
        """
        scored = StructType()
        for key, (_, kind) in columns.items():
            # as arrays, since Spark 4.3 cannot take Vectors from a UDF over columnar input (Parquet, cached rows)
            scored = scored.add(key, ArrayType(NUMBER) if kind == VECTOR else kind)
        model = self.copy()
        model._summary = None  # history stays on the driver
        raw, outputs = model._raw, model._outputs

        def score(rows: pa.Array) -> pa.Array:
            predicted = raw(feature_matrix(rows.field("features") if has_offset else rows))
            if has_offset:
                predicted = predicted + rows.field("offset").to_numpy(zero_copy_only=False)[:, None]
            found = outputs(predicted)
            return pa.StructArray.from_arrays([to_arrow(found[key]) for key in columns], list(columns))

        score.__annotations__ = {"rows": pa.Array, "return": pa.Array}
        return arrow_udf(score, scored)  # type: ignore[call-overload]  # its stubs lack struct results

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``Model.read().load(path)``."""
        return ModelReader(cls)


class ScalarModel(LinearModel[S]):
    """A model of one raw prediction a row."""

    @property
    def coefficients(self) -> DenseVector:
        """Coefficients, one per feature."""
        return DenseVector(self._matrix[0])

    @property
    def intercept(self) -> float:
        """Intercept; 0 without one."""
        return float(self._intercept[0])

    def _outputs(self, raw: Array) -> dict[str, Array]:
        return {"prediction": raw[:, 0]}

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {"prediction": (self.getPredictionCol(), NUMBER)}


def _as(kind: DataType, scored: Column) -> Column:
    """Return a column of scores in its own type."""
    return array_to_vector(scored) if kind == VECTOR else scored


def to_arrow(values: Array) -> pa.Array:
    """Return numbers (n,) as doubles, or rows (n, k) as lists of them."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        return pa.array(values)
    n, k = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1)))
