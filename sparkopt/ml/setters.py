"""Setters of the parameters that all estimators share."""

from __future__ import annotations

from typing import TypeVar

from sparkopt.ml.params import LinearParams

__all__ = ["LinearSetters"]

E = TypeVar("E", bound="LinearSetters")


class LinearSetters(LinearParams):
    """Setters that estimators have and models do not; each returns its estimator, so that calls can be chained."""

    def setLabelCol(self: E, value: str) -> E:
        """Set the column of targets."""
        return self._set(labelCol=value)

    def setWeightCol(self: E, value: str) -> E:
        """Set the column of row weights."""
        return self._set(weightCol=value)

    def setMaxIter(self: E, value: int) -> E:
        """Set the maximum number of steps."""
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

    def setMaxBlockSizeInMB(self: E, value: float) -> E:
        """Set pyspark.ml's size of blocks, which changes nothing here."""
        return self._set(maxBlockSizeInMB=value)

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
        """Set how many validation evaluations without a lower loss end the fit."""
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
