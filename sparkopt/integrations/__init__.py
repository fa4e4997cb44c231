"""Other systems: MLflow, notebooks and a registry of models in plain files.

A fit and its model go to MLflow (``mlflow``; ``pyfunc`` is what MLflow loads a model with), a notebook reads its parameters
(``notebook``), and a pipeline accepts models and finds the one in use (``model_registry``). May import every package but
`jobs`. Importing it loads neither Spark nor torch nor MLflow, so a scheduler's process can use the registry. Start
reading at ``mlflow.log_fit``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt.integrations.mlflow import log_fit, log_model, save_model
    from sparkopt.integrations.model_registry import Accepted, ModelRegistry, refusal
    from sparkopt.integrations.notebook import widget

__all__ = ["Accepted", "ModelRegistry", "log_fit", "log_model", "refusal", "save_model", "widget"]

_LAZY = {
    "Accepted": "model_registry",
    "ModelRegistry": "model_registry",
    "log_fit": "mlflow",
    "log_model": "mlflow",
    "refusal": "model_registry",
    "save_model": "mlflow",
    "widget": "notebook",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"sparkopt.integrations.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
