"""Multilayer perceptrons: small networks of sigmoid layers, trained like the linear models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparkopt.blocks.moments import Moments
from sparkopt.errors import ParameterError
from sparkopt.losses import Loss, MultilayerPerceptron, Multinomial, SquaredError
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.class_weights import FROM_0, ClassWeightSetters
from sparkopt.ml.classification_params import ProbabilityParams
from sparkopt.ml.model import LinearModel
from sparkopt.ml.projections import (
    ClassModel,
    NumberModel,
    ProjectionEstimator,
    ProjectionModel,
    SolverParams,
)
from sparkopt.ml.scores import LayerScores, Scores
from sparkopt.ml.summary.base import TrainingSummary
from sparkopt.ml.summary.classification import (
    MultilayerPerceptronClassificationSummary,
    MultilayerPerceptronClassificationTrainingSummary,
)
from sparkopt.ml.summary.regression import RegressionSummary, RegressionTrainingSummary
from sparkopt.ml.training import TrainingTask
from sparkopt.ml.warm_start import split_weights
from sparkopt.training.trainer import Fit
from sparkopt.typing import Floats
from sparkopt.validation import Constraint, Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "MultilayerPerceptronClassificationModel",
    "MultilayerPerceptronClassifier",
    "MultilayerPerceptronRegressionModel",
    "MultilayerPerceptronRegressor",
]

S = TypeVar("S", bound=TrainingSummary)
M = TypeVar("M", bound=LinearModel[Any])
E = TypeVar("E", bound="_Perceptron[Any]")

LAYERS = "the numbers of units in the layers: features, hidden layers, and "


class _PerceptronParams(SolverParams):
    layers: Param[list[int]] = Param(
        Params._dummy(),
        "layers",
        f"{LAYERS}classes, or 1 in a regression",
        typeConverter=TypeConverters.toListInt,
    )
    blockSize: Param[int] = Param(
        Params._dummy(),
        "blockSize",
        "pyspark.ml's number of rows in a block; without effect here",
        typeConverter=TypeConverters.toInt,
    )
    initialWeights: Param[list[float]] = Param(
        Params._dummy(),
        "initialWeights",
        "all weights at the start, in pyspark.ml's order",
        typeConverter=TypeConverters.toListFloat,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(blockSize=128)

    def getLayers(self) -> list[int]:
        """Return layers.

        Raises
        ------
        ParameterError
            Where they are not set.
        """
        if not self.isDefined(self.layers):
            raise ParameterError(f"layers must be set, to {LAYERS}classes, or 1 in a regression: layers=[4, 8, 3].")
        return self.getOrDefault(self.layers)

    def getBlockSize(self) -> int:
        """Return blockSize."""
        return self.getOrDefault(self.blockSize)

    def getInitialWeights(self) -> DenseVector:
        """Return initialWeights."""
        return DenseVector(self.getOrDefault(self.initialWeights))

    def _domains(self) -> Mapping[str, Constraint]:
        return {
            **super()._domains(),
            "blockSize": Interval(1, None, whole=True),
        }


class _PerceptronModel(ProjectionModel[S], _PerceptronParams):
    """The weights of a network."""

    @property
    def weights(self) -> DenseVector:
        """All weights in pyspark.ml's order: of each layer the matrix, input by input, then the biases."""
        return DenseVector(np.concatenate([self._matrix.T.ravel(), self._intercept, self.auxiliary]))

    @property
    def layerWeights(self) -> list[tuple[Floats, Floats]]:
        """Weights (inputs, units) and biases (units,) of each layer."""
        found, rest, width = [(self._matrix.T, self._intercept)], self.auxiliary, len(self._intercept)
        for units in self.getLayers()[2:]:
            matrix, bias, rest = np.split(rest, [width * units, (width + 1) * units])
            found.append((matrix.reshape(width, units), bias))
            width = units
        return found

    def _facts(self) -> dict[str, Any]:
        return {"numLayers": len(self.getLayers()), **super()._facts()}

    @property
    def _scores(self) -> Scores:
        others = [(np.ascontiguousarray(weights.T), bias) for weights, bias in self.layerWeights[1:]]
        return LayerScores(self._matrix, self._response, self._intercept, others)


class MultilayerPerceptronClassificationModel(
    _PerceptronModel[MultilayerPerceptronClassificationTrainingSummary],
    ClassModel[MultilayerPerceptronClassificationTrainingSummary],
):
    """Weights of a network with an output for each class."""

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return self.getLayers()[-1]

    def evaluate(self, dataset: DataFrame) -> MultilayerPerceptronClassificationSummary:
        return MultilayerPerceptronClassificationSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[MultilayerPerceptronClassificationTrainingSummary]:
        return MultilayerPerceptronClassificationTrainingSummary


class MultilayerPerceptronRegressionModel(
    _PerceptronModel[RegressionTrainingSummary], NumberModel[RegressionTrainingSummary]
):
    """Weights of a network with one output."""

    def evaluate(self, dataset: DataFrame) -> RegressionSummary:
        return RegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[RegressionTrainingSummary]:
        return RegressionTrainingSummary


class _Perceptron(ProjectionEstimator[M], _PerceptronParams, Generic[M]):
    _units: int | None = None  # of the last layer, where there is one answer

    def setLayers(self: E, value: Sequence[int]) -> E:
        """Set the numbers of units in the layers."""
        return self._set(layers=list(value))

    def setBlockSize(self: E, value: int) -> E:
        """Set pyspark.ml's number of rows in a block, which changes nothing here."""
        return self._set(blockSize=value)

    def setInitialWeights(self: E, value: Any) -> E:
        """Set all weights at the start: a Vector or a list, in pyspark.ml's order."""
        return self._set(initialWeights=value)

    def _check_params(self) -> None:
        super()._check_params()
        layers = self.getLayers()
        if len(layers) < 2 or min(layers) < 1 or (self._units or layers[-1]) != layers[-1]:
            last = "1" if self._units else "the number of classes"
            raise ParameterError(
                f"layers must be at least two positive numbers, the first that of features and the last {last}. Got "
                f"{layers} instead."
            )
        if self.initialModel is not None and (given := self.initialModel.getLayers()) != layers:
            raise ParameterError(
                f"initialModel has layers={given}, and layers is {layers}. Set layers={given}, or start without "
                "initialModel."
            )
        if not self.isDefined(self.initialWeights):
            return
        needed, found = (
            sum((a + 1) * b for a, b in itertools.pairwise(layers)),
            self.getInitialWeights(),
        )
        if len(found) != needed:
            raise ParameterError(f"initialWeights must have {needed} entries for layers={layers}. Got {len(found)}.")
        if self.initialModel is not None:
            raise ParameterError("initialModel and initialWeights both say where to start. Set one of them.")

    def _task(self, schema: StructType) -> TrainingTask[M]:
        task = super()._task(schema)
        if not self.isDefined(self.initialWeights):
            return task
        return replace(task, initial=split_weights(self.getInitialWeights().toArray(), self.getLayers()))

    def _network(self, base: Loss, moments: Moments) -> Loss:
        layers = self.getLayers()
        if moments.features != layers[0]:
            raise ParameterError(
                f"layers begins with {layers[0]}, and the rows have {moments.features} features. Set "
                f"layers={[moments.features, *layers[1:]]}."
            )
        return MultilayerPerceptron(base, tuple(layers[1:]), self.getSeed())


@documented
class MultilayerPerceptronClassifier(
    _Perceptron[MultilayerPerceptronClassificationModel], ProbabilityParams, ClassWeightSetters
):
    """Classification by a network with sigmoid hidden layers and a softmax output (Rumelhart et al., 1986).

    pyspark.ml's network and objective: the mean cross-entropy, over all rows by L-BFGS, or with mini-batches by Adam;
    and regParam · ½ the squared weights. Features are scaled and centred on the way, and the model takes them as they
    are. The objective is not convex: another seed may lead to another optimum. For networks of any other kind see
    `sparkopt.deep`.

    Parameters
    ----------
    layers : list of int
        Units of each layer: the features, the hidden layers, and the classes. Must be set.
    blockSize : int, default 128
        Taken as pyspark.ml takes it, and without effect: blocks have the size of a core's cache.
    solver : {"auto", "gd", "adamW", "l-bfgs"}, default "auto"
        The method under pyspark.ml's name, in place of ``optimizer``.
    initialWeights : Vector or list of float, optional
        All weights at the start, in the order of the model's ``weights``; by default ``seed`` determines them.
    thresholds : list of float, optional
        One number for each class: the class of the largest probability / threshold is predicted.
    rawPredictionCol : str, default "rawPrediction"
        Output column of raw predictions.
    probabilityCol : str, default "probability"
        Output column of class probabilities.
    classWeights : "balanced", list or dict of float, optional
        Factors of the row weights by label; "balanced" gives all classes the same weight.
    {shared}

    Examples
    --------
    >>> from sparkopt.ml import MultilayerPerceptronClassifier
    >>> network = MultilayerPerceptronClassifier(featuresCols=["x1", "x2"], layers=[2, 4, 2], regParam=0.01)
    >>> model = network.setMaxIter(2000).fit(df)
    >>> len(model.weights), model.evaluate(held_out).accuracy > 0.6
    (22, True)
    """

    @keyword_only
    def __init__(
        self,
        *,
        layers: list[int] | None = None,
        blockSize: int = 128,
        solver: str = "auto",
        initialWeights: Any = None,
        thresholds: list[float] | None = None,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        classWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        layers: list[int] | None = None,
        blockSize: int = 128,
        solver: str = "auto",
        initialWeights: Any = None,
        thresholds: list[float] | None = None,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        classWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> MultilayerPerceptronClassifier:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    @property
    def _model_name(self) -> str:
        return MultilayerPerceptronClassificationModel.__name__

    @property
    def _targets(self) -> Interval:
        return Interval(0, self.getLayers()[-1] - 1, whole=True)

    @property
    def _label_hint(self) -> str:
        return f"{FROM_0} The last of layers is their number."

    def _check_params(self) -> None:
        super()._check_params()
        if self.getLayers()[-1] < 2:
            raise ParameterError(f"layers must end with the number of classes, 2 or more. Got {self.getLayers()}.")
        self._thresholds_of(self.getLayers()[-1])

    def _loss(self, moments: Moments) -> Loss:
        return self._network(Multinomial(self.getLayers()[-1]), moments)

    def _model(self, fit: Fit) -> MultilayerPerceptronClassificationModel:
        return MultilayerPerceptronClassificationModel(fit.coefficients.T, fit.intercept, fit.auxiliary)


@documented
class MultilayerPerceptronRegressor(_Perceptron[MultilayerPerceptronRegressionModel]):
    """Regression by a network with sigmoid hidden layers and one linear output (Rumelhart et al., 1986).

    Minimises mean ½ (label − prediction)² + regParam · ½ the squared weights, over all rows by L-BFGS, or with
    mini-batches by Adam. Features are scaled and centred on the way, and the model takes them as they are; labels are
    not: divide large ones by their size. The objective is not convex: another seed may lead to another optimum.

    Parameters
    ----------
    layers : list of int
        Units of each layer: the features, the hidden layers, and 1. Must be set.
    blockSize : int, default 128
        Taken as pyspark.ml takes it in its classifier, and without effect.
    solver : {"auto", "gd", "adamW", "l-bfgs"}, default "auto"
        The method under pyspark.ml's name, in place of ``optimizer``.
    initialWeights : Vector or list of float, optional
        All weights at the start, in the order of the model's ``weights``; by default ``seed`` determines them.
    {shared}

    Examples
    --------
    >>> from sparkopt.ml import MultilayerPerceptronRegressor
    >>> network = MultilayerPerceptronRegressor(featuresCols=["x1", "x2"], labelCol="minutes", layers=[2, 4, 1])
    >>> network.setRegParam(0.01).setMaxIter(2000).fit(df).summary.r2 > 0
    True
    """

    _units = 1

    @keyword_only
    def __init__(
        self,
        *,
        layers: list[int] | None = None,
        blockSize: int = 128,
        solver: str = "auto",
        initialWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        layers: list[int] | None = None,
        blockSize: int = 128,
        solver: str = "auto",
        initialWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> MultilayerPerceptronRegressor:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    @property
    def _model_name(self) -> str:
        return MultilayerPerceptronRegressionModel.__name__

    @property
    def _targets(self) -> Interval:
        return SquaredError().targets

    def _loss(self, moments: Moments) -> Loss:
        return self._network(SquaredError(), moments)

    def _model(self, fit: Fit) -> MultilayerPerceptronRegressionModel:
        return MultilayerPerceptronRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)
