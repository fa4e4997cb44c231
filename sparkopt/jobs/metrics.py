"""Metrics of a model on rows, those of pyspark.ml's evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparkopt.errors import DataError
from sparkopt.jobs.invalid_rows import INVALID, last_stage
from sparkopt.jobs.runtimes.values import RowValues
from sparkopt.report.facts import Measure
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.ml.metrics.tallies import ResidualTally, ScoreTally, Tally

__all__ = [
    "LOWER_IS_BETTER",
    "MASK_METRICS",
    "NAMES",
    "NoRowsError",
    "ScoredRows",
    "default_metric",
    "is_classifier",
    "measures",
]

MASK_METRICS = ("meanIoU", "meanDice", "pixelAccuracy")
"""Of a class for each pixel; the first is what a gate compares where none is named."""
NAMES = ("accuracy", "f1", "logLoss", "areaUnderROC", "rmse", "r2", "mae", *MASK_METRICS)
LOWER_IS_BETTER = ("logLoss", "rmse", "mae")
COUNTS = ("rows", INVALID)
"""Numbers of rows among metrics."""
BINS, EPS = 1000, 1e-15
"""As in pyspark.ml's evaluators: thresholds of a curve, and the least probability that counts."""


def is_classifier(model: Any) -> bool:
    """Whether the model predicts classes."""
    model = last_stage(model)
    task = getattr(model, "task", None)  # networks have every column parameter; their task says what the output means
    return task in ("classes", "binary") if task is not None else bool(model.hasParam("rawPredictionCol"))


def default_metric(model: Any) -> str:
    """Return the metric that a gate compares where none is named."""
    return "accuracy" if is_classifier(model) else "rmse"


class NoRowsError(DataError):
    """There are no rows to evaluate on."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows with a model's predictions.

    Attributes
    ----------
    values : RowValues
        label, weight, prediction and residual; of classifiers, where the model has them, share (the probability of
        the row's label), score (that of class 1, or its raw prediction) and margin (the raw prediction of class 1 of
        two).
    is_classifier : bool
        Whether predictions are classes.
    invalid : int or None
        Invalid rows that were left out; None where they are errors.
    """

    values: RowValues
    is_classifier: bool
    invalid: int | None = None

    def metrics(self) -> dict[str, float]:
        """Return the number of ``rows`` and the metrics.

        Returns
        -------
        dict
            ``invalid``, the number of rows that were left out, where they are no errors. For a classifier accuracy,
            f1 (weighted by class), logLoss where it predicts probabilities, and areaUnderROC where it has two
            classes; otherwise rmse, r2 and mae.

        Raises
        ------
        DataError
            Where there are no rows, or a row has no label.
        """
        from sparkopt.ml.metrics.counts import ClassCounts, ScoreCounts, area_under

        values = self.values
        count, labelled = values.present("label")
        if count == 0:
            why = f": all {self.invalid:,} are invalid, with null, NaN or infinity" if self.invalid else ""
            raise NoRowsError(f"there are no rows to evaluate on{why}.")
        if labelled < count:
            raise DataError(
                f"{count - labelled} of {count} rows have no label. Filter or repair such rows, or set "
                "handleInvalid='skip'."
            )
        weight = "weight" if "weight" in values.names else None
        found: dict[str, Any] = values.tallies("label", weight, self._judged())
        metrics: dict[str, float] = {"rows": count}
        if self.invalid is not None:
            metrics[INVALID] = self.invalid
        if not self.is_classifier:
            residuals: ResidualTally = found["residuals"]
            return {**metrics, "rmse": residuals.rmse, "r2": residuals.r2(), "mae": residuals.mae}
        counts = ClassCounts.of(found["classes"])
        metrics |= {"accuracy": counts.accuracy, "f1": counts.weighted(counts.f_measure(1.0))}
        if "shares" in found:
            metrics["logLoss"] = found["shares"].mean()
        if "scores" in found:
            scores: ScoreTally = found["scores"]
            if not scores.complete:  # of many distinct scores a second pass counts at some of them
                again: dict[str, Any] = values.tallies("label", weight, {"scores": ("margin", scores.at())})
                scores = again["scores"]
            metrics["areaUnderROC"] = area_under(ScoreCounts(*scores.cumulative()).roc)
        return metrics

    def warnings(self, metrics: Mapping[str, float], names: Sequence[str] = ()) -> tuple[str, ...]:
        """Return why a model is of no use: it is no better than the most frequent class, or than the mean.

        Parameters
        ----------
        metrics : mapping
            Those of ``metrics``.
        names : sequence of str
            Names of the classes 0, 1, …; empty where they have none.
        """
        if not self.is_classifier:
            useless = metrics["r2"] <= 0
            return ("The model is no better than always predicting the labels' mean: r2 is not above 0.",) * useless
        if "weight" in self.values.names or not metrics["rows"]:
            return ()
        ((label,), count), *_ = self.values.counts("label", limit=1).items()
        share, place = count / metrics["rows"], int(label)
        if metrics["accuracy"] > share:
            return ()
        name = names[place] if place < len(names) else f"{label:g}"
        return (
            f"The model is no better than always predicting class {name}, which {share:.1%} of the rows have: its "
            f"accuracy is {metrics['accuracy']:.1%}.",
        )

    def _judged(self) -> dict[str, tuple[str, Tally]]:
        """Return the values that metrics are computed from, with empty tallies."""
        # here, since it loads the estimators, and flags need none
        from sparkopt.ml.metrics.tallies import ClassTally, LogLossTally, ResidualTally, ScoreTally

        names = set(self.values.names)
        if not self.is_classifier:
            return {"residuals": ("prediction", ResidualTally())}
        judged: dict[str, tuple[str, Tally]] = {"classes": ("prediction", ClassTally())}
        if "share" in names:
            judged["shares"] = ("share", LogLossTally(EPS))
        if "margin" in names:
            judged["scores"] = ("margin", ScoreTally(2 * BINS))
        return judged


def measures(
    metrics: Mapping[str, float], *, where: str = "", baselines: Mapping[str, float] | None = None
) -> tuple[Measure, ...]:
    """Return metrics for a page; the number of rows comes last.

    Parameters
    ----------
    metrics : mapping
        The metrics, with ``rows``.
    where : str, default ""
        Prefix of their names.
    baselines : mapping or None, default None
        Metrics of the baseline.
    """
    found = [
        Measure(f"{where}{name}", value, "number", _comparison(name, baselines))
        for name, value in metrics.items()
        if name not in COUNTS
    ]
    counts = [Measure(f"{where}rows", metrics["rows"], "count")]
    if INVALID in metrics:
        counts.append(Measure(f"{where}invalid rows", metrics[INVALID], "count", "left out"))
    return (*found, *counts)


def _comparison(name: str, baselines: Mapping[str, float] | None) -> str:
    return f"baseline {baselines[name]:.6g}" if baselines and name in baselines else ""
