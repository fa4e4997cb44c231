"""Other systems: MLflow, notebooks and a registry of models in plain files.

``mlflow`` logs a fit and its model: ``runs`` is what it tells a run, ``signature`` describes the model's columns,
``pyfunc`` is what MLflow loads such a model with, and ``wheel`` makes the package that the model carries for its
environment. ``autologging`` logs every fit. ``drop_in`` runs code written for pyspark.ml with sparkopt's estimators.
``notebook`` reads a notebook's parameters. ``model_registry`` accepts models and finds the one in use. The package
may import every other one but ``jobs``. Importing it loads neither Spark nor torch nor MLflow: a scheduler's process
uses the registry. Start reading at ``mlflow.log_fit``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt.integrations.autologging import autolog
    from sparkopt.integrations.drop_in import Replacement, replace_pyspark_ml, run_script
    from sparkopt.integrations.mlflow import log_fit, log_model, save_model
    from sparkopt.integrations.model_registry import Accepted, ModelRegistry, refusal
    from sparkopt.integrations.notebook import widget

__all__ = [
    "Accepted",
    "ModelRegistry",
    "Replacement",
    "autolog",
    "log_fit",
    "log_model",
    "refusal",
    "replace_pyspark_ml",
    "run_script",
    "save_model",
    "widget",
]

_LAZY = {
    "Accepted": "model_registry",
    "ModelRegistry": "model_registry",
    "Replacement": "drop_in",
    "autolog": "autologging",
    "log_fit": "mlflow",
    "log_model": "mlflow",
    "refusal": "model_registry",
    "replace_pyspark_ml": "drop_in",
    "run_script": "drop_in",
    "save_model": "mlflow",
    "widget": "notebook",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"sparkopt.integrations.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
