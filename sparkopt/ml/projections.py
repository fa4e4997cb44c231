"""What estimators and models share whose raw predictions are not linear: factorisation machines and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.ml.param.shared import HasProbabilityCol, HasThresholds
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.ml.class_weights import HasClassWeights
from sparkopt.ml.classification_params import RawPredictionParams
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.model import NUMBER, VECTOR, LinearModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import ClassShares, OneNumber, Response
from sparkopt.ml.summary.base import TrainingSummary
from sparkopt.optim import InitialHessian, Optimizer, by_name, lbfgs, schedules
from sparkopt.optim.request import Hessians

__all__ = ["ClassModel", "ClassParams", "NumberModel", "ProjectionEstimator", "ProjectionModel"]

S = TypeVar("S", bound=TrainingSummary)
M = TypeVar("M", bound=LinearModel[Any])
P = TypeVar("P", bound="ClassParams")

SOLVERS: Mapping[str, str] = {"gd": "gd", "adamW": "adam", "l-bfgs": "lbfgs"}
"""Optimisers by pyspark.ml's names of them."""


class ClassParams(LinearParams, RawPredictionParams, HasProbabilityCol, HasThresholds, HasClassWeights):
    """Parameters of classifiers that pyspark.ml calls probabilistic."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(probabilityCol="probability")

    def setProbabilityCol(self: P, value: str) -> P:
        """Set the column of class probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)

    def setThresholds(self: P, value: list[float]) -> P:
        """Set one number for each class: the class of the largest probability / threshold is predicted."""
        return self._set(thresholds=value)

    def _check_params(self) -> None:
        super()._check_params()
        if self.isSet(self.thresholds):
            values = self.getThresholds()
            if min(values) < 0 or sum(value == 0 for value in values) > 1:
                raise ParameterError(f"thresholds must be >= 0, and at most one of them 0. Got {values} instead.")


class ProjectionModel(LinearModel[S]):
    """A model whose raw predictions are made of several projections of a row."""

    def _with_raw(self, dataset: DataFrame) -> DataFrame | None:
        return None  # the JVM's linear models do not compute it


class NumberModel(ProjectionModel[S]):
    """The same with one raw prediction a row, which is the prediction."""

    @property
    def _response(self) -> Response:
        return OneNumber()

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {"prediction": (self.getPredictionCol(), NUMBER)}


class ClassModel(ProjectionModel[S], ClassParams):
    """The same for classes."""

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return 2

    def _facts(self) -> dict[str, Any]:
        return {"numClasses": self.numClasses}

    def predictRaw(self, value: Vector) -> DenseVector:
        """Return the raw prediction of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["rawPrediction"][0])

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probability of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["probability"][0])

    @property
    def _response(self) -> Response:
        return ClassShares(self._class_thresholds)

    @property
    def _class_thresholds(self) -> tuple[float, ...] | None:
        """Thresholds, one for each class; None where none are set."""
        if not self.isSet(self.thresholds):
            return None
        thresholds = self.getThresholds()
        if len(thresholds) != self.numClasses:
            raise ParameterError(
                f"thresholds must have one entry for each class, {self.numClasses}. Got {len(thresholds)} instead."
            )
        return tuple(thresholds)

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


class ProjectionEstimator(LinearEstimator[M], Generic[M]):
    """Trains such a model: by L-BFGS over all rows, or by Adam over mini-batches. Objectives are not convex."""

    @property
    def _chooses(self) -> bool:
        return False

    def _check_params(self) -> None:
        super()._check_params()
        solver = self.getOrDefault("solver")
        if solver != "auto" and self.getOptimizer() != "auto":
            raise IncompatibleError(
                f"solver={solver!r} and optimizer={self.getOptimizer()!r} both choose the method. Set one of them."
            )
        optimizer = self._optimizer()
        if isinstance(optimizer.search.first_request(np.zeros((1, 1))), Hessians):
            raise IncompatibleError(
                f"optimizer={optimizer.name!r} needs Hessians, and those of {type(self).__name__} are not definite. "
                f"Use optimizer='lbfgs', or 'adam' for mini-batches."
            )

    def _optimizer(self) -> Optimizer:
        name = self.getOptimizer() if self.getOrDefault("solver") == "auto" else SOLVERS[self.getOrDefault("solver")]
        sees_all = self.getMiniBatchFraction() == 1.0 and not self._is_fixed
        if name == "auto":
            others = "lbfgs" if self._penalty().smooth else "proximal-lbfgs"
            name = others if sees_all and not self.isDefined(self.stepSize) else "adam"
        if name == "gd" and not sees_all:
            name = "sgd"
        if not self.isDefined(self.stepSize):
            if self.getStepSizeSchedule() == "constant" and name == "lbfgs":
                return lbfgs(initial_hessian=InitialHessian(up_to=0))  # that of a saddle would mislead it
            return super()._optimizer() if name == self.getOptimizer() else by_name(name)
        schedule = schedules.by_name(self.getStepSizeSchedule(), self.getStepSize(), max(1, self.getMaxIter()))
        return by_name(name, schedule)
