"""What a run of MLflow is told of a fit: parameters, metrics by step, candidates, data and receipt."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from sparkopt.errors import ParameterError
from sparkopt.io.fingerprint import digest
from sparkopt.io.secrets import mask
from sparkopt.report import DeepReceipt, Receipt

__all__ = [
    "log_candidates",
    "log_dataset",
    "log_input",
    "log_metrics",
    "log_model_params",
    "log_params",
    "log_receipt",
    "log_values",
    "params_of",
    "step_of",
]

logger = logging.getLogger(__name__)

LONGEST = 500
"""Characters of a parameter's value that every MLflow server accepts."""
PARAMS = 100
"""Parameters that a server accepts in one request."""
MOST_DIGEST = 36
"""Characters of a dataset's digest."""
BATCH = 1000
"""Metrics that a server accepts in one request."""
NOT_METRICS = frozenset({"epoch", "seconds", "waited", "rows"})
"""Entries of a network's history that are neither losses nor metrics nor the learning rate."""


def log_model_params(mlflow: Any, client: Any, run_id: str, model: Any, prefix: str, name: str) -> None:
    """Log the parameters of the model and its training, except values that are too long."""
    found = {f"{prefix}{key}": value for key, value in params_of(model).items()}
    known = client.get_run(run_id).data.params
    for key, value in found.items():
        if key in known and known[key] != value:
            raise ParameterError(
                f"the MLflow run has {key}={known[key]!r} of another model, and this one has {value!r}. A run takes "
                f"several models by other names than {name!r}: log_fit(model, name='…')."
            )
    log_params(mlflow, client, run_id, found, "model")


def log_params(mlflow: Any, client: Any, run_id: str, params: Mapping[str, str], where: str) -> None:
    """Log parameters, as many at a time as a server accepts, except values that are too long, which ``where`` has."""
    for key, value in params.items():
        if len(value) > LONGEST:
            logger.warning(
                "parameter %s has %d characters and is not logged: it is in the %s.", key, len(value), where
            )
    entries = [mlflow.entities.Param(key, value) for key, value in params.items() if len(value) <= LONGEST]
    for start in range(0, len(entries), PARAMS):
        client.log_batch(run_id, params=entries[start : start + PARAMS])


def _log_batches(client: Any, run_id: str, metrics: Sequence[Any]) -> None:
    """Log metrics, as many at a time as a server accepts."""
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


def params_of(model: Any) -> dict[str, str]:
    """Return a model's class and parameters as text; those of a pipeline's earlier stages with their class."""
    stages = getattr(model, "stages", None)
    if not stages:
        return {"model": type(model).__name__, **_values(model)}
    kinds = [type(stage).__name__ for stage in stages]
    found = {"model": type(model).__name__, "stages": ", ".join(kinds)}
    for place, (stage, kind) in enumerate(zip(stages[:-1], kinds, strict=False)):
        number = f"{kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else ""
        found |= {f"{kind}{number}.{key}": value for key, value in _values(stage).items()}
    return {**found, **_values(stages[-1])}


def _values(model: Any) -> dict[str, str]:
    return {
        param.name: mask(value if isinstance(value, str) else json.dumps(value, default=str))
        for param, value in model.extractParamMap().items()
    }


def log_values(mlflow: Any, client: Any, run_id: str, values: Mapping[str, float | Sequence[float]]) -> None:
    """Log metrics that have one value, or one by step; what is no finite number is left out."""
    now = round(1000 * time.time())
    found = [
        mlflow.entities.Metric(name, float(value), now, step)
        for name, several in values.items()
        for step, value in enumerate(several if isinstance(several, Sequence) else [several])
        if isfinite(value)
    ]
    _log_batches(client, run_id, found)


def log_candidates(mlflow: Any, client: Any, run_id: str, model: Any, prefix: str) -> None:
    """Log the metrics of a search, by the number of the candidate."""
    names = ("avgMetrics", "stdMetrics", "validationMetrics")
    values = {f"{prefix}{name}": list(getattr(model, name, None) or []) for name in names}
    log_values(mlflow, client, run_id, values)


def log_dataset(mlflow: Any, client: Any, run_id: str, rows: Any, receipt: Any) -> None:
    """Say which rows a model was trained on: their source, and a digest of their shape.

    Parameters
    ----------
    mlflow, client, run_id : module, MlflowClient, str
        MLflow.
    rows : DataFrame, Table or other
        The rows.
    receipt : Receipt
        Of the fit.
    """
    if rows is None:
        return
    source = _source_of(rows)
    shape = {"rows": receipt.rows, "features": getattr(receipt, "features", None)}
    log_input(mlflow, client, run_id, source, digest({"source": source, **shape}), shape)


def log_input(
    mlflow: Any, client: Any, run_id: str, source: str, fingerprint: str, profile: Mapping[str, Any]
) -> None:
    """Log what a run has read, under MLflow's context "training"."""
    entities, shown = mlflow.entities, mask(source)
    scheme, is_uri, _ = shown.partition("://")
    path = shown.partition("?")[0] if is_uri else shown
    dataset = entities.Dataset(
        name=path.rstrip("/").rpartition("/")[2][:LONGEST] or "rows",
        digest=fingerprint[:MOST_DIGEST],
        source_type=scheme if is_uri else "local",
        source=json.dumps({"uri": shown}),
        profile=json.dumps(dict(profile)),
    )
    tag = entities.InputTag("mlflow.data.context", "training")
    client.log_inputs(run_id, datasets=[entities.DatasetInput(dataset, [tag])])


def _source_of(rows: Any) -> str:
    """Return what rows are read from: the first file, or the kind of object."""
    if hasattr(rows, "inputFiles"):
        try:
            files = rows.inputFiles()
        except Exception as error:  # noqa: BLE001  # of Spark, which this module does not import
            logger.debug("the files of the DataFrame are not known: %s", error)
            files = []
        return files[0] if files else "a DataFrame"
    parts = getattr(rows, "partitions", ())
    return str(getattr(parts[0], "name", "a table")) if parts else type(rows).__name__


def log_metrics(mlflow: Any, client: Any, run_id: str, summary: Any, prefix: str) -> None:
    """Log metrics by step, except those that are logged already, and the figures of the receipt."""
    run = client.get_run(run_id)
    known, begin = run.data.metrics, run.info.start_time
    kind = mlflow.entities.Metric
    end = step_of(summary.receipt)
    metrics = [
        kind(prefix + name, value, begin + round(1000 * seconds), step)
        for name, step, seconds, value in _history(summary)
        if prefix + name not in known
    ]
    for measure in summary.receipt.facts().measures:
        name = f"{prefix}receipt.{measure.name.replace(' ', '_').replace('-', '_')}"
        metrics.append(kind(name, float(measure.value), begin, end))
    _log_batches(client, run_id, metrics)


def step_of(receipt: Receipt | DeepReceipt) -> int:
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


def log_receipt(client: Any, run_id: str, receipt: Any, below: str | None) -> None:
    """Log a receipt as data, text and page, in a folder of the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        receipt.save(Path(folder, "receipt.json"))
        receipt.report(Path(folder, "report.html"))
        Path(folder, "receipt.txt").write_text(f"{receipt}\n", encoding="utf-8")
        client.log_artifacts(run_id, folder, below)
