"""The parameters of local steps: how many, and what is done with the average of the local updates."""

from __future__ import annotations

from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.objective.work import LocalSteps
from sparkopt.optim import outer_by_name

__all__ = ["HasLocalSteps"]

H = TypeVar("H", bound="HasLocalSteps")


class HasLocalSteps(Params):
    """The parameters localSteps, localStepsWarmUp, outerOptimizer and outerStepSize."""

    localSteps: Param[int] = Param(
        Params._dummy(),
        "localSteps",
        "steps that each partition takes on its own rows before coefficients are averaged (>= 1)",
        typeConverter=TypeConverters.toInt,
    )
    localStepsWarmUp: Param[int] = Param(
        Params._dummy(),
        "localStepsWarmUp",
        "rounds of a single step before rounds of localSteps (>= 0)",
        typeConverter=TypeConverters.toInt,
    )
    outerOptimizer: Param[str] = Param(
        Params._dummy(),
        "outerOptimizer",
        "method that takes the averaged local updates as a gradient: average, diloco, or one with fixed steps",
        typeConverter=TypeConverters.toString,
    )
    outerStepSize: Param[float] = Param(
        Params._dummy(),
        "outerStepSize",
        "learning rate of outerOptimizer (> 0)",
        typeConverter=TypeConverters.toFloat,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(localSteps=1, localStepsWarmUp=0, outerOptimizer="average")

    def getLocalSteps(self) -> int:
        """Return localSteps."""
        return self.getOrDefault(self.localSteps)

    def getLocalStepsWarmUp(self) -> int:
        """Return localStepsWarmUp."""
        return self.getOrDefault(self.localStepsWarmUp)

    def getOuterOptimizer(self) -> str:
        """Return outerOptimizer."""
        return self.getOrDefault(self.outerOptimizer)

    def getOuterStepSize(self) -> float:
        """Return outerStepSize."""
        return self.getOrDefault(self.outerStepSize)

    def setLocalSteps(self: H, value: int) -> H:
        """Set the steps that each partition takes before coefficients are averaged."""
        return self._set(localSteps=value)

    def setLocalStepsWarmUp(self: H, value: int) -> H:
        """Set the rounds of a single step at the beginning."""
        return self._set(localStepsWarmUp=value)

    def setOuterOptimizer(self: H, value: str) -> H:
        """Set the method that takes the averaged local updates as a gradient."""
        return self._set(outerOptimizer=value)

    def setOuterStepSize(self: H, value: float) -> H:
        """Set the learning rate of outerOptimizer."""
        return self._set(outerStepSize=value)

    def _local_steps(self) -> LocalSteps | None:
        """Return the schedule of local steps; None where every step is averaged and no outer optimiser is set."""
        if self.getLocalSteps() == 1 and not self.isSet(self.outerOptimizer):
            return None
        rate = self.getOuterStepSize() if self.isDefined(self.outerStepSize) else None
        outer = outer_by_name(self.getOuterOptimizer(), rate)
        return LocalSteps(self.getLocalSteps(), self.getLocalStepsWarmUp(), outer)
