"""Callbacks that watch a fit, step by step, and can stop it.

They run on the driver, wherever the loop runs. One object may serve several fits, and several models at a time.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.solver.progress import Callback, Progress
from sparkopt.validation import Interval, OneOf, check

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

__all__ = ["History", "MLflowLogger", "ProgressBar", "TimeBudget", "bar_is_visible", "close", "progress_logger"]

progress_logger = logging.getLogger("sparkopt.progress")

PROGRESS = "SPARKOPT_PROGRESS"
"""Environment variable that shows (1) or hides (0) progress bars. Without it, they are shown in notebooks and on
terminals; spark-submit reads its job's standard error through a pipe, so there it takes a 1."""


def close(callbacks: Sequence[Callback]) -> None:
    """Close the callbacks that have a ``close`` method, once the fit has ended."""
    for callback in callbacks:
        end = getattr(callback, "close", None)
        if end is not None:
            end()


class ProgressBar:
    """A progress bar with the current objective, on standard error or in the notebook.

    It appears after ``delay`` seconds, so that quick fits stay silent, and not at all where standard error is no
    terminal, unless the environment variable ``SPARKOPT_PROGRESS`` is 1; 0 hides it everywhere. Where nobody sees it,
    the logger ``sparkopt.progress`` has a line every ``interval`` seconds, with the time that is left; commands show
    these lines.

    Parameters
    ----------
    title : str, default "fit"
        The text before the bar.
    delay : float, default 2
        Seconds before it appears.
    interval : float, default 30
        Seconds between two lines.
    """

    def __init__(self, title: str = "fit", delay: float = 2.0, interval: float = 30.0) -> None:
        self.title, self.delay, self.interval = title, delay, interval
        self._bar: tqdm | None = None
        self._first: int | None = None

    def __call__(self, progress: Progress, /) -> None:
        """Move the bar to this step; of several models, the one that is furthest."""
        if self._first is None:
            self._first, self._said = max(0, progress.record.step - 1), 0.0  # a resumed run begins at a later step
            if bar_is_visible():  # the import of tqdm takes as long as many fits
                kind, options = _bar_in_place()
                options |= {"total": progress.max_iter, "unit": "step", "delay": self.delay}
                self._bar = kind(desc=self.title, **options)
        if self._bar is None:
            self._log(progress, self._first)
            return
        self._bar.total = max(self._bar.total, progress.max_iter)
        self._bar.set_postfix_str(f"objective {progress.record.objective:.6g}", refresh=False)
        self._bar.update(max(0, progress.record.step - self._bar.n))

    def _log(self, progress: Progress, first: int) -> None:
        """Log a line, where the last one was long ago."""
        record, elapsed = progress.record, progress.elapsed
        if elapsed - self._said < self.interval:
            return
        self._said = elapsed
        left = elapsed / max(1, record.step - first) * (progress.max_iter - record.step)
        held_out = "" if record.validation is None else f", validation loss {record.validation:.6g}"
        progress_logger.info(
            "%s: step %s of at most %s, objective %.6g%s; %s so far, at most %s left",
            *(self.title, f"{record.step:,}", f"{progress.max_iter:,}", record.objective, held_out),
            *(_duration(elapsed), _duration(left)),
            extra={"fields": {"step": record.step, "objective": record.objective, "seconds": round(elapsed, 1)}},
        )

    def close(self) -> None:
        """Close the bar, which stays on the screen; harmless when repeated."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._first = None


def _duration(seconds: float) -> str:
    """Return seconds as text, in the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class History:
    """A callback that keeps every step's record.

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
    """A callback that stops a fit at the first step that ends after so many seconds in the loop.

    With a ``checkpointDir``, the same call continues from the last checkpoint, with a new budget.

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
    """A callback that logs objective, gradient norm and validation loss to an MLflow run, step by step.

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
        active = mlflow.active_run()  # looked up here: it belongs to this thread, and a grid's fits run in others
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


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (Jupyter, Databricks, VS Code)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def _bar_in_place() -> tuple[type[tqdm], dict[str, Any]]:
    """Return the kind of bar for this process and its arguments: a notebook shows standard error in red."""
    from tqdm import tqdm  # here, since tasks import this package too, and need no bar

    if not in_notebook():
        return tqdm, {}
    if importlib.util.find_spec("ipywidgets") is None:
        return tqdm, {"file": sys.stdout}
    from tqdm.notebook import tqdm as widget

    return widget, {}


def bar_is_visible() -> bool:
    """Whether a bar on standard error would be seen: as PROGRESS says, or where that is a terminal."""
    chosen = os.environ.get(PROGRESS)
    if chosen is None:
        return in_notebook() or sys.stderr.isatty()
    return check(PROGRESS, chosen, OneOf(("0", "1"))) == "1"
