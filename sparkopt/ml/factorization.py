"""Factorisation machines: regression and classification with interactions of all pairs of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame

from sparkopt.blocks.moments import Moments
from sparkopt.errors import ParameterError
from sparkopt.losses import FactorizationMachine, Logistic, Loss, SquaredResidual
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
from sparkopt.ml.responses import OppositeShares, Response
from sparkopt.ml.scores import FactorScores, Scores
from sparkopt.ml.summary.base import TrainingSummary
from sparkopt.ml.summary.classification import (
    FMClassificationSummary,
    FMClassificationTrainingSummary,
)
from sparkopt.ml.summary.regression import RegressionSummary, RegressionTrainingSummary
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.typing import Floats
from sparkopt.validation import Constraint, Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FMClassificationModel", "FMClassifier", "FMRegressionModel", "FMRegressor"]

S = TypeVar("S", bound=TrainingSummary)
M = TypeVar("M", bound=LinearModel[Any])
E = TypeVar("E", bound="_FactorizationMachine[Any]")


class _FactorizationParams(SolverParams):
    factorSize: Param[int] = Param(
        Params._dummy(),
        "factorSize",
        "length of each feature's vector, by which it interacts with others",
        typeConverter=TypeConverters.toInt,
    )
    fitLinear: Param[bool] = Param(
        Params._dummy(), "fitLinear", "whether there are linear terms", typeConverter=TypeConverters.toBoolean
    )
    initStd: Param[float] = Param(
        Params._dummy(),
        "initStd",
        "standard deviation of the vectors' entries at the start",
        typeConverter=TypeConverters.toFloat,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(factorSize=8, fitLinear=True, initStd=0.01, standardization=False)

    def getFactorSize(self) -> int:
        """Return factorSize."""
        return self.getOrDefault(self.factorSize)

    def getFitLinear(self) -> bool:
        """Return fitLinear."""
        return self.getOrDefault(self.fitLinear)

    def getInitStd(self) -> float:
        """Return initStd."""
        return self.getOrDefault(self.initStd)

    def _domains(self) -> Mapping[str, Constraint]:
        return {
            **super()._domains(),
            "factorSize": Interval(1, None, whole=True),
            "initStd": Interval(0, None, closed="neither"),
        }


class _FactorizationModel(ProjectionModel[S], _FactorizationParams):
    """The numbers of a factorisation machine: a row of linear terms, and a row for each factor."""

    @property
    def intercept(self) -> float:
        """Intercept; 0 without one."""
        return float(self.auxiliary[0])

    @property
    def linear(self) -> DenseVector:
        """Linear terms, one for each feature; zeros without them."""
        return DenseVector(self._matrix[0])

    @property
    def factors(self) -> DenseMatrix:
        """The features' vectors: features × factorSize."""
        size, features = self._matrix[1:].shape
        return DenseMatrix(features, size, self._matrix[1:].ravel())

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "factorSize": len(self._matrix) - 1}

    @property
    def _scores(self) -> Scores:
        return FactorScores(self._matrix, self._response, self.intercept, isinstance(self, ClassModel))


class FMRegressionModel(_FactorizationModel[RegressionTrainingSummary], NumberModel[RegressionTrainingSummary]):
    """Intercept, linear terms and vectors of a factorisation machine for regression."""

    def evaluate(self, dataset: DataFrame) -> RegressionSummary:
        return RegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[RegressionTrainingSummary]:
        return RegressionTrainingSummary


class FMClassificationModel(
    _FactorizationModel[FMClassificationTrainingSummary],
    ClassModel[FMClassificationTrainingSummary],
):
    """Intercept, linear terms and vectors of a factorisation machine for two classes."""

    def evaluate(self, dataset: DataFrame) -> FMClassificationSummary:
        return FMClassificationSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[FMClassificationTrainingSummary]:
        return FMClassificationTrainingSummary

    @property
    def _response(self) -> Response:
        return OppositeShares(self._class_thresholds)


class _FactorizationMachine(ProjectionEstimator[M], _FactorizationParams, Generic[M]):
    _for_batches = "prodigy"  # Adam's steps are as long for rare features, whose interactions then grow beyond bounds

    def setFactorSize(self: E, value: int) -> E:
        """Set the length of the features' vectors."""
        return self._set(factorSize=value)

    def setFitLinear(self: E, value: bool) -> E:
        """Set whether there are linear terms."""
        return self._set(fitLinear=value)

    def setInitStd(self: E, value: float) -> E:
        """Set the standard deviation of the vectors' entries at the start."""
        return self._set(initStd=value)

    def _check_params(self) -> None:
        super()._check_params()
        if self.initialModel is None:
            return
        size = self.initialModel.factors.numCols
        if size != self.getFactorSize():
            raise ParameterError(
                f"initialModel has factorSize={size}, and factorSize is {self.getFactorSize()}. Set "
                f"factorSize={size}, or start without initialModel."
            )

    def _machine(self, base: Loss) -> Loss:
        linear, intercept = self.getFitLinear(), self.getFitIntercept()
        return FactorizationMachine(base, self.getFactorSize(), linear, intercept, self.getInitStd(), self.getSeed())

    def _numbers(self, fit: Fit) -> tuple[Floats, Floats, Floats]:
        """Return the numbers of a model; zeros for what is not fitted, which a model to start from may have had."""
        matrix = fit.coefficients.T.copy()
        if not self.getFitLinear():
            matrix[0] = 0.0
        return matrix, fit.intercept, fit.auxiliary if self.getFitIntercept() else np.zeros(1)

    def _trainer(self, moments: Moments) -> Trainer:
        return replace(super()._trainer(moments), fit_intercept=False)  # it is a parameter of the loss


@documented
class FMRegressor(_FactorizationMachine[FMRegressionModel]):
    """Regression by a factorisation machine (Rendle, 2010, *Factorization machines*).

    The prediction is b + x·w + Σ_{i<j} (vᵢ·vⱼ) xᵢ xⱼ: each feature has a vector v, so that pairs interact that never
    occurred together, as users and films do. Minimises mean (label − prediction)² + regParam · ½(‖w‖² + Σ‖v‖²), over
    all rows by L-BFGS, or with mini-batches by Prodigy, and where ``stepSize`` is set by Adam. The objective is not
    convex: another seed may lead to another optimum.

    Parameters
    ----------
    factorSize : int, default 8
        Length of the vectors.
    fitLinear : bool, default True
        Whether there are linear terms x·w.
    initStd : float, default 0.01
        Standard deviation of the vectors' entries at the start; ``seed`` determines them.
    solver : {"auto", "gd", "adamW", "l-bfgs"}, default "auto"
        The method under pyspark.ml's name, in place of ``optimizer``. regParam is a penalty in the objective with
        each, with "adamW" too.
    {shared}

    Notes
    -----
    standardization is False by default: as in pyspark.ml, penalties are of the coefficients in the features' units.

    Examples
    --------
    >>> from sparkopt.ml import FMRegressor
    >>> model = FMRegressor(labelCol="minutes", factorSize=2, regParam=0.01, maxIter=1000).fit(df)
    >>> model.factors.numCols, model.summary.r2 > 0
    (2, True)
    """

    @keyword_only
    def __init__(
        self,
        *,
        factorSize: int = 8,
        fitLinear: bool = True,
        initStd: float = 0.01,
        solver: str = "auto",
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        factorSize: int = 8,
        fitLinear: bool = True,
        initStd: float = 0.01,
        solver: str = "auto",
        **shared: Unpack[LinearArguments],
    ) -> FMRegressor:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    @property
    def _model_name(self) -> str:
        return FMRegressionModel.__name__

    @property
    def _targets(self) -> Interval:
        return SquaredResidual().targets

    def _loss(self, moments: Moments) -> Loss:
        return self._machine(SquaredResidual())

    def _model(self, fit: Fit) -> FMRegressionModel:
        return FMRegressionModel(*self._numbers(fit))


@documented
class FMClassifier(_FactorizationMachine[FMClassificationModel], ProbabilityParams, ClassWeightSetters):
    """Classification of labels 0 and 1 by a factorisation machine (Rendle, 2010, *Factorization machines*).

    The log-odds are b + x·w + Σ_{i<j} (vᵢ·vⱼ) xᵢ xⱼ: each feature has a vector v, so that pairs interact that never
    occurred together. Minimises the mean logistic loss + regParam · ½(‖w‖² + Σ‖v‖²), over all rows by L-BFGS, or with
    mini-batches by Prodigy, and where ``stepSize`` is set by Adam. The objective is not convex: another seed may lead
    to another optimum.

    Parameters
    ----------
    factorSize : int, default 8
        Length of the vectors.
    fitLinear : bool, default True
        Whether there are linear terms x·w.
    initStd : float, default 0.01
        Standard deviation of the vectors' entries at the start; ``seed`` determines them.
    solver : {"auto", "gd", "adamW", "l-bfgs"}, default "auto"
        The method under pyspark.ml's name, in place of ``optimizer``. regParam is a penalty in the objective with
        each, with "adamW" too.
    thresholds : list of float, optional
        One number for each class: the class of the largest probability / threshold is predicted.
    rawPredictionCol : str, default "rawPrediction"
        Output column of raw predictions.
    probabilityCol : str, default "probability"
        Output column of class probabilities.
    classWeights : "balanced", list or dict of float, optional
        Factors of the row weights by label; "balanced" gives both classes the same weight.
    {shared}

    Notes
    -----
    standardization is False by default: as in pyspark.ml, penalties are of the coefficients in the features' units.

    Examples
    --------
    >>> from sparkopt.ml import FMClassifier
    >>> model = FMClassifier(factorSize=2, regParam=0.01, maxIter=1000).fit(df)
    >>> model.evaluate(held_out).areaUnderROC > 0.7
    True
    """

    @keyword_only
    def __init__(
        self,
        *,
        factorSize: int = 8,
        fitLinear: bool = True,
        initStd: float = 0.01,
        solver: str = "auto",
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
        factorSize: int = 8,
        fitLinear: bool = True,
        initStd: float = 0.01,
        solver: str = "auto",
        thresholds: list[float] | None = None,
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        classWeights: Any = None,
        **shared: Unpack[LinearArguments],
    ) -> FMClassifier:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def _check_params(self) -> None:
        super()._check_params()
        self._thresholds_of(2)

    @property
    def _model_name(self) -> str:
        return FMClassificationModel.__name__

    @property
    def _targets(self) -> Interval:
        return Logistic().targets

    @property
    def _label_hint(self) -> str:
        return FROM_0

    def _loss(self, moments: Moments) -> Loss:
        return self._machine(Logistic())

    def _model(self, fit: Fit) -> FMClassificationModel:
        return FMClassificationModel(*self._numbers(fit))
