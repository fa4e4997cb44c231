"""The coordinates in which the solver works: features of equal curvature, and a penalty that means the same there."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.losses import Loss, ProjectionLoss
from sparkopt.objective.linear import LinearObjective
from sparkopt.penalties import Penalty
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["Initial", "SolverCoordinates"]

Initial: TypeAlias = tuple[Floats, Floats] | tuple[Floats, Floats, Floats]
"""Coefficients (features, outputs), intercept (outputs,) in the user's units, and the loss's auxiliary parameters."""


@dataclass(frozen=True)
class SolverCoordinates:
    """What one model minimises, in the solver's coordinates.

    Attributes
    ----------
    objective : LinearObjective
        The mean loss.
    penalty : Penalty
        The penalty.
    moments : Moments
        Of the rows that the model is trained on.
    """

    objective: LinearObjective
    penalty: Penalty
    moments: Moments

    @classmethod
    def of(
        cls,
        loss: Loss,
        penalty: Penalty,
        moments: Moments,
        *,
        fit_intercept: bool,
        standardization: bool,
        scale_target: bool,
    ) -> SolverCoordinates:
        """Choose the coordinates by the rows' moments; parameters are those of ``Trainer``."""
        std, mean = moments.std[:-1], moments.mean[:-1]
        squares = isinstance(loss, ProjectionLoss) and loss.squared_from is not None
        if squares:  # centred features would be other interactions: their size about zero counts
            std = np.hypot(std, mean)
        target_scale = 1.0
        if scale_target:
            target_scale = 1.0 / (float(moments.std[-1]) or abs(float(moments.mean[-1])) or 1.0)
        penalty = penalty.times(target_scale)
        spread = std
        if not standardization:  # the penalty curves the objective too, by as much in each of the user's units
            spread = np.sqrt(std * std + penalty.curvature / (loss.curvature or 1.0))
        scale = np.divide(1.0, spread, out=np.zeros_like(std), where=std > 0)
        center = mean if fit_intercept and not squares and not penalty.bounds_intercept else None
        objective = LinearObjective(loss, moments.features, fit_intercept, scale, center, target_scale)
        return cls(objective, penalty.at(objective.coordinates(standardization)), moments)

    def start(self, initial: Initial | None) -> Floats:
        """Return ``initial`` in these coordinates; for None, no coefficients and the best intercept, or drawn."""
        if initial is not None:
            return self.objective.start_at(*initial)
        loss, scale = self.objective.loss, self.objective.scale
        if isinstance(loss, ProjectionLoss):
            return self._drawn(loss, np.ones(self.moments.features) if scale is None else scale)
        outputs = self.objective.loss.outputs
        if outputs > 1:  # the mean of class numbers says nothing of the classes' shares
            return self.objective.rescale(np.zeros((self.moments.features, outputs)), np.zeros(outputs))
        return self.objective.start(self.moments.mean[-1:])

    def _drawn(self, loss: ProjectionLoss, scale: Floats) -> Floats:
        """Return where such a loss starts."""
        objective = self.objective
        matrix, intercept, auxiliary = loss.initial(scale, self.moments.mean[-1:] * objective.target_scale)
        return np.concatenate([matrix.ravel(), intercept[: objective.fit_intercept * loss.outputs], auxiliary])
