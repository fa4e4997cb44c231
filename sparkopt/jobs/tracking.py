"""The flag ``--mlflow``: a command's flags, figures, data, files and model as a run of MLflow."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sparkopt
from sparkopt.errors import DataError, MissingDependencyError
from sparkopt.io.secrets import mask
from sparkopt.jobs import manifest
from sparkopt.jobs.manifest import JobIdentity

__all__ = ["check_tracking", "log_run", "tracking_flag"]


def tracking_flag(flags: argparse._ArgumentGroup) -> None:
    """Add the flag."""
    flags.add_argument(
        "--mlflow",
        metavar="EXPERIMENT",
        help="log a run there: flags, metrics, data, report and model. MLFLOW_TRACKING_URI says where the server is",
    )


def check_tracking(args: argparse.Namespace) -> None:
    """Find the experiment, or make it, before the work: a server that does not answer is known in time.

    Raises
    ------
    MissingDependencyError
        Where mlflow is not installed.
    DataError
        Where MLflow does not answer.
    """
    if not getattr(args, "mlflow", None):
        return
    mlflow = _mlflow()
    try:
        mlflow.set_experiment(args.mlflow)
    except Exception as error:  # of any kind of store
        raise DataError(f"--mlflow {args.mlflow!r} cannot be used: {_line(error)}") from error


def log_run(
    args: argparse.Namespace, identity: JobIdentity, metrics: Mapping[str, Any], files: Path, model: Any
) -> str:
    """Log a run; return its id.

    Parameters
    ----------
    args : Namespace
        The flags.
    identity : JobIdentity
        What ran, on which data.
    metrics : mapping
        Its figures.
    files : Path
        Folder of its small files.
    model : Model or None
        The model that it trained.

    Raises
    ------
    DataError
        Where MLflow refuses.
    """
    mlflow = _mlflow()
    try:
        return _logged(mlflow, args, identity, metrics, files, model)
    except Exception as error:  # of any kind of store
        raise DataError(f"the output is written, but MLflow has refused the run: {_line(error)}") from error


def _logged(
    mlflow: Any, args: argparse.Namespace, identity: JobIdentity, metrics: Mapping[str, Any], files: Path, model: Any
) -> str:
    from sparkopt.integrations.mlflow import log_fit
    from sparkopt.integrations.runs import log_input, log_params, log_values

    mlflow.set_experiment(args.mlflow)
    with mlflow.start_run(run_name=f"sparkopt {identity.job}") as run:
        run_id, client = run.info.run_id, mlflow.MlflowClient()
        commit = manifest.git_commit()
        tags = {"sparkopt.version": sparkopt.__version__, "sparkopt.job": identity.job, "sparkopt.commit": commit}
        mlflow.set_tags({name: value for name, value in tags.items() if value})
        flags = {f"flag.{name}": _text(value) for name, value in identity.config.items() if value not in (None, [])}
        log_params(mlflow, client, run_id, flags, "manifest")
        numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        data = identity.inputs.get("data") or {}
        fingerprint = str(data.get("digest") or data.get("version") or "unknown")
        source = getattr(args, "source", None)
        log_input(
            mlflow, client, run_id, str(source or args.input), fingerprint, {**data, "rows": metrics.get("rows")}
        )
        if model is None:
            log_values(mlflow, client, run_id, numbers)
        else:
            log_fit(model, held_out=numbers, dataset=False)
        client.log_artifacts(run_id, str(files))
    return str(run_id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise MissingDependencyError.of("--mlflow", "mlflow", "mlflow") from error
    return mlflow


def _line(error: Exception) -> str:
    text = str(error).strip()
    return mask(text.splitlines()[0]) if text else type(error).__name__
