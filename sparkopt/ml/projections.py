"""What estimators and models share whose raw predictions are not linear: factorisation machines and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.errors import IncompatibleError
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.model import NUMBER, LinearModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.probabilistic import ProbabilisticModel
from sparkopt.ml.responses import ClassShares, OneNumber, Response
from sparkopt.ml.summary.base import TrainingSummary
from sparkopt.optim import InitialHessian, Optimizer, lbfgs
from sparkopt.optim.request import Hessians
from sparkopt.validation import Constraint, OneOf

__all__ = ["ClassModel", "NumberModel", "ProjectionEstimator", "ProjectionModel", "SolverParams"]

S = TypeVar("S", bound=TrainingSummary)
M = TypeVar("M", bound=LinearModel[Any])
E = TypeVar("E", bound="ProjectionEstimator[Any]")

SOLVERS: Mapping[str, str] = {"gd": "gd", "adamW": "adam", "l-bfgs": "lbfgs"}
"""Optimisers by pyspark.ml's names of them."""


class SolverParams(LinearParams):
    """The method under pyspark.ml's name."""

    solver: Param[str] = Param(
        Params._dummy(),
        "solver",
        f"the method under pyspark.ml's name: auto, {', '.join(SOLVERS)}",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(solver="auto")

    def getSolver(self) -> str:
        """Return solver."""
        return self.getOrDefault(self.solver)

    def _domains(self) -> Mapping[str, Constraint]:
        return {**super()._domains(), "solver": OneOf(["auto", *SOLVERS])}


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


class ClassModel(ProjectionModel[S], ProbabilisticModel[S]):
    """The same for classes."""

    @property
    def numClasses(self) -> int:
        """Number of classes."""
        return 2

    def _facts(self) -> dict[str, Any]:
        return {"numClasses": self.numClasses}

    @property
    def _response(self) -> Response:
        return ClassShares(self._class_thresholds)


class ProjectionEstimator(LinearEstimator[M], SolverParams, Generic[M]):
    """Trains such a model: by L-BFGS over all rows, or another method over batches. Objectives are not convex."""

    _for_batches: ClassVar[str] = "adam"

    def setSolver(self: E, value: str) -> E:
        """Set the method under pyspark.ml's name."""
        return self._set(solver=value)

    @property
    def _chooses(self) -> bool:
        return False

    def _check_params(self) -> None:
        super()._check_params()
        solver = self.getSolver()
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

    @property
    def _optimizer_name(self) -> str:
        name = self.getOptimizer() if self.getSolver() == "auto" else SOLVERS[self.getSolver()]
        sees_all, is_set = self.getMiniBatchFraction() == 1.0 and not self._is_fixed, self.isDefined(self.stepSize)
        if name == "auto" and sees_all and not is_set:
            return "lbfgs" if self._penalty().smooth else "proximal-lbfgs"
        if name == "auto":
            return "adam" if is_set or self._is_fixed else self._for_batches
        return "sgd" if name == "gd" and not sees_all else name

    def _optimizer(self) -> Optimizer:
        found = super()._optimizer()
        if found.name == "lbfgs" and not self.isDefined(self.stepSize):
            return lbfgs(initial_hessian=InitialHessian(up_to=0))  # that of a saddle would mislead it
        return found
