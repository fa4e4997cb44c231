"""Which rows Hessians are estimated from: evenly spaced ones, and of these the ones that curve the loss most.

The rows are a function of their numbers alone, so a retried task takes the same. Where in its interval a row is taken
changes from interval to interval (Weyl's sequence, multiples of the golden section), so that no period of the data is
met; rows that are sorted by a target or a feature are stratified by it. From these candidates each point takes rows
with probability in proportion to their curvature, by systematic sampling, and divides by it (Hansen & Hurwitz, 1943):
rows of large weight and the few that a nearly separated class leaves undecided are in the sample, and those of weight
0 are not. Xu, Yang, Roosta-Khorasani, Ré & Mahoney, 2016, *Sub-sampled Newton methods with non-uniform sampling*,
show what that gains.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["EACH_ROW", "RowSample", "RowSpacing"]

GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
BELOW_ONE = 1.0 - 1e-12
CANDIDATES = 8
"""Evenly spaced rows, of which one is taken by its curvature."""


@dataclass(frozen=True)
class RowSpacing:
    """How many rows one is taken of, in a partition.

    Parameters
    ----------
    spacing : float
        Rows in place of which one is taken, ≥ 1; 1 takes all.
    first_row : int, default 0
        Rows in all partitions before it.
    by_length : bool, default False
        Whether all rows are candidates, and taken by their lengths too.
    """

    spacing: float
    first_row: int = 0
    by_length: bool = False


EACH_ROW = RowSpacing(1.0)
"""All rows."""


class RowSample:
    """The sample of consecutive blocks, which are given in order.

    Parameters
    ----------
    rows : RowSpacing
        How many rows one is taken of.
    fold : int
        The fold that the blocks are in, or -1.
    """

    def __init__(self, rows: RowSpacing, fold: int = -1) -> None:
        self.spacing = rows.spacing
        self.by_length = rows.by_length
        self._between = 1.0 if rows.by_length else max(1.0, rows.spacing / CANDIDATES)
        self._phase = (0.5 + rows.first_row * GOLDEN + (fold + 1) * np.sqrt(2.0)) % 1.0
        self._before = 0

    def candidates(self, rows: int) -> NDArray[np.intp]:
        """Return the candidates of the next block, of so many rows."""
        first, self._before = self._before, self._before + rows
        self._marks = np.arange(*(int(at / self.spacing + self._phase) for at in (first, self._before)))
        shares = (np.arange(len(self._marks)) + self._shifts(self._marks)) / max(1, len(self._marks))
        self._shares = np.minimum(shares, BELOW_ONE)
        self._scale = self.spacing * self._between / rows if rows else 0.0
        if self._between == 1.0:
            return np.arange(rows)
        intervals = np.arange(int(first / self._between), int(self._before / self._between) + 1)
        found = ((intervals + self._shifts(intervals)) * self._between).astype(np.intp) - first
        chosen: NDArray[np.intp] = found[(found >= 0) & (found < rows)]
        return chosen

    def choose(self, curvature: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Return which of the last candidates are in the sample, and the factors of their Hessians.

        Parameters
        ----------
        curvature : ndarray of shape (candidates,)
            Of each candidate's loss, ≥ 0, its weight included.
        """
        upto = np.cumsum(curvature)
        if not len(self._marks) or not len(upto) or not upto[-1] > 0:
            return np.zeros(0, np.intp), np.zeros(0)
        found = self._found(upto, float(upto[-1]))
        bounds = np.concatenate([[0], np.flatnonzero(found[1:] != found[:-1]) + 1, [len(found)]])
        taken, times = found[bounds[:-1]], bounds[1:] - bounds[:-1]
        return taken, times * (self._scale * upto[-1]) / curvature[taken]

    def choose_each(self, curvatures: Floats) -> Iterator[tuple[NDArray[np.intp], float]]:
        """Yield for each of some points what ``choose`` returns, with rows that are taken several times repeated.

        Parameters
        ----------
        curvatures : ndarray of shape (points, candidates)
            Of each candidate's loss, ≥ 0, its weight included. Yielded is the factor of the rows' Hessians over their
            curvatures, which is the same for all rows.
        """
        upto = np.cumsum(curvatures, axis=1)
        for sums in upto:
            if not len(self._marks) or not len(sums) or not sums[-1] > 0:
                yield np.zeros(0, np.intp), 0.0
            else:
                yield self._found(sums, float(sums[-1])), self._scale * float(sums[-1])

    def _found(self, upto: Floats, total: float) -> NDArray[np.intp]:
        """Return the candidates at the shares of the curvature up to them, in ascending order as the shares are."""
        found = np.searchsorted(upto, self._shares * total, side="right")
        return np.minimum(found, len(upto) - 1)

    def _shifts(self, numbers: NDArray[np.intp]) -> Floats:
        """Return where in the intervals of these numbers a row is taken, in [0, 1)."""
        turns = self._phase + GOLDEN * numbers
        shifts: Floats = turns - np.floor(turns)  # exact, as the remainder by 1 is, in a fraction of its time
        return shifts
