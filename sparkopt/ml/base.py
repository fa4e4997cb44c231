"""What every linear estimator and model does: read parameters, train, score in Arrow batches, save."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.ml import Estimator, Model
from pyspark.ml.linalg import DenseVector, Vector, VectorUDT
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.functions import arrow_udf
from pyspark.sql.types import DataType, DoubleType, StructType

from sparkopt.blocks.columns import feature_matrix, features_column
from sparkopt.blocks.moments import Moments
from sparkopt.checkpoint import Checkpointer
from sparkopt.cluster.choose import by_name as engine_by_name
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.losses import Loss
from sparkopt.ml.params import LinearParams
from sparkopt.ml.persistence import ModelReader, ModelWriter
from sparkopt.ml.summary import Summary, TrainingSummary
from sparkopt.ml.training import Serial, train
from sparkopt.ml.warm_start import coefficients_of, require_kind
from sparkopt.optim import Optimizer, by_name, schedules
from sparkopt.penalties import ElasticNet, NoPenalty, Penalty
from sparkopt.solve import Callback, Stop, check_compatible
from sparkopt.trainer import Fit, Initial, Trainer
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["NUMBER", "VECTOR", "LinearEstimator", "LinearModel", "ScalarModel"]

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
        Called after each step; a true result stops the fit.
    initialModel : model of the same kind, or None
        Where to start; None starts without coefficients.

    Both stay with copies, and so in pipelines and searches, but not on disk: set them again after loading.
    """

    callbacks: Sequence[Callback] = ()
    initialModel: Any = None

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

    def setValidationIndicatorCol(self: E, value: str) -> E:
        """Set the boolean column that is true in validation rows."""
        return self._set(validationIndicatorCol=value)

    def setPatience(self: E, value: int) -> E:
        """Set how many looks at the validation rows may pass without a lower loss."""
        return self._set(patience=value)

    def setMinDelta(self: E, value: float) -> E:
        """Set how far the validation loss must fall to count."""
        return self._set(minDelta=value)

    def setCheckpointDir(self: E, value: str) -> E:
        """Set the folder of checkpoints."""
        return self._set(checkpointDir=value)

    def setCheckpointInterval(self: E, value: int) -> E:
        """Set the steps between checkpoints."""
        return self._set(checkpointInterval=value)

    @property
    def _scale_target(self) -> bool:
        """Whether to minimise over the target divided by its standard deviation."""
        return False

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

    def setCallbacks(self: E, value: Sequence[Callback]) -> E:
        """Set what is called after each step, in order."""
        self.callbacks = tuple(value)
        return self

    def setInitialModel(self: E, value: Any) -> E:
        """Set a model to start from: of the same kind, fitted or loaded, ours or pyspark.ml's; None starts anew.

        Raises
        ------
        ParameterError
            For a model of another kind.
        """
        if value is not None:
            require_kind(self, value)
        self.initialModel = value
        return self

    def fitMultiple(self, dataset: DataFrame, paramMaps: Sequence[Any]) -> Serial[tuple[int, M]]:
        """Fit one model for each param map; those that differ only in what is named below share every pass.

        These are regParam, elasticNetParam, optimizer, stepSize, stepSizeSchedule, maxIter, tol, patience, minDelta,
        thresholds and output columns. CrossValidator and TrainValidationSplit call this by themselves.

        Parameters
        ----------
        dataset : DataFrame
            The rows.
        paramMaps : sequence of dict
            Parameters and their values, for each model.

        Returns
        -------
        iterator of (int, model)
            Number of the param map, and its model; threads may share it.
        """
        estimators = [self.copy(values) for values in paramMaps]
        for estimator in estimators:
            estimator._check()
        return Serial(train(dataset, estimators))

    def _fit(self, dataset: DataFrame) -> M:
        self._check()
        ((_, model),) = train(dataset, [self])
        return model

    def _check(self) -> None:
        """Refuse what cannot be fitted, before any job."""
        self._check_params()
        check_compatible(self._optimizer(), self._penalty(), is_exact=self.getMiniBatchFraction() == 1.0)

    def _trainer(self, moments: Moments) -> Trainer:
        """Return the parameters, joined."""
        return Trainer(
            loss=self._loss(moments),
            optimizer=self._optimizer(),
            penalty=self._penalty(),
            stop=Stop(self.getMaxIter(), self.getTol(), patience=self.getPatience(), min_delta=self.getMinDelta()),
            fit_intercept=self.getFitIntercept(),
            standardization=self.getStandardization(),
            scale_target=self._scale_target,
            mini_batch_fraction=self.getMiniBatchFraction(),
            seed=self.getSeed(),
            aggregator=engine_by_name(self.getEngine(), self.getAggregationDepth()),
            callbacks=self.callbacks,
            checkpointer=self._checkpointer(),
        )

    def _initial(self) -> Initial | None:
        return None if self.initialModel is None else coefficients_of(self.initialModel)

    def _checkpointer(self) -> Checkpointer | None:
        interval = self.getCheckpointInterval()
        kept = self.isDefined(self.checkpointDir) and self.getCheckpointDir() and interval > 0
        return Checkpointer(self.getCheckpointDir(), interval) if kept else None

    @property
    def _class_weights(self) -> Any:
        """The parameter classWeights of classifiers, or None."""
        weighs = self.hasParam("classWeights") and self.isDefined("classWeights")
        return self.getOrDefault("classWeights") if weighs else None

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
