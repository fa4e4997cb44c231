"""Deep models: PyTorch networks trained on DataFrames, in one process or many, on CPUs or GPUs."""

from sparkopt.deep.estimator import TorchEstimator
from sparkopt.deep.loggers import Logger, MLflow, TensorBoard
from sparkopt.deep.model import TorchModel
from sparkopt.deep.modules import builder

__all__ = ["Logger", "MLflow", "TensorBoard", "TorchEstimator", "TorchModel", "builder"]
