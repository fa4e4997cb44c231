"""Deep models: PyTorch networks trained on DataFrames, in one process or many, on CPUs or GPUs.

PyTorch is imported once a name below is used: the executors that only write rows to storage do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt.deep.builders import builder
    from sparkopt.deep.estimator import TorchEstimator
    from sparkopt.deep.loggers import Logger, MLflow, TensorBoard
    from sparkopt.deep.model import TorchModel

__all__ = ["Logger", "MLflow", "TensorBoard", "TorchEstimator", "TorchModel", "builder"]

_HOMES = {
    "Logger": "loggers",
    "MLflow": "loggers",
    "TensorBoard": "loggers",
    "TorchEstimator": "estimator",
    "TorchModel": "model",
    "builder": "builders",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sparkopt.deep.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
