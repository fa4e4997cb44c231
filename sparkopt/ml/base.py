"""What every linear estimator and model does: read parameters, train, score in Arrow batches, save."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.ml import Estimator, Model
from pyspark.ml.linalg import Vector, VectorUDT
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.functions import arrow_udf
from pyspark.sql.types import DataType, DoubleType, StructType

from sparkopt.blocks.columns import feature_matrix, features_column
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.cluster.choose import by_name as engine_by_name
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.losses import Loss
from sparkopt.ml.params import LinearParams
from sparkopt.ml.persistence import ModelReader, ModelWriter
from sparkopt.ml.summary import Summary, TrainingSummary
from sparkopt.optim import Optimizer, by_name, schedules
from sparkopt.penalties import ElasticNet, NoPenalty, Penalty
from sparkopt.solve import Callback, Stop, check_compatible
from sparkopt.trainer import Fit, Trainer
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["LinearEstimator", "LinearModel"]

M = TypeVar("M", bound="LinearModel[Any]")
E = TypeVar("E", bound="LinearEstimator[Any]")
S = TypeVar("S", bound=TrainingSummary)


class LinearEstimator(
    Estimator[M], LinearParams, DefaultParamsWritable, DefaultParamsReadable["LinearEstimator[Any]"], Generic[M]
):
    """Trains a linear model; subclasses say which loss.

    Attributes
    ----------
    callbacks : sequence of Callback
        Called after each step; a true result stops the fit. Not a parameter: it is neither saved nor copied to disk.
    """

    callbacks: Sequence[Callback] = ()
    _scale_target = False

    def setLabelCol(self: E, value: str) -> E:
        """Set the column of targets."""
        return self._set(labelCol=value)

    def setWeightCol(self: E, value: str) -> E:
        """Set the column of row weights."""
        return self._set(weightCol=value)

    def setMaxIter(self: E, value: int) -> E:
        """Set the most steps."""
        return self._set(maxIter=value)

    def setTol(self: E, value: float) -> E:
        """Set the relative change of the objective that ends the fit."""
        return self._set(tol=value)

    def setRegParam(self: E, value: float) -> E:
        """Set the strength of the penalty."""
        return self._set(regParam=value)

    def setElasticNetParam(self: E, value: float) -> E:
        """Set the share of L1 in the penalty."""
        return self._set(elasticNetParam=value)

    def setFitIntercept(self: E, value: bool) -> E:
        """Set whether there is an intercept."""
        return self._set(fitIntercept=value)

    def setStandardization(self: E, value: bool) -> E:
        """Set whether the penalty is on the coefficients of standardised features."""
        return self._set(standardization=value)

    def setStepSize(self: E, value: float) -> E:
        """Set the learning rate."""
        return self._set(stepSize=value)

    def setStepSizeSchedule(self: E, value: str) -> E:
        """Set how the learning rate changes over the steps."""
        return self._set(stepSizeSchedule=value)

    def setSeed(self: E, value: int) -> E:
        """Set what determines the rows that mini-batches draw."""
        return self._set(seed=value)

    def setAggregationDepth(self: E, value: int) -> E:
        """Set the levels of the aggregation tree."""
        return self._set(aggregationDepth=value)

    def setOptimizer(self: E, value: str) -> E:
        """Set the method by name."""
        return self._set(optimizer=value)

    def setMiniBatchFraction(self: E, value: float) -> E:
        """Set the share of the rows that a step draws."""
        return self._set(miniBatchFraction=value)

    def setEngine(self: E, value: str) -> E:
        """Set where the loop runs."""
        return self._set(engine=value)

    @property
    @abstractmethod
    def _targets(self) -> Interval:
        """What a label may be, as far as it is known before the data is read."""

    @abstractmethod
    def _loss(self, moments: Moments) -> Loss:
        """Return the loss for targets like these."""

    @abstractmethod
    def _model(self, fit: Fit) -> M:
        """Return the model of what was trained."""

    def _fit(self, dataset: DataFrame) -> M:
        self._check_params()
        optimizer, penalty = self._optimizer(), self._penalty()
        check_compatible(optimizer, penalty, is_exact=self.getMiniBatchFraction() == 1.0)
        with BlockStore.write(dataset, self._columns(), self._targets) as store:
            trainer = Trainer(
                loss=self._loss(store.moments),
                optimizer=optimizer,
                penalty=penalty,
                stop=Stop(self.getMaxIter(), self.getTol()),
                fit_intercept=self.getFitIntercept(),
                standardization=self.getStandardization(),
                scale_target=self._scale_target,
                mini_batch_fraction=self.getMiniBatchFraction(),
                seed=self.getSeed(),
                aggregator=engine_by_name(self.getEngine(), self.getAggregationDepth()),
                callbacks=self.callbacks,
            )
            fit = trainer.fit(store)
        model = self._copyValues(self._model(fit))
        model._summarise(dataset, fit)
        return model

    def _optimizer(self) -> Optimizer:
        name = self.getOptimizer()
        if name == "auto":
            name = "lbfgs" if self._penalty().smooth else "fista"
        schedule = self.getStepSizeSchedule()
        if not self.isDefined(self.stepSize):
            if schedule != "constant":
                raise ParameterError(f"stepSizeSchedule={schedule!r} needs a stepSize to start from: set stepSize.")
            return by_name(name)
        return by_name(name, schedules.by_name(schedule, self.getStepSize(), max(1, self.getMaxIter())))

    def _penalty(self) -> Penalty:
        strength = self.getRegParam()
        return ElasticNet(strength, self.getElasticNetParam()) if strength > 0 else NoPenalty()


class LinearModel(Model, LinearParams, MLWritable, MLReadable["LinearModel[Any]"], Generic[S]):
    """Coefficients and what to do with them.

    Parameters
    ----------
    matrix : ndarray of shape (outputs, features)
        Coefficients in the user's units.
    intercept : ndarray of shape (outputs,)
        Intercepts.
    """

    def __init__(self, matrix: Floats, intercept: Floats) -> None:
        super().__init__()
        # rows of a matrix in another memory order are rounded otherwise: one order, so that a loaded model predicts
        # to the last bit what the fitted one did
        self._matrix, self._intercept = np.ascontiguousarray(matrix), intercept
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
        features = features_column(dataset.schema, self._features())
        scored = dataset.withColumn(SCORES, self._scorer(columns)(features))
        return scored.select(
            *[F.col(f"`{name}`") for name in dataset.columns],
            *[F.col(f"{SCORES}.{key}").alias(name) for key, (name, _) in columns.items()],
        )

    def _scorer(self, columns: dict[str, tuple[str, DataType]]) -> Any:
        """Return an Arrow UDF from features to a struct of the output columns: one pass for all of them."""
        scored = StructType()
        for key, (_, kind) in columns.items():
            scored = scored.add(key, kind)
        model = self.copy()
        model._summary = None  # history stays on the driver
        raw, outputs = model._raw, model._outputs

        def score(features: pa.Array) -> pa.Array:
            found = outputs(raw(feature_matrix(features)))
            return pa.StructArray.from_arrays([to_arrow(found[key]) for key in columns], list(columns))

        score.__annotations__ = {"features": pa.Array, "return": pa.Array}
        return arrow_udf(score, scored)  # type: ignore[call-overload]  # its stubs lack struct results

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``Model.read().load(path)``."""
        return ModelReader(cls)


SCORES = "__sparkopt_scores"


def to_arrow(values: Array) -> pa.Array:
    """Return numbers (n,) as doubles, or rows (n, k) as Spark's dense Vectors."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        return pa.array(values)
    n, k = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    return pa.StructArray.from_arrays(
        [
            pa.array(np.ones(n, np.int8)),
            pa.nulls(n, pa.int32()),
            pa.nulls(n, pa.list_(pa.int32())),
            pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1))),
        ],
        ["type", "size", "indices", "values"],
    )


NUMBER, VECTOR = DoubleType(), VectorUDT()
