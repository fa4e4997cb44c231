"""From a network's output to columns: predictions, probabilities and scores, as pyspark.ml names them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import torch
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType

from sparkopt.errors import ParameterError
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["Outputs", "on_scale"]


def on_scale(task: str, output: torch.Tensor) -> torch.Tensor:
    """Return an output on the scale of the labels: probabilities, counts or values."""
    if task == "classes":
        return torch.softmax(output, 1)
    if task == "binary":
        return torch.sigmoid(output)
    return output.exp() if task == "counts" else output


@dataclass(frozen=True)
class Outputs:
    """What a model's output becomes.

    Parameters
    ----------
    task : {"classes", "binary", "probability", "counts", "values"}
        What an output means; see :data:`sparkopt.deep.losses.TASKS`.
    shape : tuple of int
        What the module gives for a row.
    """

    task: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.task == "classes" and not self.shape:
            raise ParameterError(
                f"the module gives {self.shape} a row, which is no {self.task!r} prediction. Set task='values'."
            )

    @property
    def size(self) -> int:
        """Numbers of a row's output."""
        return math.prod(self.shape)

    @property
    def _is_one(self) -> bool:
        """Whether a row has one prediction: one class, label or value."""
        return self.size == 1 if self.task != "classes" else len(self.shape) == 1

    def types(self) -> dict[str, DataType]:
        """Return the type of each output column.

        Where a row has several predictions (several labels, or a class for each position), they are an array.
        """
        prediction = DoubleType() if self._is_one else ArrayType(FloatType())
        if self.task in ("values", "counts") or (self.task == "classes" and not self._is_one):
            return {"prediction": prediction}
        return {"rawPrediction": VectorUDT(), "probability": VectorUDT(), "prediction": prediction}

    def columns(self, output: torch.Tensor) -> dict[str, pa.Array]:
        """Return the columns of an output (rows, …), as Arrow; Vectors are lists of doubles here."""
        output = output.detach().cpu().reshape(len(output), *self.shape)
        if self.task in ("values", "counts"):
            return {"prediction": self._predictions(on_scale(self.task, output.float()))}
        if self.task == "classes":
            raw = output.double()
            chosen = self._predictions(raw.argmax(1))
            if not self._is_one:
                return {"prediction": chosen}
            probability = torch.softmax(raw, 1)
        else:
            raw, probability = self._of_labels(output.reshape(len(output), -1).double())
            chosen = self._predictions(probability[:, -self.size :] > 0.5)
        return {
            "rawPrediction": _lists(raw.numpy()),
            "probability": _lists(probability.numpy()),
            "prediction": chosen,
        }

    def _of_labels(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and probabilities of labels, (rows, labels); of one label, those of classes 0 and 1."""
        if self.task == "probability":
            raw, probability = torch.logit(output), output
        else:
            raw, probability = output, torch.sigmoid(output)
        if self.size > 1:
            return raw, probability
        other = 1 - probability if self.task == "probability" else torch.sigmoid(-output)
        return torch.cat([-raw, raw], 1), torch.cat([other, probability], 1)

    def _predictions(self, values: torch.Tensor) -> pa.Array:
        found = values.reshape(len(values), -1)
        return pa.array(found[:, 0].double().numpy()) if self._is_one else _lists(found.float().numpy())


def _lists(values: Array) -> pa.Array:
    rows, width = values.shape
    offsets = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1)))
