"""What MLflow loads a model with: ``_load_pyfunc`` reads data, and its result scores pandas DataFrames.

Neither a SparkSession nor Java is needed. A logged model is the folder that ``model.save`` would write: JSON, and
Parquet or safetensors; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.io.metadata import damage, read_metadata

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PandasScorer", "is_scored_here", "scorer_of", "write"]


class PandasScorer:
    """A model with the method that MLflow calls.

    Parameters
    ----------
    model : LinearModel or TorchModel
        The model.
    score : callable
        Function of the model and a pandas DataFrame that returns the output columns.
    """

    def __init__(self, model: Any, score: Callable[[Any, pd.DataFrame], pd.DataFrame]) -> None:
        self.model, self._score = model, score

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the output columns of ``model.transform``, as pandas; ``params`` are ignored."""
        return self._score(self.model, model_input)


def is_scored_here(model: Any) -> bool:
    """Whether a model scores without Spark; pyspark.ml's own, and pipelines with such a stage, do not."""
    name = type(model).__module__
    return name.startswith("sparkopt.deep.") or bool(_module_for(name).is_local(model))


def scorer_of(model: Any) -> PandasScorer:
    """Return what scores pandas DataFrames with a model."""
    return PandasScorer(model, _module_for(type(model).__module__).score)


def write(model: Any, folder: Path) -> None:
    """Write a model's folder without Spark."""
    _module_for(type(model).__module__).write(model, folder)


def _load_pyfunc(path: str) -> PandasScorer:
    """Return the model in a folder; MLflow calls this function by its name."""
    with damage(path):
        kind = str(read_metadata(path)["class"])
    return scorer_of(_module_for(kind).read(path))


def _module_for(name: str) -> Any:
    """Return the module that reads, writes and scores models of a class, by the name of the class or its module."""
    if name.startswith("sparkopt.deep."):
        from sparkopt.deep import local as networks

        return networks
    from sparkopt.ml import local as linear

    return linear
