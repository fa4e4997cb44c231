"""Networks without Spark: write and read them on this machine, and score a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkopt.deep.model import TorchModel, read_from, saved_in
from sparkopt.deep.tables import frame_outputs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "score", "write"]

write, read = saved_in, read_from


def score(model: TorchModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become lists.

    Images are given as bytes: who may ask a served model must not have its machine's files read.
    """
    return frame_outputs(model, frame, paths=False)
