"""MLflow: parameters, metrics by step, receipt and model of a fit in one call. Only a call imports it.

Logged models are data (JSON, Parquet, safetensors), and score pandas DataFrames without Spark. They carry the wheel
of the sparkopt that logged them, which their requirements install: no index need have it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt import __version__
from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.integrations.pyfunc import scorer_of, write
from sparkopt.integrations.wheel import write_wheel
from sparkopt.report import DeepReceipt, Receipt

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["log_fit", "log_model", "save_model"]

logger = logging.getLogger(__name__)

LOADER = "sparkopt.integrations.pyfunc"
LONGEST = 500
"""Characters of a parameter's value that every MLflow server accepts."""
BATCH = 1000
"""Metrics that a server accepts in one request."""
NOT_METRICS = frozenset({"epoch", "seconds", "waited", "rows"})
"""Entries of a network's history that are neither losses nor metrics nor the learning rate."""


def log_fit(model: Any, name: str = "model", example: pd.DataFrame | None = None) -> Any:
    """Log a fitted model to the active MLflow run: parameters, metrics, receipt, and the model itself.

    Metrics by step are ``objective`` and ``validation_loss``; for a network, by epoch, ``loss``, ``validation``,
    ``rate`` and its own metrics. Metrics that a logger has logged during the fit are not logged again. Costs are
    metrics too: ``receipt.total_time``, ``receipt.bytes_sent`` and so on. Artifacts are ``receipt.json``,
    ``receipt.txt`` and ``report.html``. A loaded model has no receipt: only its parameters and itself are logged.

    Parameters
    ----------
    model : LinearModel or TorchModel
        The result of ``fit``.
    name : str, default "model"
        The logged model's name.
    example : pandas.DataFrame, optional
        Some rows of features: the model's example, from which its signature follows. Vectors must be lists.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Location of the model: ``mlflow.pyfunc.load_model(info.model_uri)``.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    ParameterError
        Where no run is active.

    Examples
    --------
    >>> import mlflow
    >>> from sparkopt.integrations import log_fit
    >>> from sparkopt.ml import LogisticRegression
    >>> model = LogisticRegression(featuresCols=["x1", "x2"]).fit(df)
    >>> rows = df.select("x1", "x2").toPandas()
    >>> with mlflow.start_run():
    ...     info = log_fit(model, example=rows.head())
    >>> scored = mlflow.pyfunc.load_model(info.model_uri).predict(rows)  # no Spark from here on
    >>> list(scored.columns)
    ['rawPrediction', 'probability', 'prediction']
    """
    mlflow = _mlflow()
    run, client = _active(mlflow), mlflow.MlflowClient()
    _log_params(client, run.info.run_id, model)
    if model.hasSummary:
        _log_metrics(mlflow, client, run.info.run_id, model.summary)
        _log_receipt(client, run.info.run_id, model.summary.receipt)
    return log_model(model, name, example)


def log_model(model: Any, name: str = "model", example: pd.DataFrame | None = None) -> Any:
    """Log a model, without its metrics and receipt, to the active MLflow run.

    Parameters
    ----------
    model : LinearModel or TorchModel
        The model.
    name : str, default "model"
        The logged model's name.
    example : pandas.DataFrame, optional
        Some rows of features; see :func:`log_fit`.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Location of the model.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    ParameterError
        Where no run is active.
    """
    mlflow = _mlflow()
    _active(mlflow)
    target: dict[str, Any] = {"artifact_path": name}
    if int(mlflow.__version__.split(".")[0]) > 2:
        step = _step(model.summary.receipt) if model.hasSummary else 0
        target = {"name": name, "step": step}  # MLflow shows the metrics of this step with the model
    with tempfile.TemporaryDirectory() as folder:
        return mlflow.pyfunc.log_model(**target, **_parts(mlflow, model, Path(folder), example))


def save_model(model: Any, path: str | Path, example: pd.DataFrame | None = None) -> None:
    """Write an MLflow model to a folder of this machine; neither a run nor a server is needed.

    Parameters
    ----------
    model : LinearModel or TorchModel
        The model.
    path : str or Path
        The folder, which must not exist.
    example : pandas.DataFrame, optional
        Some rows of features; see :func:`log_fit`.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    """
    mlflow = _mlflow()
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(path=str(path), **_parts(mlflow, model, Path(folder), example))


def _mlflow() -> Any:
    try:
        import mlflow
        import mlflow.pyfunc
    except ImportError as error:
        raise MissingDependencyError.of("sparkopt.integrations.mlflow", "mlflow", "mlflow") from error
    return mlflow


def _active(mlflow: Any) -> Any:
    run = mlflow.active_run()
    if run is None:
        raise ParameterError("no MLflow run is active: call this inside `with mlflow.start_run():`.")
    return run


def _parts(mlflow: Any, model: Any, folder: Path, example: pd.DataFrame | None) -> dict[str, Any]:
    """Return the arguments that describe a model to MLflow, after writing its data below ``folder``."""
    data = folder / "model"
    write(model, data)
    parts: dict[str, Any] = {
        "loader_module": LOADER,
        "data_path": str(data),
        **_environment(mlflow, folder, "[deep]" if _is_deep(model) else ""),
    }
    if example is not None:
        parts["signature"] = mlflow.models.infer_signature(example, scorer_of(model).predict(example))
        parts["input_example"] = example
    return parts


def _environment(mlflow: Any, folder: Path, extras: str) -> dict[str, Any]:
    """Return the arguments that say what scores the model: sparkopt as it is here, and MLflow.

    MLflow puts the wheel into the model's folder ``code``, and installs requirements from within the model.
    """
    own = _mlflow_itself(mlflow)
    try:
        wheel = write_wheel(folder)
    except PackageNotFoundError:
        named = f"sparkopt{extras}=={__version__}"
        logger.warning(
            "sparkopt is not installed here but on the path alone, so the model cannot carry it. Its requirements "
            "name %s: have that where the model is served.",
            named,
        )
        return {"pip_requirements": [*own, named]}
    return {"pip_requirements": [*own, f"code/{wheel.name}{extras}"], "code_paths": [str(wheel)]}


def _mlflow_itself(mlflow: Any) -> list[str]:
    """Return the requirement of MLflow as it is installed; none where its own choice, the full package, is right."""
    try:
        version("mlflow")
    except PackageNotFoundError:
        if int(mlflow.__version__.split(".")[0]) > 2:  # earlier, only the full package could serve models
            return [f"mlflow-skinny=={mlflow.__version__}"]
    return []


def _is_deep(model: Any) -> bool:
    return type(model).__module__.startswith("sparkopt.deep.")


def _log_params(client: Any, run_id: str, model: Any) -> None:
    """Log the parameters of the model and its training, except values that are too long."""
    for name, value in params_of(model).items():
        if len(value) > LONGEST:
            logger.warning("parameter %s has %d characters and is not logged: it is in the model.", name, len(value))
        else:
            client.log_param(run_id, name, value)


def params_of(model: Any) -> dict[str, str]:
    """Return a model's class and parameters as text."""
    found = {"model": type(model).__name__}
    for param, value in model.extractParamMap().items():
        found[param.name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found


def _log_metrics(mlflow: Any, client: Any, run_id: str, summary: Any) -> None:
    """Log metrics by step, except those that are logged already, and the figures of the receipt."""
    known = client.get_run(run_id).data.metrics
    begin = client.get_run(run_id).info.start_time
    kind = mlflow.entities.Metric
    end = _step(summary.receipt)
    metrics = [
        kind(name, value, begin + round(1000 * seconds), step)
        for name, step, seconds, value in _history(summary)
        if name not in known
    ]
    for measure in summary.receipt.facts().measures:
        name = f"receipt.{measure.name.replace(' ', '_').replace('-', '_')}"
        metrics.append(kind(name, float(measure.value), begin, end))
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


def _step(receipt: Receipt | DeepReceipt) -> int:
    """Return the step that the model is from."""
    return receipt.chosen_step if isinstance(receipt, Receipt) else receipt.steps


def _history(summary: Any) -> Iterator[tuple[str, int, float, float]]:
    """Yield metrics as name, step, seconds since the start, and value."""
    receipt = summary.receipt
    if isinstance(receipt, Receipt):
        for name, values in (("objective", receipt.objective), ("validation_loss", receipt.validation)):
            for step, (seconds, value) in enumerate(zip(receipt.elapsed, values, strict=True)):
                if value is not None:
                    yield name, step, seconds, value
        return
    for record, seconds in zip(summary.history, receipt.elapsed, strict=True):
        yield from _epoch(record, receipt.steps * (record["epoch"] + 1) // max(1, receipt.epochs), seconds)


def _epoch(record: Mapping[str, Any], step: int, seconds: float) -> Iterator[tuple[str, int, float, float]]:
    for name, value in record.items():
        if name not in NOT_METRICS and isinstance(value, (int, float)):  # a matrix is none
            yield name, step, seconds, float(value)


def _log_receipt(client: Any, run_id: str, receipt: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        receipt.save(Path(folder, "receipt.json"))
        receipt.report(Path(folder, "report.html"))
        Path(folder, "receipt.txt").write_text(f"{receipt}\n", encoding="utf-8")
        client.log_artifacts(run_id, folder)
