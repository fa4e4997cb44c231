"""Callbacks: what can watch a fit, step by step, and stop it.

They run on the driver, wherever the loop runs. One object may serve several fits, and several models at a time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.solver.progress import Callback, Progress
from sparkopt.validation import Interval, check

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "MLflowLogger", "ProgressBar", "TimeBudget", "close"]


def close(callbacks: Sequence[Callback]) -> None:
    """Tell those callbacks that want to know that the fit has ended."""
    for callback in callbacks:
        end = getattr(callback, "close", None)
        if end is not None:
            end()


class ProgressBar:
    """A progress bar with the current objective, on standard error or in the notebook.

    It appears after ``delay`` seconds, so that quick fits stay silent, and not at all where standard error is a file.

    Parameters
    ----------
    title : str, default "fit"
        What stands before the bar.
    delay : float, default 2
        Seconds before it appears.
    """

    def __init__(self, title: str = "fit", delay: float = 2.0) -> None:
        self.title, self.delay = title, delay
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress, /) -> None:
        """Move the bar to this step; of several models, the one that is furthest."""
        if self._bar is None:
            silent = not (_in_notebook() or _someone_watches())
            self._bar = tqdm(total=progress.max_iter, desc=self.title, unit="step", delay=self.delay, disable=silent)
        self._bar.total = max(self._bar.total, progress.max_iter)
        self._bar.set_postfix_str(f"objective {progress.record.objective:.6g}", refresh=False)
        self._bar.update(max(0, progress.record.step - self._bar.n))

    def close(self) -> None:
        """Leave the bar as it stands; harmless when repeated."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class History:
    """Keeps every step's record.

    Attributes
    ----------
    records : list of dict
        One a step, in order: ``model`` and the fields of :class:`sparkopt.solver.progress.Record`.

    Examples
    --------
    >>> from sparkopt.ml import LogisticRegression
    >>> history = History()
    >>> model = LogisticRegression().setCallbacks([history]).fit(df)
    >>> history.to_pandas().set_index("seconds")["objective"].is_monotonic_decreasing  # .plot() it
    True
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, progress: Progress, /) -> None:
        """Keep the record."""
        self.records.append({"model": progress.model, **asdict(progress.record)})

    def to_pandas(self) -> pd.DataFrame:
        """Return the records as rows."""
        import pandas as pd  # here, since only this needs it

        return pd.DataFrame(self.records)


class TimeBudget:
    """Stops a fit at the first step that ends after so many seconds in the loop.

    With a ``checkpointDir``, the same call made again goes on from the last checkpoint, with a new budget.

    Parameters
    ----------
    seconds : float
        The budget, > 0.

    Examples
    --------
    >>> from sparkopt.ml import LogisticRegression
    >>> estimator = LogisticRegression(optimizer="sgd", miniBatchFraction=0.1, maxIter=10**6, tol=0.0)
    >>> estimator.setCallbacks([TimeBudget(0.2)]).fit(df).summary.receipt.reason
    'callback'
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check("seconds", seconds, Interval(0, None, closed="neither"))

    def __call__(self, progress: Progress, /) -> bool:
        """Return whether the time is up."""
        return progress.elapsed >= self.seconds


class MLflowLogger:
    """Logs objective, gradient norm and validation loss to an MLflow run, step by step.

    Metrics of the second and further models that are trained together carry the model's number: ``objective_1``.

    Parameters
    ----------
    run_id : str or None, default None
        The run; None is the one that is active now.
    interval : int, default 1
        Log every so many steps.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    ParameterError
        Where no run is active.

    Examples
    --------
    >>> import mlflow
    >>> from sparkopt.ml import LogisticRegression
    >>> with mlflow.start_run() as run:
    ...     model = LogisticRegression().setCallbacks([MLflowLogger()]).fit(df)
    >>> mlflow.get_run(run.info.run_id).data.metrics["objective"] == model.summary.objectiveHistory[-1]
    True
    """

    def __init__(self, run_id: str | None = None, interval: int = 1) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingDependencyError.of("MLflowLogger", "mlflow", "mlflow") from error
        self.interval = check("interval", interval, Interval(1, None, whole=True))
        active = mlflow.active_run()  # asked here: it belongs to this thread, and a grid's fits run in others
        if run_id is None:
            if active is None:
                raise ParameterError("run_id is None and no MLflow run is active: start one, or name one.")
            run_id = active.info.run_id
        self.run_id: str = run_id
        self._client, self._metric = mlflow.MlflowClient(), mlflow.entities.Metric

    def __call__(self, progress: Progress, /) -> None:
        """Log one step, all its metrics in one request."""
        record = progress.record
        if record.step % self.interval:
            return
        suffix = f"_{progress.model}" if progress.model else ""
        values = {
            "objective": record.objective,
            "gradient_norm": record.gradient_norm,
            "validation_loss": record.validation,
        }
        now = int(time.time() * 1000)
        metrics = [
            self._metric(name + suffix, value, now, record.step)
            for name, value in values.items()
            if value is not None
        ]
        self._client.log_batch(self.run_id, metrics=metrics)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _someone_watches() -> bool:
    """Whether standard error ends at a terminal, also where spark-submit stands in between and passes it on."""
    if sys.stderr.isatty():
        return True
    submitter = Path(f"/proc/{os.getppid()}/fd/1")  # spark-submit sends its job's streams there
    if "PYSPARK_GATEWAY_PORT" not in os.environ or not submitter.exists():
        return False
    try:
        stream = os.open(submitter, os.O_WRONLY | os.O_NOCTTY)  # not open(…, "w"), which would empty a log file
    except OSError:  # it belongs to somebody else: then nobody here watches it
        return False
    try:
        return os.isatty(stream)
    finally:
        os.close(stream)
