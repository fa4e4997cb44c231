"""Linear models on this machine, for MLflow: written, read, and applied to a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.errors import DataError
from sparkopt.io.metadata import damage, read_metadata
from sparkopt.io.saved import FileSession
from sparkopt.ml import classification, generalized, regression, svm
from sparkopt.ml.model import LinearModel
from sparkopt.ml.saving import load_stage, save_stage
from sparkopt.ml.table_scoring import frame_outputs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "score", "write"]

KINDS = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        classification.LogisticRegressionModel,
        generalized.GeneralizedLinearRegressionModel,
        regression.LinearRegressionModel,
        regression.QuantileRegressionModel,
        svm.LinearSVCModel,
    )
}
"""Classes that may be read: no other name in a file is imported."""


def write(model: LinearModel[Any], folder: Path) -> None:
    """Write a model as ``model.save`` does; with Spark, the model's class can load it."""
    save_stage(model, str(folder), FileSession())


def read(folder: str | Path) -> LinearModel[Any]:
    """Return the model in a folder of this machine which ``write`` or Spark wrote.

    Raises
    ------
    DataError
        Where no linear model was saved there.
    """
    with damage(str(folder)):
        kind = read_metadata(folder)["class"]
    if kind not in KINDS:
        raise DataError(f"{str(folder)!r} holds a {kind}, which is no linear model of sparkopt.")
    model: LinearModel[Any] = load_stage(str(folder), FileSession())
    return model


def score(model: LinearModel[Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become arrays.

    Parameters
    ----------
    model : LinearModel
        The model.
    frame : pandas.DataFrame
        The features: one column of lists, arrays or Vectors, or the numeric columns that the model was trained on.

    Raises
    ------
    SchemaError
        Where a column is missing.
    DataError
        Where a row has another number of features, or none.
    """
    found: pd.DataFrame = frame_outputs(model, frame)
    return found
