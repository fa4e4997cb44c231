"""How likely survival times are under a model of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from pyspark.sql import functions as F

from sparkopt.losses import AcceleratedFailureTime
from sparkopt.machine import Table
from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.table_scoring import applied
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["SurvivalSummary", "SurvivalTrainingSummary"]


@dataclass(frozen=True, eq=False)
class SurvivalSummary(Summary):
    """How likely survival times are under a model of them."""

    @property
    def censorCol(self) -> str:
        """Column that is 1 where the time was observed."""
        return str(self.model.getCensorCol())

    @cached_property
    def numInstances(self) -> int:
        """Number of rows."""
        return round(self._sum(lambda label, censor, prediction: np.ones_like(label)))

    @cached_property
    def numEvents(self) -> int:
        """Number of rows whose time was observed."""
        return round(self._sum(lambda label, censor, prediction: censor))

    @cached_property
    def logLikelihood(self) -> float:
        """Σ weight · log-likelihood: of the density of observed times, and of surviving until censored ones."""
        log_scale = np.log(self.model.scale)

        def likelihood(label: Array, censor: Array, prediction: Array, weight: Array | float = 1.0) -> Array:
            raw = np.stack([np.log(prediction), np.full(len(label), log_scale)], axis=1)
            loss, _ = AcceleratedFailureTime().value_gradient(np.where(censor == 1, label, -label), raw)
            found: Array = -weight * (loss + censor * np.log(label))
            return found

        return self._sum(likelihood, self.weightCol)

    @property
    def aic(self) -> float:
        """Akaike's information criterion: 2 · (coefficients, intercept and scale) − 2 · log-likelihood."""
        fitted = int(self.model.numFeatures) + int(self.model.getFitIntercept()) + 1
        return 2.0 * fitted - 2.0 * self.logLikelihood

    def _sum(self, function: Callable[..., Array], weight: str | None = None) -> float:
        """Return the sum over rows of a function of time, censor, prediction and weight, where there is one."""
        columns = [self.labelCol, self.censorCol, self.predictionCol, *([weight] if weight else [])]
        if Table.is_one(self._rows):
            return float(applied(function, columns, self._rows).to_numpy().sum())
        rows = self._of_each_row("value", function, columns)
        return float(rows.agg(F.sum("value")).first()[0])


@dataclass(frozen=True, eq=False)
class SurvivalTrainingSummary(TrainingSummary, SurvivalSummary):
    """Training, and the rows trained on."""
