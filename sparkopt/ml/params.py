"""The parameters of the estimators: pyspark.ml's names, types and defaults, and a few of our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasAggregationDepth,
    HasElasticNetParam,
    HasFeaturesCol,
    HasFitIntercept,
    HasLabelCol,
    HasMaxBlockSizeInMB,
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
from sparkopt.blocks.files import BLOCK_CODECS
from sparkopt.blocks.invalid import HANDLE_INVALID
from sparkopt.codecs.gradient import GRADIENT_CODECS
from sparkopt.engines.selection import ENGINES
from sparkopt.errors import IncompatibleError
from sparkopt.ml.compression import HasCompression
from sparkopt.objective.local_step_params import HasLocalSteps
from sparkopt.optim import OPTIMIZERS, OUTER, schedules
from sparkopt.validation import Constraint, Interval, OneOf, check

__all__ = ["FeatureParams", "LinearParams", "lower_case"]

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
        "maxBlockSizeInMB": Interval(0, None),
        "seed": Interval(0, None, whole=True),
        "optimizer": OneOf(["auto", *OPTIMIZERS]),
        "engine": OneOf(ENGINES),
        "patience": Interval(1, None, whole=True),
        "minDelta": Interval(0, None),
        "stepSizeSchedule": OneOf(schedules.NAMES),
        "localSteps": Interval(1, None, whole=True),
        "localStepsWarmUp": Interval(0, None, whole=True),
        "outerOptimizer": OneOf([*OUTER, *OPTIMIZERS]),
        "outerStepSize": Interval(0, None, closed="neither"),
        "compression": OneOf([*GRADIENT_CODECS, "auto"]),
        "blockCodec": OneOf(BLOCK_CODECS),
        "handleInvalid": OneOf(HANDLE_INVALID),
    }
)


def lower_case(value: Any) -> str:
    """Return a name that may be given in any case, as it is compared."""
    return TypeConverters.toString(value).lower()


@cache
def _declared(kind: type[Params]) -> tuple[tuple[str, Param[Any]], ...]:
    """Return the params of a class, ordered by name."""
    attributes = ((name, getattr(kind, name)) for name in dir(kind))
    return tuple((name, value) for name, value in attributes if isinstance(value, Param))


class FeatureParams(HasFeaturesCol, HasPredictionCol):
    """Columns that both estimators and models have."""

    featuresCols: Param[list[str]] = Param(
        Params._dummy(),
        "featuresCols",
        "numeric feature columns, instead of one Vector or array column in featuresCol",
        typeConverter=TypeConverters.toListString,
    )
    handleInvalid: Param[str] = Param(
        Params._dummy(),
        "handleInvalid",
        "what becomes of rows with null, NaN or infinity: error; skip (left out); keep (null predictions)",
        typeConverter=lower_case,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(featuresCol="features", predictionCol="prediction", handleInvalid="error")

    def _copy_params(self) -> None:
        """Give the instance its own params, as pyspark.ml does, which looks through all attributes for each of them.

        A search makes a hundred instances, and a small fit takes as long as a few.
        """
        own = {name: Param(self, param.name, param.doc, param.typeConverter) for name, param in _declared(type(self))}
        vars(self).update(own)
        self._params = [*own.values()]

    def getHandleInvalid(self) -> str:
        """Return handleInvalid."""
        return self.getOrDefault(self.handleInvalid)

    def setHandleInvalid(self: Self, value: str) -> Self:
        """Set what becomes of rows with null, NaN or infinity: error, skip or keep."""
        return self._set(handleInvalid=value)

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
    HasMaxBlockSizeInMB,
    HasValidationIndicatorCol,
    HasLocalSteps,
    HasCompression,
):
    """What the estimators of linear models share: pyspark.ml's parameters and meanings, and a few more."""

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

    patience: Param[int] = Param(
        Params._dummy(),
        "patience",
        "validation evaluations without a lower loss after which the fit stops",
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
            maxBlockSizeInMB=0.0,
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
        return Columns(self._features(), self.getLabelCol(), weight, validation, invalid=self.getHandleInvalid())

    def _domains(self) -> Mapping[str, Constraint]:
        """What each parameter may be, by name; parents that add parameters add their domains."""
        return DOMAINS

    def _check_params(self) -> None:
        """Refuse values outside their domain, all with one wording."""
        for name, domain in self._domains().items():
            param = self.getParam(name)
            if self.isDefined(param):
                check(name, self.getOrDefault(param), domain)
        if not self.isDefined(self.validationIndicatorCol):
            for name in ("patience", "minDelta"):
                if self.isSet(self.getParam(name)):
                    raise IncompatibleError(
                        f"{name}={self.getOrDefault(name)} stops a fit by its validation rows, and there are none. "
                        "Set validationIndicatorCol, a boolean column that is true in such rows, or leave it out."
                    )
        if self.getCheckpointInterval() != -1:
            check("checkpointInterval", self.getCheckpointInterval(), Interval(1, None, whole=True))
