"""What MLflow loads a model with: ``_load_pyfunc`` reads data, and what it returns scores pandas DataFrames.

Neither a SparkSession nor Java is needed. A logged model is the folder that ``model.save`` would write: JSON, and
Parquet or safetensors; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.io.metadata import read_metadata

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scorer", "scorer_of", "write"]


class Scorer:
    """A model as MLflow asks it.

    Parameters
    ----------
    model : LinearModel or TorchModel
        The model.
    score : callable
        The model and a pandas DataFrame to the output columns.
    """

    def __init__(self, model: Any, score: Callable[[Any, pd.DataFrame], pd.DataFrame]) -> None:
        self.model, self._score = model, score

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the output columns of ``model.transform``, as pandas; ``params`` are not asked for."""
        return self._score(self.model, model_input)


def scorer_of(model: Any) -> Scorer:
    """Return what scores pandas DataFrames with a model."""
    return Scorer(model, _home(f"{type(model).__module__}.").score)


def write(model: Any, folder: Path) -> None:
    """Write a model's folder, without Spark."""
    _home(f"{type(model).__module__}.").write(model, folder)


def _load_pyfunc(path: str) -> Scorer:
    """Return the model in a folder; MLflow calls it by this name."""
    return scorer_of(_home(read_metadata(path)["class"]).read(path))


def _home(name: str) -> Any:
    """Return the module that knows models of a class."""
    if name.startswith("sparkopt.deep."):
        from sparkopt.deep import local

        return local
    from sparkopt.ml import local as linear

    return linear
