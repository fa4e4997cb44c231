"""Where training is: what a checkpoint holds apart from the learner's own state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import torch

from sparkopt.values import dataclass

__all__ = ["TrainingState"]


@dataclass
class TrainingState:
    """Progress of a training, equal on all ranks; the loop changes it.

    Attributes
    ----------
    epoch, step : int
        The next step: ``step`` steps of ``epoch`` are done.
    losses : list of float
        Mean loss of each step.
    history : list of dict
        One record for each epoch; see :meth:`sparkopt.deep.events.EpochEnded.record`.
    best : dict of str to Tensor, or None
        Weights of the best epoch, where training may end early.
    best_value : float
        The loss of that epoch.
    stale : int
        Epochs since then.
    unreported : int
        Of the last steps, those whose losses the driver was not sent, since a rank was lost.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None
    best_value: float = math.inf
    stale: int = 0
    unreported: int = 0

    def compare(self, value: float, weights: Mapping[str, torch.Tensor], min_delta: float) -> None:
        """Copy the weights if the epoch's loss is the best so far, by more than ``min_delta``."""
        if value < self.best_value - min_delta:
            self.best_value, self.stale = value, 0
            self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            self.stale += 1
