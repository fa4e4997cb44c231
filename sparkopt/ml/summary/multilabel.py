"""How a model of several labels was trained, and what it predicts."""

from __future__ import annotations

from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.values import dataclass

__all__ = ["MultiLabelSummary", "MultiLabelTrainingSummary"]


@dataclass(frozen=True, eq=False)
class MultiLabelSummary(Summary):
    """The predictions of several labels on some rows."""

    @property
    def labelCols(self) -> list[str]:
        """Columns of the labels, in the order of the entries of predictions."""
        return list(self.model.getLabelCols())


@dataclass(frozen=True, eq=False)
class MultiLabelTrainingSummary(TrainingSummary, MultiLabelSummary):
    """Training, and the predictions on the rows trained on."""
