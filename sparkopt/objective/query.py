"""What a pass over the rows evaluates, and the sums that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sparkopt.errors import DataError
from sparkopt.optim.request import Request
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["PartialSum", "Query"]


@dataclass(frozen=True)
class Query:
    """What one pass evaluates: a request of the searches, for a step, and which model must not see which rows.

    Attributes
    ----------
    request : Request
        What to evaluate, at which points, on which rows.
    step : int, default 0
        The step it is for, which determines the rows of a mini-batch.
    held_out : sequence of (int or None) or None, default None
        The fold of rows that each point leaves out, None for a point that sees all; None is a None for each.
    feature_coordinates : bool, default False
        Return gradients with respect to coefficients of the features as they are stored, so that they are zero where
        no row has an entry; whoever sets it applies ``pull_back`` of the objective to their sum.
    codec : str or None, default None
        Name of the gradient codec of this pass, where that changes from pass to pass.
    """

    request: Request
    step: int = 0
    held_out: Sequence[int | None] | None = None
    feature_coordinates: bool = False
    codec: str | None = None  # how sums are communicated: to become part of what an engine sends next to the query

    @property
    def folds(self) -> Sequence[int | None]:
        """The fold that each point leaves out."""
        return self.held_out or [None] * len(self.request.points)

    def is_like(self, other: Query) -> bool:
        """Whether both ask for the same thing, on the same rows of the same step."""
        return self.step == other.step and self.request.is_like(other.request)

    def only(self, indices: slice | Sequence[int]) -> Query:
        """Return the same query at some of the points."""
        chosen = range(len(self.request.points))[indices] if isinstance(indices, slice) else indices
        return replace(
            self,
            request=self.request.map(lambda array: array[indices]),
            held_out=None if self.held_out is None else [self.held_out[index] for index in chosen],
        )

    def zero(self) -> PartialSum:
        """Return the answer over no rows."""
        points, size = self.request.points.shape
        return PartialSum.zero(points, self.request.width(size))


@dataclass(frozen=True)
class PartialSum:
    """Weighted sums over some rows at ``m`` points at once: a monoid, so sums may be taken in any grouping.

    Attributes
    ----------
    loss : ndarray of shape (m,)
        Σ weight · loss.
    gradient : ndarray of shape (m, width)
        Σ weight · gradient, or what else the request asks for: ``Request.width`` numbers at each point.
    weight : ndarray of shape (m,)
        Σ weight of the rows that each point saw; a number is that of all points.
    rows : int
        Rows that were touched.
    validation_loss : ndarray of shape (m,) or None, default None
        Σ weight · loss over validation rows, where this pass evaluated them.
    validation_weight : ndarray of shape (m,)
        Σ weight over these; a number is that of all points.
    """

    loss: Floats
    gradient: Floats
    weight: Floats
    rows: int
    validation_loss: Floats | None = None
    validation_weight: Floats = 0.0  # type: ignore[assignment]  # that of all points

    def __post_init__(self) -> None:
        for name in ("weight", "validation_weight"):
            if not isinstance(getattr(self, name), np.ndarray):
                object.__setattr__(self, name, np.full(len(self.loss), getattr(self, name), dtype=np.float64))

    @classmethod
    def zero(cls, m: int, size: int) -> PartialSum:
        """Return the sum over no rows."""
        return cls(np.zeros(m), np.zeros((m, size)), np.zeros(m), 0)

    @classmethod
    def stacked(cls, parts: Sequence[PartialSum], rows: int) -> PartialSum:
        """Return the sums of some parts, one after another, as one; without validation rows."""
        loss, gradient, weight = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "gradient", "weight")
        )
        return cls(loss, gradient, weight, rows)

    def __add__(self, other: PartialSum) -> PartialSum:
        return PartialSum(
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.weight + other.weight,
            self.rows + other.rows,
            _plus(self.validation_loss, other.validation_loss),
            self.validation_weight + other.validation_weight,
        )

    def scaled(self, factor: float) -> PartialSum:
        """Return the sums as if every weight were ``factor`` times as large, with the same number of rows."""
        return replace(self, loss=self.loss * factor, gradient=self.gradient * factor, weight=self.weight * factor)

    def flat(self) -> Floats:
        """Return all of it as one vector, whose sums over ranks are the sums of the parts."""
        found = self.validation_loss
        validation = np.zeros_like(self.loss) if found is None else found
        numbers = np.array([self.rows, found is not None])
        parts = [self.loss, validation, self.weight, self.validation_weight, numbers, self.gradient.ravel()]
        return np.concatenate(parts, dtype=np.float64)

    @classmethod
    def from_flat(cls, vector: Floats, m: int, size: int) -> PartialSum:
        """Return the sums that ``flat`` made this vector of."""
        loss, validation, weight, validation_weight, (rows, evaluated), gradient = np.split(
            vector, [m, 2 * m, 3 * m, 4 * m, 4 * m + 2]
        )
        held_out = (validation, validation_weight) if evaluated else (None, np.zeros(m))
        return cls(loss, gradient.reshape(m, size), weight, int(rows), *held_out)

    def mean(self) -> tuple[Floats, Floats]:
        """Return mean loss (m,) and mean gradient (m, size): the one division.

        Raises
        ------
        DataError
            Where no row that a point saw has a weight.
        """
        least = self.weight.min()
        if not least > 0:
            raise DataError(
                f"the {self.rows} rows of this step weigh {least:g} in all. Raise miniBatchFraction, or leave "
                f"rows of weight 0 out."
            )
        return self.loss / self.weight, self.gradient / self.weight[:, None]

    def validation_mean(self) -> Floats | None:
        """Return the mean loss (m,) over validation rows, or None where this pass did not evaluate them."""
        return None if self.validation_loss is None else self.validation_loss / self.validation_weight


def _plus(one: Floats | None, other: Floats | None) -> Floats | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
