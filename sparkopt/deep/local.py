"""Networks without Spark: write and read them on this machine, and score a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkopt.deep.model import WEIGHTS, TorchModel, facts_of, restored
from sparkopt.deep.tables import frame_outputs
from sparkopt.errors import DataError
from sparkopt.io.metadata import read_metadata, write_metadata

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "score", "write"]


def write(model: TorchModel, folder: Path) -> None:
    """Write a model as ``model.save`` does; with Spark, ``TorchModel.load`` reads it from there."""
    write_metadata(model, folder, facts_of(model))
    (folder / WEIGHTS).write_bytes(model.weights)


def read(folder: str | Path) -> TorchModel:
    """Return the model in a folder of this machine, written by ``write`` or by Spark.

    Raises
    ------
    DataError
        Where no network was saved there, or it names one that may not be built.
    """
    metadata = read_metadata(folder)
    if metadata["class"] != f"{TorchModel.__module__}.{TorchModel.__name__}":
        raise DataError(f"{str(folder)!r} holds a {metadata['class']}, and no network.")
    return restored(metadata, Path(folder, WEIGHTS).read_bytes())


def score(model: TorchModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become lists.

    Parameters
    ----------
    model : TorchModel
        The model.
    frame : pandas.DataFrame
        The features: columns of numbers, of lists or arrays (nested to any depth), or of encoded images as bytes.

    Raises
    ------
    SchemaError
        Where a column is missing, or holds something else.
    DataError
        For a null, a number that is not finite, or rows of unlike shapes.
    """
    return frame_outputs(model, frame)
