"""Networks without Spark: write and read them on this machine, and score a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkopt.deep.builders import Reference
from sparkopt.deep.model import TorchModel, read_model, saved_of
from sparkopt.deep.persistence import saved_in
from sparkopt.deep.tables import frame_outputs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "score", "write"]

read = read_model


def write(model: TorchModel, folder: Path) -> None:
    """Write a model into a folder of this machine, for a process that knows no more than the folder.

    Raises
    ------
    ParameterError, DataError
        Where what builds the network has no name that such a process could import.
    """
    Reference.of(model._build)
    saved_in(saved_of(model), folder)


def score(model: TorchModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become lists.

    Images are given as bytes: who may ask a served model must not have its machine's files read.
    """
    return frame_outputs(model, frame, paths=False)
