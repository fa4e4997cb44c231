"""The parameters of the estimators: pyspark.ml's names, types and defaults, and a few of our own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasAggregationDepth,
    HasElasticNetParam,
    HasFeaturesCol,
    HasFitIntercept,
    HasLabelCol,
    HasMaxIter,
    HasPredictionCol,
    HasRegParam,
    HasSeed,
    HasStandardization,
    HasStepSize,
    HasTol,
    HasWeightCol,
)

from sparkopt.blocks.columns import Columns
from sparkopt.cluster.choose import ENGINES
from sparkopt.optim import OPTIMIZERS, schedules
from sparkopt.validation import Constraint, Interval, OneOf, check

__all__ = ["FeatureParams", "LinearParams"]

Self = TypeVar("Self", bound="FeatureParams")

DOMAINS: Mapping[str, Constraint] = MappingProxyType(
    {
        "maxIter": Interval(0, None, whole=True),
        "tol": Interval(0, None),
        "regParam": Interval(0, None),
        "elasticNetParam": Interval(0, 1),
        "stepSize": Interval(0, None, closed="neither"),
        "miniBatchFraction": Interval(0, 1, closed="right"),
        "aggregationDepth": Interval(1, None, whole=True),
        "seed": Interval(0, None, whole=True),
        "optimizer": OneOf(["auto", *OPTIMIZERS]),
        "engine": OneOf(ENGINES),
        "stepSizeSchedule": OneOf(schedules.NAMES),
    }
)


class FeatureParams(HasFeaturesCol, HasPredictionCol):
    """Columns that both estimators and models have."""

    featuresCols: Param[list[str]] = Param(
        Params._dummy(),
        "featuresCols",
        "numeric feature columns, instead of one Vector or array column in featuresCol",
        typeConverter=TypeConverters.toListString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(featuresCol="features", predictionCol="prediction")

    def getFeaturesCols(self) -> list[str]:
        """Return featuresCols."""
        return self.getOrDefault(self.featuresCols)

    def setFeaturesCol(self: Self, value: str) -> Self:
        """Set the Vector or array column."""
        return self._set(featuresCol=value)

    def setFeaturesCols(self: Self, value: list[str]) -> Self:
        """Set the numeric columns that take the place of featuresCol."""
        return self._set(featuresCols=value)

    def setPredictionCol(self: Self, value: str) -> Self:
        """Set the output column; "" leaves it out."""
        return self._set(predictionCol=value)

    def _features(self) -> str | list[str]:
        return self.getFeaturesCols() if self.isSet(self.featuresCols) else self.getFeaturesCol()


class LinearParams(
    FeatureParams,
    HasLabelCol,
    HasWeightCol,
    HasMaxIter,
    HasTol,
    HasRegParam,
    HasElasticNetParam,
    HasFitIntercept,
    HasStandardization,
    HasStepSize,
    HasSeed,
    HasAggregationDepth,
):
    """What the estimators of linear models share.

    Parameters with pyspark.ml's meaning: featuresCol, labelCol, weightCol, predictionCol, maxIter, tol, regParam,
    elasticNetParam, fitIntercept, standardization, aggregationDepth, seed. Beyond it:

    - ``featuresCols``: numeric columns instead of one Vector or array column;
    - ``optimizer``: name of the method, "auto" (default) for L-BFGS, or FISTA where there is an L1 penalty;
    - ``stepSize``: its learning rate; unset, the method's own default;
    - ``stepSizeSchedule``: how it changes over maxIter steps, "constant" by default;
    - ``miniBatchFraction``: share of the rows that a step draws, default 1;
    - ``engine``: where the loop runs: "auto" (default, the cheapest), "driver" (one Spark job a pass), "resident"
      (one job a fit, whose tasks stay), "allreduce" (on each rank of a barrier stage) or "local" (in one task).
    """

    optimizer: Param[str] = Param(
        Params._dummy(),
        "optimizer",
        f"the method: auto, {', '.join(OPTIMIZERS)}",
        typeConverter=TypeConverters.toString,
    )
    stepSizeSchedule: Param[str] = Param(
        Params._dummy(),
        "stepSizeSchedule",
        f"how stepSize changes over maxIter steps: {', '.join(schedules.NAMES)}",
        typeConverter=TypeConverters.toString,
    )
    miniBatchFraction: Param[float] = Param(
        Params._dummy(),
        "miniBatchFraction",
        "share of the rows that a step draws, in (0, 1]",
        typeConverter=TypeConverters.toFloat,
    )
    engine: Param[str] = Param(
        Params._dummy(), "engine", f"where the loop runs: {', '.join(ENGINES)}", typeConverter=TypeConverters.toString
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            labelCol="label",
            maxIter=100,
            tol=1e-6,
            regParam=0.0,
            elasticNetParam=0.0,
            fitIntercept=True,
            standardization=True,
            seed=0,
            aggregationDepth=2,
            optimizer="auto",
            miniBatchFraction=1.0,
            engine="auto",
            stepSizeSchedule="constant",
        )

    def getOptimizer(self) -> str:
        """Return optimizer."""
        return self.getOrDefault(self.optimizer)

    def getStepSizeSchedule(self) -> str:
        """Return stepSizeSchedule."""
        return self.getOrDefault(self.stepSizeSchedule)

    def getMiniBatchFraction(self) -> float:
        """Return miniBatchFraction."""
        return self.getOrDefault(self.miniBatchFraction)

    def getEngine(self) -> str:
        """Return engine."""
        return self.getOrDefault(self.engine)

    def _columns(self) -> Columns:
        weighted = self.isDefined(self.weightCol) and self.getWeightCol()
        return Columns(self._features(), self.getLabelCol(), self.getWeightCol() if weighted else None)

    def _check_params(self) -> None:
        """Refuse values outside their domain, all with one wording."""
        for name, domain in DOMAINS.items():
            param = self.getParam(name)
            if self.isDefined(param):
                check(name, self.getOrDefault(param), domain)
