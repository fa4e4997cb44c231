"""What models of classes share that give probabilities, whatever their raw predictions are."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from pyspark.ml.linalg import DenseVector, Vector
from pyspark.sql.types import DataType

from sparkopt.ml.classification_params import ProbabilityParams
from sparkopt.ml.model import NUMBER, VECTOR, LinearModel
from sparkopt.ml.summary.base import TrainingSummary

__all__ = ["ProbabilisticModel"]

S = TypeVar("S", bound=TrainingSummary)


class ProbabilisticModel(LinearModel[S], ProbabilityParams):
    """A model with raw predictions, probabilities and a prediction."""

    @property
    @abstractmethod
    def numClasses(self) -> int:
        """Number of classes."""

    def predictRaw(self, value: Vector) -> DenseVector:
        """Return the raw prediction of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["rawPrediction"][0])

    def predictProbability(self, value: Vector) -> DenseVector:
        """Return the probability of each class for one row's features."""
        return DenseVector(self._outputs_of(value)["probability"][0])

    @property
    def _class_thresholds(self) -> tuple[float, ...] | None:
        """Thresholds, one for each class; None where none are set."""
        return self._thresholds_of(self.numClasses)

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "probability": (self.getProbabilityCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }
