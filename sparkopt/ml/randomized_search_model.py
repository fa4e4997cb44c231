"""What a search that ends candidates early has found: its trials, and a plot of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparkopt.errors import MissingDependencyError
from sparkopt.ml.trials import SearchTrial
from sparkopt.ml.tuning import CrossValidatorModel

__all__ = ["RandomizedSearchModel", "metric_name"]


class RandomizedSearchModel(CrossValidatorModel):
    """The result of a `RandomizedSearch`.

    Attributes
    ----------
    bestModel : Model
        Trained on all rows, with the values of the best trial that was trained to its end.
    trials : list of SearchTrial
        All candidates; empty in a model that was loaded.
    avgMetrics, stdMetrics : list of float
        By trial, the mean and standard deviation over the folds of its last metric.
    metricName : str
        What was measured.
    """

    metricName = "metric"

    def __init__(self, bestModel: Any, *args: Any) -> None:
        super().__init__(bestModel, *args)
        self.trials: list[SearchTrial] = []

    def copy(self, extra: Any = None) -> RandomizedSearchModel:
        """Return a copy, with other values of some parameters in the best model."""
        best = self.bestModel.copy(extra or {})
        own = RandomizedSearchModel(best, list(self.avgMetrics), None, list(self.stdMetrics))
        own.trials, own.metricName = list(self.trials), self.metricName
        return self._copyValues(own, extra=extra)

    def plot(self, path: str | Path) -> None:
        """Draw the metric of each trial by the steps that it had taken, into an image file.

        Pruned trials are grey; circles are where trials were judged.

        Raises
        ------
        MissingDependencyError
            Where matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("RandomizedSearchModel.plot", "matplotlib", "report") from error
        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for trial in sorted(self.trials, key=lambda one: one.state == "complete"):
            steps, metrics = zip(*trial.values, strict=True)
            color = "#b4610f" if trial.state == "complete" else "#b0b6bd"
            axes.plot(steps, metrics, "o-", color=color, markersize=4, linewidth=1.2)
            axes.annotate(
                str(trial.number), (steps[-1], metrics[-1]), fontsize=7, xytext=(4, 0), textcoords="offset points"
            )
        axes.set(xscale="log", xlabel="steps", ylabel=f"{self.metricName} of held-out rows, mean of the folds")
        axes.grid(alpha=0.25)
        figure.savefig(path, dpi=130)


def metric_name(evaluator: Any) -> str:
    """Return what an evaluator measures, or its class where it does not say."""
    return str(evaluator.getMetricName()) if hasattr(evaluator, "getMetricName") else type(evaluator).__name__
