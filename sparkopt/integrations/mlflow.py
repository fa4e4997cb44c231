"""MLflow: parameters, metrics by step, receipt and model of a fit in one call. Only a call imports it.

Logged models are data (JSON, Parquet, safetensors), and score pandas DataFrames without Spark. They carry the wheel
of the sparkopt that logged them, which their requirements install: no index need have it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkopt import __version__
from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.integrations.pyfunc import is_scored_here, scorer_of, write
from sparkopt.integrations.runs import (
    log_candidates,
    log_dataset,
    log_metrics,
    log_model_params,
    log_receipt,
    log_values,
    step_of,
)
from sparkopt.integrations.signature import signature_of
from sparkopt.integrations.wheel import write_wheel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["log_fit", "log_model", "save_model"]

logger = logging.getLogger(__name__)

LOADER = "sparkopt.integrations.pyfunc"


def log_fit(
    model: Any,
    name: str = "model",
    example: pd.DataFrame | None = None,
    *,
    held_out: Mapping[str, float] = MappingProxyType({}),
    dataset: bool = True,
) -> Any:
    """Log a fitted model to the active MLflow run: parameters, metrics, receipt, and the model itself.

    A run may have several models: one of another name than "model" has it in front of the names of its parameters and
    metrics, ``churn.objective``. Of a pipeline, parameters of stages before the last have their class in front; of a
    search, the best model is logged, and the average metric of every candidate. The run has the data that the model
    was trained on as a dataset, and the tag ``sparkopt.version``.

    Metrics by step are ``objective`` and ``validation_loss``; for a network, by epoch, ``loss``, ``validation``,
    ``rate`` and its own metrics. Metrics that a logger has logged during the fit are not logged again. Costs are
    metrics too: ``receipt.total_time``, ``receipt.bytes_sent`` and so on. Artifacts are ``receipt.json``,
    ``receipt.txt`` and ``report.html``. A loaded model has no receipt: only its parameters and itself are logged.

    Parameters
    ----------
    model : LinearModel, TorchModel, PipelineModel, CrossValidatorModel, TrainValidationSplitModel
        The result of ``fit``. Models of pyspark.ml, and pipelines with such stages, are logged as MLflow's flavor
        "spark", which needs Spark to score.
    name : str, default "model"
        The logged model's name.
    example : pandas.DataFrame, optional
        Some rows of features: the model's example, from which its signature follows. Vectors must be lists. Without
        it, the signature follows from the model's columns.
    held_out : mapping of str to float, optional
        Metrics on rows that it was not trained on, which are logged as ``held_out.accuracy`` and so on.
    dataset : bool, default True
        Whether the rows that it was trained on are logged as a dataset.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Location of the model: ``mlflow.pyfunc.load_model(info.model_uri)``.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    ParameterError
        Where no run is active, or it has a model of this name with other parameters.

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
    run_id, client = _active(mlflow).info.run_id, mlflow.MlflowClient()
    fitted, prefix = _best(model), "" if name == "model" else f"{name}."
    log_model_params(mlflow, client, run_id, fitted, prefix, name)
    client.set_tag(run_id, "sparkopt.version", __version__)
    summary = _summary_of(fitted)
    if summary is not None:
        log_metrics(mlflow, client, run_id, summary, prefix)
        log_receipt(client, run_id, summary.receipt, None if name == "model" else f"receipts/{name}")
        if dataset:
            log_dataset(mlflow, client, run_id, getattr(summary, "dataset", None), summary.receipt)
    log_values(mlflow, client, run_id, {f"{prefix}held_out.{key}": value for key, value in held_out.items()})
    log_candidates(mlflow, client, run_id, model, prefix)
    return log_model(model, name, example)


def log_model(model: Any, name: str = "model", example: pd.DataFrame | None = None) -> Any:
    """Log a model, without its metrics and receipt, to the active MLflow run.

    Parameters
    ----------
    model : LinearModel, TorchModel, PipelineModel, …
        The model, as in :func:`log_fit`.
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
        summary = _summary_of(_best(model))
        step = step_of(summary.receipt) if summary is not None else 0
        target = {"name": name, "step": step}  # MLflow shows the metrics of this step with the model
    with tempfile.TemporaryDirectory() as folder:
        if not is_scored_here(_best(model)):
            return _of_spark(mlflow).log_model(_best(model), artifact_path=name, **_spark_parts(mlflow, Path(folder)))
        return mlflow.pyfunc.log_model(**target, **_parts(mlflow, _best(model), Path(folder), example))


def save_model(model: Any, path: str | Path, example: pd.DataFrame | None = None) -> None:
    """Write an MLflow model to a folder of this machine; neither a run nor a server is needed.

    Parameters
    ----------
    model : LinearModel, TorchModel, PipelineModel, …
        The model, as in :func:`log_fit`.
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
        if not is_scored_here(_best(model)):
            _of_spark(mlflow).save_model(_best(model), str(path), **_spark_parts(mlflow, Path(folder)))
            return
        mlflow.pyfunc.save_model(path=str(path), **_parts(mlflow, _best(model), Path(folder), example))


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


def _best(model: Any) -> Any:
    """Return the best model of a search; other models are their own."""
    return getattr(model, "bestModel", model)


def _last(model: Any) -> Any:
    """Return the last stage of a pipeline; other models are their own."""
    stages = getattr(model, "stages", None)
    return _last(stages[-1]) if stages else model


def _summary_of(model: Any) -> Any:
    """Return the summary of a fit; None of a loaded model, and of pyspark.ml's, whose fits have no receipt."""
    last = _last(model)
    summary = last.summary if getattr(last, "hasSummary", False) else None
    return summary if hasattr(summary, "receipt") else None


def _of_spark(mlflow: Any) -> Any:
    import mlflow.spark

    return mlflow.spark


def _spark_parts(mlflow: Any, folder: Path) -> dict[str, Any]:
    """Return the arguments that say what loads a model of MLflow's flavor "spark"."""
    found = _environment(mlflow, folder, "")
    return {**found, "pip_requirements": [_spark_itself(), *found["pip_requirements"]]}


def _spark_itself() -> str:
    """Return the requirement of the package that brings pyspark here, which need not be pyspark."""
    names = packages_distributions().get("pyspark", ["pyspark"])
    return f"{names[0]}=={version(names[0])}"


def _parts(mlflow: Any, model: Any, folder: Path, example: pd.DataFrame | None) -> dict[str, Any]:
    """Return the arguments that describe a model to MLflow, after writing its data below ``folder``."""
    data = folder / "model"
    write(model, data)
    parts: dict[str, Any] = {
        "loader_module": LOADER,
        "data_path": str(data),
        **_environment(mlflow, folder, "[spark,deep]" if _is_deep(model) else "[spark]"),
    }
    if example is not None:
        parts["signature"] = mlflow.models.infer_signature(example, scorer_of(model).predict(example))
        parts["input_example"] = example
    elif (signature := signature_of(mlflow, model)) is not None:
        parts["signature"] = signature
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
