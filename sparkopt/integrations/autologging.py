"""autolog: every fit of sparkopt's estimators is logged to MLflow, without a line in the code that fits."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from multiprocessing.dummy import DummyProcess
from typing import Any

from sparkopt.errors import MissingDependencyError

__all__ = ["autolog"]

ESTIMATORS = (
    ("sparkopt.ml.estimator", "LinearEstimator"),
    ("sparkopt.ml.one_vs_rest", "OneVsRest"),
    ("sparkopt.ml.pipeline", "Pipeline"),
    ("sparkopt.ml.tuning", "CrossValidator"),
    ("sparkopt.ml.tuning", "TrainValidationSplit"),
)
NETWORKS = ("sparkopt.deep.estimator", "TorchEstimator")
_WITHIN: ContextVar[bool] = ContextVar("sparkopt_autolog_within", default=False)
"""Whether a fit is a part of another one: of a pipeline or a search, which is logged as a whole."""


_RUNNING: list[Any] = []
"""Estimators whose fits are logged at their end."""


def _is_within() -> bool:
    """Whether a fit is a part of another one; pyspark.ml's searches and OneVsRest fit in threads of a pool."""
    return _WITHIN.get() or bool(_RUNNING and isinstance(threading.current_thread(), DummyProcess))


def autolog(*, disable: bool = False, networks: bool = False) -> None:
    """Log each fit of sparkopt's estimators, pipelines and searches to MLflow, as `log_fit` does.

    `TableFeatures` and `ImageNormalizer` are logged with the pipeline that they are a stage of, and not alone.

    A fit within an active run is logged to that run: the first model as "model", later ones as "model_2" and so on.
    Without an active run, each fit has a run of its own. Fits that are parts of a pipeline or of a search are logged
    with it.

    Parameters
    ----------
    disable : bool, default False
        Log no more.
    networks : bool, default False
        Whether fits of `sparkopt.deep.TorchEstimator` are logged too, which imports PyTorch.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.

    Examples
    --------
    >>> import mlflow
    >>> from sparkopt.integrations import autolog
    >>> from sparkopt.ml import LogisticRegression
    >>> autolog()
    >>> with mlflow.start_run() as run:
    ...     model = LogisticRegression(featuresCols=["x1", "x2"]).fit(df)
    >>> mlflow.get_run(run.info.run_id).data.params["model"]
    'LogisticRegressionModel'
    >>> autolog(disable=True)
    """
    try:
        import mlflow  # noqa: F401  # now rather than at the end of a fit
    except ImportError as error:
        raise MissingDependencyError.of("autolog", "mlflow", "mlflow") from error
    known = [*ESTIMATORS, *([NETWORKS] if networks or disable else [])]
    for module, name in known:
        if disable and (module, name) == NETWORKS and not _is_loaded(module):
            continue
        _watch(getattr(import_module(module), name), watched=not disable)


def _is_loaded(module: str) -> bool:
    import sys

    return module in sys.modules


def _watch(kind: type, *, watched: bool) -> None:
    """Let the class log its fits, or no more."""
    own = kind.__dict__.get("fit")
    if hasattr(own, "unlogged"):
        before = own.unlogged  # type: ignore[union-attr]
        if before is None:
            del kind.fit  # type: ignore[attr-defined]
        else:
            kind.fit = before  # type: ignore[attr-defined]
    if watched:
        kind.fit = _logging(kind.fit, kind.__dict__.get("fit"))  # type: ignore[attr-defined]


def _logging(fit: Callable[..., Any], own: Any) -> Callable[..., Any]:
    """Return a method that fits and logs; ``own`` is the class's own method, None where it inherits one."""

    @functools.wraps(fit)
    def fit_and_log(self: Any, dataset: Any, params: Any = None) -> Any:
        if _is_within():
            return fit(self, dataset, params)
        token = _WITHIN.set(True)
        _RUNNING.append(self)
        try:
            model = fit(self, dataset, params)
        finally:
            _RUNNING.remove(self)
            _WITHIN.reset(token)
        for each in model if isinstance(model, list) else [model]:
            _log(each)
        return model

    fit_and_log.unlogged = own  # type: ignore[attr-defined]
    return fit_and_log


def _log(model: Any) -> None:
    import mlflow

    from sparkopt.integrations.mlflow import log_fit

    run = mlflow.active_run()
    if run is None:
        with mlflow.start_run():
            log_fit(model)
        return
    log_fit(model, _free_name(mlflow.get_run(run.info.run_id).data.params))


def _free_name(params: Any) -> str:
    """Return the name of the next model of a run, by the parameters that it has."""
    if "model" not in params:
        return "model"
    number = 2
    while f"model_{number}.model" in params:
        number += 1
    return f"model_{number}"
