"""From a network's output to columns: predictions, probabilities and scores, as pyspark.ml names them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType

from sparkopt.errors import ParameterError
from sparkopt.typing import Array

__all__ = ["Outputs"]


@dataclass(frozen=True)
class Outputs:
    """What a model's output becomes.

    Parameters
    ----------
    task : {"classes", "binary", "values"}
        Scores of classes, one score of class 1, or the predicted values themselves.
    shape : tuple of int
        What the module gives for a row.
    """

    task: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = {"classes": len(self.shape) == 1, "binary": self.size == 1, "values": True}[self.task]
        if not fits:
            raise ParameterError(
                f"the module gives {self.shape} a row, which is no {self.task!r} prediction. Set task='values'."
            )

    @property
    def size(self) -> int:
        """Numbers of a row's output."""
        return math.prod(self.shape)

    def types(self) -> dict[str, DataType]:
        """Return the type of each output column."""
        if self.task == "values":
            return {"prediction": DoubleType() if self.size == 1 else ArrayType(FloatType())}
        return {"rawPrediction": VectorUDT(), "probability": VectorUDT(), "prediction": DoubleType()}

    def columns(self, output: torch.Tensor) -> dict[str, pa.Array]:
        """Return the columns of an output (rows, …), as Arrow."""
        output = output.detach().cpu().reshape(len(output), -1)
        if self.task == "values":
            values = output.float().numpy()
            return {"prediction": pa.array(values[:, 0].astype(np.float64)) if self.size == 1 else _lists(values)}
        raw = output.double()
        if self.task == "binary":
            raw = torch.cat([-raw, raw], 1)
            probability = torch.sigmoid(raw)
        else:
            probability = torch.softmax(raw, 1)
        chosen = raw.argmax(1).double()
        return {
            "rawPrediction": _vectors(raw.numpy()),
            "probability": _vectors(probability.numpy()),
            "prediction": pa.array(chosen.numpy()),
        }


def _lists(values: Array) -> pa.Array:
    rows, width = values.shape
    offsets = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1)))


def _vectors(values: Array) -> pa.Array:
    """Return what pyspark.ml's dense vectors are made of: type 1."""
    rows = len(values)
    fields = [pa.array(np.ones(rows, np.int8)), pa.nulls(rows, pa.int32()), pa.nulls(rows, pa.list_(pa.int32()))]
    return pa.StructArray.from_arrays([*fields, _lists(values)], ["type", "size", "indices", "values"])
