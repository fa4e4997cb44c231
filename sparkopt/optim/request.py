"""What a search requests: gradients, losses, Hessians or products with them, at which points, on which rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = [
    "EveryRow",
    "Gradients",
    "HessianProducts",
    "Hessians",
    "Losses",
    "Request",
    "RowSelector",
    "SampledRows",
    "SpacedRows",
    "StepRows",
    "lower_triangle",
]

FEW = 256
"""Most rows of a matrix of which the places in its triangle are kept for the next step: half a megabyte."""


def lower_triangle(size: int) -> tuple[Array, Array]:
    """Return the rows and columns of the entries on and below the diagonal of a square matrix."""
    return _kept_triangle(size) if size <= FEW else np.tril_indices(size)


@lru_cache(maxsize=8)
def _kept_triangle(size: int) -> tuple[Array, Array]:
    return np.tril_indices(size)


@dataclass(frozen=True)
class StepRows:
    """The rows of the step: all of them, or the step's mini-batch."""


@dataclass(frozen=True)
class EveryRow:
    """All rows, also where the steps work on mini-batches."""


@dataclass(frozen=True)
class SampledRows:
    """A sample of the step's rows, from which the sums over all of them are estimated.

    Parameters
    ----------
    count : int
        Rows to take from each partition, evenly spaced.
    """

    count: int


RowSelector: TypeAlias = StepRows | EveryRow | SampledRows
"""Which rows a request is evaluated on."""


@dataclass(frozen=True, eq=False)
class Request:
    """What to evaluate: one of ``Gradients``, ``Losses``, ``Hessians`` and ``HessianProducts``.

    Parameters
    ----------
    points : ndarray of shape (m, size)
        The coefficients to evaluate it at, one point a row.
    rows : RowSelector, default StepRows()
        The rows of data to evaluate it on.
    """

    points: Floats
    rows: RowSelector = field(default=StepRows(), kw_only=True)

    @property
    def is_step_gradient(self) -> bool:
        """Whether it is the step's own gradient, on the step's own rows."""
        return False

    def width(self, size: int) -> int:
        """Return how many numbers, next to the loss, answer it at a point of ``size`` coefficients."""
        return size

    def is_like(self, other: Request) -> bool:
        """Whether both ask for the same thing on the same rows, so that one pass can answer both."""
        return type(self) is type(other) and self.rows == other.rows

    def map(self, change: Callable[[Floats], Floats]) -> Request:
        """Return the same request with ``change`` applied to each of its arrays of shape (m, size)."""
        return replace(self, points=change(self.points))

    def joined(self, others: Sequence[Request]) -> Request:
        """Return one request for the points of this one and of others like it, in this order."""
        return replace(self, points=np.concatenate([self.points, *(other.points for other in others)]))


class Gradients(Request):
    """The objective and its gradient."""

    @property
    def is_step_gradient(self) -> bool:
        """Whether the rows are the step's own."""
        return self.rows == StepRows()


class Losses(Request):
    """The objective alone: the answer's gradients have no columns."""

    def width(self, size: int) -> int:
        """Return 0."""
        return 0


@dataclass(frozen=True)
class SpacedRows:
    """A sample of the rows of all partitions, evenly spaced, whatever the partitions are.

    Parameters
    ----------
    count : int
        Rows to take of all partitions together.
    share : float, default 0
        Share of the rows that is taken at least.
    by_length : bool, default False
        Prefer rows that are far from the mean, in which rare features are: this needs the lengths of all rows.
    """

    count: int
    share: float = 0.0
    by_length: bool = False

    def spacing(self, rows: int) -> float:
        """Return the rows in place of which one is taken, of so many in all: 1 where all are."""
        return max(1.0, rows / max(self.count, self.share * rows, 1.0))


@dataclass(frozen=True, eq=False)
class Hessians(Request):
    """The objective, its gradient and its Hessian, in one pass.

    The answer's gradients have the columns of the gradient, then those of the Hessian's lower triangle, row by row.

    Parameters
    ----------
    points : ndarray of shape (m, size)
        The coefficients to evaluate it at, one point a row.
    sample : SpacedRows or None, default None
        The rows from which the Hessians are estimated, next to gradients over all rows; None is all rows.
    """

    sample: SpacedRows | None = field(default=None, kw_only=True)

    def is_like(self, other: Request) -> bool:
        """Whether the other request is for Hessians of the same rows."""
        return isinstance(other, Hessians) and super().is_like(other) and self.sample == other.sample

    def width(self, size: int) -> int:
        """Return the entries of a gradient and of a triangle."""
        return self.columns(size)

    @staticmethod
    def columns(size: int) -> int:
        """Return the columns of an answer for ``size`` coefficients."""
        return size + size * (size + 1) // 2

    @staticmethod
    def packed(gradient: Floats, hessian: Floats) -> Floats:
        """Return a gradient (size,) and a symmetric Hessian (size, size) as one row of an answer."""
        return np.concatenate([gradient, hessian[lower_triangle(len(gradient))]])

    @staticmethod
    def unpacked(row: Floats, size: int) -> tuple[Floats, Floats]:
        """Return gradient (size,) and Hessian (size, size) from a row of an answer."""
        hessian = np.empty((size, size))
        rows, columns = lower_triangle(size)
        hessian[rows, columns] = hessian[columns, rows] = row[size:]
        return row[:size], hessian


@dataclass(frozen=True, eq=False)
class HessianProducts(Request):
    """The Hessian times a vector; the answer has the products in the place of gradients.

    Parameters
    ----------
    points : ndarray of shape (m, size)
        The coefficients at which the Hessian is taken.
    vectors : ndarray of shape (m, size)
        What it is multiplied with, one vector a point.
    rows : RowSelector, default StepRows()
        The rows of data to evaluate it on.
    """

    vectors: Floats

    def map(self, change: Callable[[Floats], Floats]) -> HessianProducts:
        """Return the same request with ``change`` applied to points and vectors."""
        return replace(self, points=change(self.points), vectors=change(self.vectors))

    def joined(self, others: Sequence[Request]) -> HessianProducts:
        """Return one request for the points and vectors of this one and of others like it."""
        products = [self, *(other for other in others if isinstance(other, HessianProducts))]
        return replace(
            self,
            points=np.concatenate([one.points for one in products]),
            vectors=np.concatenate([one.vectors for one in products]),
        )
