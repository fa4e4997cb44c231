"""What a pass over the rows is asked, and the sums that it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparkopt.errors import DataError
from sparkopt.typing import Floats

__all__ = ["PartialSum", "Query"]


@dataclass(frozen=True)
class Query:
    """What one pass asks of the rows.

    Attributes
    ----------
    coefs : ndarray of shape (m, size)
        The places.
    step : int, default 0
        Which step asks: it determines the rows of a mini-batch.
    vectors : ndarray of shape (m, size) or None, default None
        Ask for Hessian-vector products, one vector a place, instead of losses and gradients; they come back as
        ``PartialSum.gradient``.
    every_row : bool, default False
        Sum over all rows, also where the step works on a mini-batch.
    sample : int or None, default None
        About this many rows of each partition, evenly spaced, may stand for all of them.
    losses_only : bool, default False
        Ask for losses alone; the gradients that come back have no columns.
    codec : str or None, default None
        Name of the gradient codec in which this pass's sums travel, where that changes from pass to pass.
    unscaled : bool, default False
        Gradients over the features as they are stored, which have zeros where no row has an entry; whoever asks
        calls ``pull_back`` of the objective with their sum.
    held_out : sequence of (int or None) or None, default None
        The fold of the rows that each place does not see, None for a place that sees all; None is a None for each.
    """

    coefs: Floats
    step: int = 0
    vectors: Floats | None = None
    every_row: bool = False
    sample: int | None = None
    losses_only: bool = False
    codec: str | None = None
    unscaled: bool = False
    held_out: Sequence[int | None] | None = None

    @property
    def is_of_step(self) -> bool:
        """Whether it asks for a step's own sums, on the step's own rows: the ones that may travel with loss."""
        return self.vectors is None and not self.every_row and self.sample is None

    def only(self, places: slice | Sequence[int]) -> Query:
        """Return the same question about some of the places."""
        chosen = range(len(self.coefs))[places] if isinstance(places, slice) else places
        return replace(
            self,
            coefs=self.coefs[places],
            vectors=None if self.vectors is None else self.vectors[places],
            held_out=None if self.held_out is None else [self.held_out[place] for place in chosen],
        )

    def nothing(self) -> PartialSum:
        """Return the answer of no rows."""
        places, size = self.coefs.shape
        return PartialSum.zero(places, 0 if self.losses_only else size)


@dataclass(frozen=True)
class PartialSum:
    """Weighted sums over some rows at ``m`` places at once: a monoid, so sums may be taken in any grouping.

    Attributes
    ----------
    loss : ndarray of shape (m,)
        Σ weight · loss.
    gradient : ndarray of shape (m, size)
        Σ weight · gradient.
    weight : ndarray of shape (m,)
        Σ weight of the rows that each place saw; a number is that of all places.
    rows : int
        Rows that were touched.
    validation_loss : ndarray of shape (m,) or None, default None
        Σ weight · loss over validation rows, where this pass looked at them.
    validation_weight : ndarray of shape (m,)
        Σ weight over these; a number is that of all places.
    """

    loss: Floats
    gradient: Floats
    weight: Floats
    rows: int
    validation_loss: Floats | None = None
    validation_weight: Floats = 0.0  # type: ignore[assignment]  # that of all places

    def __post_init__(self) -> None:
        for name in ("weight", "validation_weight"):
            if np.ndim(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.full(len(self.loss), getattr(self, name), dtype=np.float64))

    @classmethod
    def zero(cls, m: int, size: int) -> PartialSum:
        """Return the sum over no rows."""
        return cls(np.zeros(m), np.zeros((m, size)), np.zeros(m), 0)

    @classmethod
    def stacked(cls, parts: Sequence[PartialSum], rows: int) -> PartialSum:
        """Return the sums at the places of some parts as one, place after place, without validation rows."""
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
        """Return the sums as if every row weighed ``factor`` times as much; as many rows were touched."""
        return replace(self, loss=self.loss * factor, gradient=self.gradient * factor, weight=self.weight * factor)

    def flat(self) -> Floats:
        """Return all of it as one vector, whose sums over ranks are the sums of the parts."""
        looked = self.validation_loss
        validation = np.zeros_like(self.loss) if looked is None else looked
        numbers = np.array([self.rows, looked is not None])
        parts = [self.loss, validation, self.weight, self.validation_weight, numbers, self.gradient.ravel()]
        return np.concatenate(parts, dtype=np.float64)

    @classmethod
    def from_flat(cls, vector: Floats, m: int, size: int) -> PartialSum:
        """Return what ``flat`` made a vector of."""
        loss, validation, weight, validation_weight, (rows, looked), gradient = np.split(
            vector, [m, 2 * m, 3 * m, 4 * m, 4 * m + 2]
        )
        held_out = (validation, validation_weight) if looked else (None, np.zeros(m))
        return cls(loss, gradient.reshape(m, size), weight, int(rows), *held_out)

    def mean(self) -> tuple[Floats, Floats]:
        """Return mean loss (m,) and mean gradient (m, size): the one division.

        Raises
        ------
        DataError
            Where no row that a place saw has a weight.
        """
        least = self.weight.min()
        if not least > 0:
            raise DataError(
                f"the {self.rows} rows of this step weigh {least:g} in all. Raise miniBatchFraction, or leave "
                f"rows of weight 0 out."
            )
        return self.loss / self.weight, self.gradient / self.weight[:, None]

    def validation_mean(self) -> Floats | None:
        """Return the mean loss (m,) over validation rows, or None where this pass did not look at them."""
        return None if self.validation_loss is None else self.validation_loss / self.validation_weight


def _plus(one: Floats | None, other: Floats | None) -> Floats | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
