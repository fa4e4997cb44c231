"""PyTorch networks trained on DataFrames, in one process or many, on CPUs or GPUs.

``estimator`` and ``model`` are the pyspark.ml API. The driver writes the rows to a store
(:mod:`sparkopt.shards`) and starts the ranks (``launching``). Each rank runs ``worker.train``: batches come from
``data_loader`` (``stream``, ``batch``), ``loop`` trains the ``learner``, and ``events`` go to listeners: checkpoints
(``recovery``), loggers, and the driver (``progress``). The package may import every other one except ``ml``,
``integrations`` and ``jobs``. Start reading at ``worker.train`` and ``loop``.

PyTorch is imported once a name below is used: executors that only write rows to storage do not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.errors import MissingDependencyError

if TYPE_CHECKING:
    from sparkopt.deep.builders import builder
    from sparkopt.deep.estimator import TorchEstimator
    from sparkopt.deep.keras_estimator import KerasEstimator
    from sparkopt.deep.keras_model import KerasModel
    from sparkopt.deep.loggers import Logger, MLflow, TensorBoard
    from sparkopt.deep.matrix_optimizers import MuonWithAdamW, SoapWithAdam, muon, soap
    from sparkopt.deep.model import TorchModel
    from sparkopt.deep.networks import ConvNet
    from sparkopt.deep.row_step import StepBatch
    from sparkopt.deep.row_store import RowStore
    from sparkopt.deep.summary import TorchTrainingSummary

__all__ = [
    "ConvNet",
    "KerasEstimator",
    "KerasModel",
    "Logger",
    "MLflow",
    "MuonWithAdamW",
    "RowStore",
    "SoapWithAdam",
    "StepBatch",
    "TensorBoard",
    "TorchEstimator",
    "TorchModel",
    "TorchTrainingSummary",
    "builder",
    "muon",
    "soap",
]

_LAZY = {
    "ConvNet": "networks",
    "KerasEstimator": "keras_estimator",
    "KerasModel": "keras_model",
    "Logger": "loggers",
    "MLflow": "loggers",
    "MuonWithAdamW": "matrix_optimizers",
    "RowStore": "row_store",
    "SoapWithAdam": "matrix_optimizers",
    "StepBatch": "row_step",
    "TensorBoard": "loggers",
    "TorchEstimator": "estimator",
    "TorchModel": "model",
    "TorchTrainingSummary": "summary",
    "builder": "builders",
    "muon": "matrix_optimizers",
    "soap": "matrix_optimizers",
}


_PACKAGES = {"torch": "PyTorch", "safetensors": "safetensors"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"sparkopt.deep.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent not in _PACKAGES:
            raise
        raise MissingDependencyError.of(f"sparkopt.deep.{name}", _PACKAGES[absent], "deep") from error
