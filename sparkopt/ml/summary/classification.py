"""How often a classifier is right."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.machine import Table
from sparkopt.ml.metrics.counts import ClassCounts, ScoreCounts, area_under
from sparkopt.ml.metrics.judged import Judged, completed
from sparkopt.ml.metrics.tallies import ClassTally, ScoreTally
from sparkopt.ml.summary.base import Summary, TrainingSummary, as_list
from sparkopt.ml.table_scoring import like
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = [
    "BinaryClassificationSummary",
    "BinaryLogisticRegressionSummary",
    "BinaryLogisticRegressionTrainingSummary",
    "CalibrationSummary",
    "CalibrationTrainingSummary",
    "ClassificationSummary",
    "FMClassificationSummary",
    "FMClassificationTrainingSummary",
    "LinearSVCSummary",
    "LinearSVCTrainingSummary",
    "LogisticRegressionSummary",
    "LogisticRegressionTrainingSummary",
    "MultilayerPerceptronClassificationSummary",
    "MultilayerPerceptronClassificationTrainingSummary",
    "OrdinalRegressionSummary",
    "OrdinalRegressionTrainingSummary",
]

BINS = 1000
"""Thresholds that a curve is reduced to, as in pyspark.ml's summaries; of up to twice as many scores it keeps all."""


@dataclass(frozen=True, eq=False)
class ClassificationSummary(Summary):
    """How often a classifier is right, by class and over all."""

    @cached_property
    def _tallies(self) -> dict[str, Any]:
        """All that is tallied in the first pass."""
        found = self._tallied(self._judged)
        classes, labels = self.model.numClasses, sorted({label for label, _ in found["classes"].pairs})
        unknown = [f"{label:g}" for label in labels if not (0 <= label < classes and label == int(label))]
        if unknown:
            some = f"{', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}"
            raise DataError(
                f"label column {self.labelCol!r} holds {some}, and the model's classes are 0 to {classes - 1}. Leave "
                f"such rows out, or number labels as they were for training."
            )
        return found

    @property
    def _judged(self) -> dict[str, Judged]:
        return {"classes": Judged(ClassTally(), self.predictionCol)}

    @cached_property
    def _counts(self) -> ClassCounts:
        return ClassCounts.of(self._tallies["classes"])

    @property
    def labels(self) -> list[float]:
        """Classes that occur, ascending: the order of everything that is given by label."""
        return as_list(self._counts.labels)

    @property
    def truePositiveRateByLabel(self) -> list[float]:
        """Share of each class's rows that are predicted right."""
        return as_list(self._counts.recall)

    @property
    def falsePositiveRateByLabel(self) -> list[float]:
        """Share of the other classes' rows that are predicted as each class."""
        return as_list(self._counts.false_positive_rate)

    @property
    def precisionByLabel(self) -> list[float]:
        """Share of the rows predicted as each class that belong to it."""
        return as_list(self._counts.precision)

    @property
    def recallByLabel(self) -> list[float]:
        """Share of each class's rows that are predicted right."""
        return as_list(self._counts.recall)

    def fMeasureByLabel(self, beta: float = 1.0) -> list[float]:
        """Return each class's weighted harmonic mean of precision and recall, recall counting beta times as much."""
        return as_list(self._counts.f_measure(beta))

    @property
    def accuracy(self) -> float:
        """Share of the rows that are predicted right."""
        return self._counts.accuracy

    @property
    def weightedTruePositiveRate(self) -> float:
        """Mean true positive rate of the classes, by their weights."""
        return self._counts.weighted(self._counts.recall)

    @property
    def weightedFalsePositiveRate(self) -> float:
        """Mean false positive rate of the classes, by their weights."""
        return self._counts.weighted(self._counts.false_positive_rate)

    @property
    def weightedRecall(self) -> float:
        """Mean recall of the classes, by their weights."""
        return self._counts.weighted(self._counts.recall)

    @property
    def weightedPrecision(self) -> float:
        """Mean precision of the classes, by their weights."""
        return self._counts.weighted(self._counts.precision)

    def weightedFMeasure(self, beta: float = 1.0) -> float:
        """Return the mean F measure of the classes, by their weights."""
        return self._counts.weighted(self._counts.f_measure(beta))


@dataclass(frozen=True, eq=False)
class BinaryClassificationSummary(ClassificationSummary):
    """The same for two classes, and the metrics at other thresholds.

    Curves keep every distinct score, or, where there are more than about two thousand, its thousandths of the rows.
    """

    @property
    def scoreCol(self) -> str:
        """Column of the Vector in ``predictions`` whose entry for class 1 ranks the rows."""
        return str(self._scorer.getRawPredictionCol())

    @property
    def _judged(self) -> dict[str, Judged]:
        return {**super()._judged, "scores": self._scores(ScoreTally(2 * BINS, any_class=True))}

    def _scores(self, tally: ScoreTally) -> Judged:
        return Judged(tally, self.scoreCol, entry=1)

    @cached_property
    def _curve(self) -> ScoreCounts:
        first = self._scores(self._tallies["scores"])
        complete = completed(self._rows, self.labelCol, self.weightCol, first)
        return ScoreCounts(*complete.cumulative())

    def _frame(self, points: Floats, *names: str) -> Any:
        if Table.accepts(self.dataset):
            return like(self.dataset, pa.table(list(points.T), names=list(names)))
        return self.dataset.sparkSession.createDataFrame(points.tolist(), list(names))

    def _by_threshold(self, values: Floats, name: str) -> Any:
        return self._frame(np.stack([self._curve.thresholds, values], axis=1), "threshold", name)

    @property
    def roc(self) -> Any:
        """Receiver operating characteristic, columns ``FPR`` and ``TPR``, from (0, 0) to (1, 1)."""
        return self._frame(self._curve.roc, "FPR", "TPR")

    @property
    def areaUnderROC(self) -> float:
        """Area under it."""
        return area_under(self._curve.roc)

    @property
    def pr(self) -> Any:
        """Precision by recall, columns ``recall`` and ``precision``."""
        return self._frame(self._curve.pr, "recall", "precision")

    @property
    def areaUnderPR(self) -> float:
        """Area under it."""
        return area_under(self._curve.pr)

    @property
    def fMeasureByThreshold(self) -> Any:
        """F measure (beta = 1), columns ``threshold`` and ``F-Measure``."""
        return self._by_threshold(self._curve.f_measure(1.0), "F-Measure")

    @property
    def precisionByThreshold(self) -> Any:
        """Columns ``threshold`` and ``precision``."""
        return self._by_threshold(self._curve.precision, "precision")

    @property
    def recallByThreshold(self) -> Any:
        """Columns ``threshold`` and ``recall``."""
        return self._by_threshold(self._curve.recall, "recall")


@dataclass(frozen=True, eq=False)
class LinearSVCSummary(BinaryClassificationSummary):
    """How often a linear support vector machine is right."""


@dataclass(frozen=True, eq=False)
class LinearSVCTrainingSummary(TrainingSummary, LinearSVCSummary):
    """Training, and the predictions on the rows trained on."""

    def __call__(self) -> LinearSVCTrainingSummary:
        """Return this summary: pyspark.ml's LinearSVCModel has it as a method, other models as a property."""
        return self


@dataclass(frozen=True, eq=False)
class LogisticRegressionSummary(ClassificationSummary):
    """How often a logistic regression is right."""

    @property
    def probabilityCol(self) -> str:
        """Column of class probabilities in ``predictions``."""
        return str(self._scorer.getProbabilityCol())


@dataclass(frozen=True, eq=False)
class BinaryLogisticRegressionSummary(LogisticRegressionSummary, BinaryClassificationSummary):
    """The same for two classes; thresholds are probabilities."""

    @property
    def scoreCol(self) -> str:
        """Column of class probabilities in ``predictions``."""
        return self.probabilityCol


@dataclass(frozen=True, eq=False)
class LogisticRegressionTrainingSummary(TrainingSummary, LogisticRegressionSummary):
    """Training, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class BinaryLogisticRegressionTrainingSummary(LogisticRegressionTrainingSummary, BinaryLogisticRegressionSummary):
    """Training, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class OrdinalRegressionSummary(ClassificationSummary):
    """How often the most probable of ordered classes is right."""


@dataclass(frozen=True, eq=False)
class OrdinalRegressionTrainingSummary(TrainingSummary, OrdinalRegressionSummary):
    """Training, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class CalibrationSummary(ClassificationSummary):
    """How often the class of the larger calibrated probability is right."""


@dataclass(frozen=True, eq=False)
class CalibrationTrainingSummary(TrainingSummary, CalibrationSummary):
    """Training of a sigmoid, and the predictions on the rows trained on."""


@dataclass(frozen=True, eq=False)
class FMClassificationSummary(BinaryLogisticRegressionSummary):
    """How often a factorisation machine is right; thresholds are probabilities."""


@dataclass(frozen=True, eq=False)
class FMClassificationTrainingSummary(TrainingSummary, FMClassificationSummary):
    """Training, and the predictions on the rows trained on."""

    def __call__(self) -> FMClassificationTrainingSummary:
        """Return this summary: pyspark.ml's FMClassificationModel has it as a method."""
        return self


@dataclass(frozen=True, eq=False)
class MultilayerPerceptronClassificationSummary(LogisticRegressionSummary):
    """How often a network is right."""


@dataclass(frozen=True, eq=False)
class MultilayerPerceptronClassificationTrainingSummary(TrainingSummary, MultilayerPerceptronClassificationSummary):
    """Training, and the predictions on the rows trained on."""

    def __call__(self) -> MultilayerPerceptronClassificationTrainingSummary:
        """Return this summary: pyspark.ml's MultilayerPerceptronClassificationModel has it as a method."""
        return self
