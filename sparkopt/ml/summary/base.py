"""Summaries of models under pyspark.ml's names: how training went, and how good the predictions are on some rows.

Every metric is computed when it is first used, by one Spark pass or a few, and kept. ``model.summary`` is of the rows
that the model was trained on, ``model.evaluate(df)`` of any others. All metrics are weighted by the row weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import Columns, quoted
from sparkopt.report import Receipt

__all__ = ["Summary", "TrainingSummary"]

OUTPUTS = ("predictionCol", "rawPredictionCol", "probabilityCol", "linkPredictionCol")


@dataclass(frozen=True, eq=False)
class Summary:
    """A model's predictions on some rows.

    Parameters
    ----------
    model : LinearModel
        The model.
    dataset : DataFrame
        Rows with features, label and, where the model was trained with them, weights.
    """

    model: Any = field(repr=False)
    dataset: DataFrame = field(repr=False)

    @cached_property
    def predictions(self) -> DataFrame:
        """The rows with the model's output columns; those that the model leaves out get names of their own."""
        scored: DataFrame = self._scorer.transform(self.dataset)
        return scored

    @property
    def predictionCol(self) -> str:
        """Column of predictions in ``predictions``."""
        return str(self._scorer.getPredictionCol())

    @property
    def labelCol(self) -> str:
        """Column of targets."""
        return str(self.model.getLabelCol())

    @property
    def featuresCol(self) -> str | list[str]:
        """Column or columns of features."""
        features: str | list[str] = self.model._features()
        return features

    @property
    def weightCol(self) -> str | None:
        """Column of row weights; None where every row weighs 1."""
        columns: Columns = self.model._columns()
        return columns.weight

    @cached_property
    def _scorer(self) -> Any:
        scorer = self.model.copy()
        for name in OUTPUTS:
            if scorer.hasParam(name) and not (scorer.isDefined(name) and scorer.getOrDefault(name)):
                scorer._set(**{name: f"{name.removesuffix('Col')}_{scorer.uid}"})
        return scorer

    @property
    def _label(self) -> Column:
        return F.col(quoted(self.labelCol)).cast("double")

    @property
    def _prediction(self) -> Column:
        return F.col(quoted(self.predictionCol))

    @property
    def _weight(self) -> Column:
        return F.lit(1.0) if self.weightCol is None else F.col(quoted(self.weightCol)).cast("double")


@dataclass(frozen=True, eq=False)
class TrainingSummary(Summary):
    """How the training went.

    Attributes
    ----------
    objectiveHistory : list of float
        Objective after each step, the start included; mean loss plus penalty, as pyspark.ml reports it.
    validationHistory : list of float or None
        Mean loss of the validation rows after each step, without penalty; None where it was not evaluated. The
        model is the step with the lowest.
    totalIterations : int
        Steps taken.
    converged : bool
        Whether a tolerance was met before maxIter.
    receipt : Receipt
        What it cost.
    """

    objectiveHistory: list[float]
    validationHistory: list[float | None]
    totalIterations: int
    converged: bool
    receipt: Receipt
