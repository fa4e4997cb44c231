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
    HasValidationIndicatorCol,
    HasWeightCol,
)

from sparkopt.blocks.columns import Columns
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
        "engine": OneOf(["auto", "driver"]),
        "patience": Interval(1, None, whole=True),
        "minDelta": Interval(0, None),
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
    HasValidationIndicatorCol,
):
    """What the estimators of linear models share.

    Parameters with pyspark.ml's meaning: featuresCol, labelCol, weightCol, predictionCol, maxIter, tol, regParam,
    elasticNetParam, fitIntercept, standardization, aggregationDepth, seed. Beyond it:

    - ``featuresCols``: numeric columns instead of one Vector or array column;
    - ``optimizer``: name of the method, "auto" (default) for L-BFGS, or FISTA where there is an L1 penalty;
    - ``stepSize``: its learning rate; unset, the method's own default;
    - ``stepSizeSchedule``: how it changes over maxIter steps, "constant" by default;
    - ``miniBatchFraction``: share of the rows that a step draws, default 1;
    - ``engine``: where the loop runs, "auto" (default) or "driver";
    - ``validationIndicatorCol``: boolean column, true in rows that are only validated on: the loop stops when their
      loss has not fallen by ``minDelta`` (default 0) in ``patience`` (default 10) looks at it, and the model is the
      step at which it was lowest. They are looked at after each step, or with mini-batches once an epoch;
    - ``checkpointDir``, ``checkpointInterval``: folder (any URI that pyarrow.fs knows) and steps between checkpoints
      (default 10; -1 for none). The same call goes on from them after its driver was killed, to the same model.
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
        Params._dummy(), "engine", "where the loop runs: auto or driver", typeConverter=TypeConverters.toString
    )

    patience: Param[int] = Param(
        Params._dummy(),
        "patience",
        "looks at the validation rows without a lower loss, after which the fit stops",
        typeConverter=TypeConverters.toInt,
    )
    minDelta: Param[float] = Param(
        Params._dummy(),
        "minDelta",
        "how far the validation loss must fall to count as lower",
        typeConverter=TypeConverters.toFloat,
    )
    checkpointDir: Param[str] = Param(
        Params._dummy(),
        "checkpointDir",
        "folder of checkpoints: a path, or a file, s3, gs, hdfs or abfs URI",
        typeConverter=TypeConverters.toString,
    )
    checkpointInterval: Param[int] = Param(
        Params._dummy(),
        "checkpointInterval",
        "steps between checkpoints in checkpointDir (>= 1), or -1 for none",
        typeConverter=TypeConverters.toInt,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            patience=10,
            minDelta=0.0,
            checkpointInterval=10,
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

    def getPatience(self) -> int:
        """Return patience."""
        return self.getOrDefault(self.patience)

    def getMinDelta(self) -> float:
        """Return minDelta."""
        return self.getOrDefault(self.minDelta)

    def getCheckpointDir(self) -> str:
        """Return checkpointDir."""
        return self.getOrDefault(self.checkpointDir)

    def getCheckpointInterval(self) -> int:
        """Return checkpointInterval."""
        return self.getOrDefault(self.checkpointInterval)

    def _columns(self) -> Columns:
        def named(param: Param[str]) -> str | None:
            return (self.getOrDefault(param) or None) if self.isDefined(param) else None

        weight, validation = named(self.weightCol), named(self.validationIndicatorCol)
        return Columns(self._features(), self.getLabelCol(), weight, validation)

    def _check_params(self) -> None:
        """Refuse values outside their domain, all with one wording."""
        for name, domain in DOMAINS.items():
            param = self.getParam(name)
            if self.isDefined(param):
                check(name, self.getOrDefault(param), domain)
        if self.getCheckpointInterval() != -1:
            check("checkpointInterval", self.getCheckpointInterval(), Interval(1, None, whole=True))
