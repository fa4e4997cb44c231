"""Summary of a training: its history, and the receipt of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparkopt.deep.worker import RankResult
from sparkopt.report import DeepReceipt
from sparkopt.shards.index import TRAINING, VALIDATION, Index
from sparkopt.values import dataclass

__all__ = ["TorchTrainingSummary", "receipt_of"]


def receipt_of(
    launcher: str, index: Index, results: Sequence[RankResult], launched: float, restarts: int
) -> DeepReceipt:
    """Return the receipt of a training whose processes took ``launched`` seconds from launch to end."""
    first = results[0]
    slowest = dict(max((result.seconds for result in results), key=lambda seconds: seconds["total"]))
    total = slowest.pop("total")
    spent = [record["seconds"] for record in first.history]
    return DeepReceipt(
        launcher=launcher,
        devices=[result.device for result in results],
        why=first.why,
        processes=len(results),
        rows=index.rows(TRAINING),
        validation_rows=index.rows(VALIDATION),
        epochs=len(first.history),
        steps=len(first.losses),
        seconds={
            "store": index.seconds,
            "start": max(0.0, launched - total),
            **slowest,
            "total": index.seconds + launched,
        },
        bytes=index.bytes,
        skipped=index.skipped,
        peak_memory=max(result.peak_memory for result in results),
        device_memory=max(result.device_memory for result in results),
        rows_per_second=sum(record["rows"] for record in first.history) / sum(spent) if spent else 0.0,
        stopped=first.stopped,
        resumed=first.resumed,
        restarts=restarts,
        sent=max(result.sent for result in results),
        objective=[float(record["loss"]) for record in first.history],
        validation=[float(record["validation"]) for record in first.history if "validation" in record],
        elapsed=np.cumsum(spent).tolist(),
    )


@dataclass(frozen=True)
class TorchTrainingSummary:
    """Summary of a training.

    Attributes
    ----------
    history : list of dict
        One record an epoch: ``epoch``, ``loss``, ``validation`` and metrics where rows are held out, ``rate``,
        ``seconds``, ``waited``, ``rows``.
    objectiveHistory : list of float
        Mean loss of each step's rows, before the step.
    receipt : DeepReceipt
        Its cost.
    """

    history: list[dict[str, Any]]
    objectiveHistory: list[float]
    receipt: DeepReceipt

    @property
    def totalIterations(self) -> int:
        """Steps taken."""
        return len(self.objectiveHistory)

    def plot(self, path: str | Path) -> None:
        """Draw the loss by step, and by epoch where rows were held out, into an image file.

        Raises
        ------
        MissingDependencyError
            Where matplotlib is not installed.
        """
        from sparkopt.errors import MissingDependencyError

        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("TorchTrainingSummary.plot", "matplotlib", "report") from error
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(self.objectiveHistory, color="#1f6f8b", linewidth=1, label="step")
        ends = np.linspace(0, len(self.objectiveHistory), len(self.history) + 1)[1:]
        held_out = [float(record["validation"]) for record in self.history if "validation" in record]
        if len(held_out) == len(ends):
            axes.plot(ends, held_out, "o-", color="#e0a458", label="held out")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        axes.grid(alpha=0.25)
        figure.savefig(path, dpi=130)
