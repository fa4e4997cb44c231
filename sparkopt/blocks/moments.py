"""Weighted means and variances of features and targets, gathered while blocks are written.

Sums are taken about the mean and merged by the formulas of Chan, Golub & LeVeque (1983, *Algorithms for computing
the sample variance*, eq. 2.1), so that large means do not eat the variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy  # loads scipy.sparse where it is used
from numpy.typing import NDArray

from sparkopt.blocks.block import Block
from sparkopt.matrices import PartlyDense, as_csr
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Moments", "MomentsSum", "features", "joined", "load", "save", "total"]

PIECE = 1 << 17
"""Bytes of rows that are summed at a time."""


@dataclass(frozen=True)
class Moments:
    """Number, weight, means and variances of some rows.

    Attributes
    ----------
    rows : int
        Number of rows.
    weight, weight_squares : float
        Σ w and Σ w².
    mean, squares : ndarray of shape (features + 1,)
        Weighted mean and Σ w (x − mean)² of each feature, and of the target in the last place.
    target_min, target_max : float
        Range of the target, in rows of weight 0 too: losses are evaluated at these as well.
    """

    rows: int
    weight: float
    weight_squares: float
    mean: Floats
    squares: Floats
    target_min: float
    target_max: float

    @classmethod
    def zero(cls, features: int) -> Moments:
        """Return the moments of no rows."""
        return cls(0, 0.0, 0.0, np.zeros(features + 1), np.zeros(features + 1), np.inf, -np.inf)

    @classmethod
    def of(cls, block: Block) -> Moments:
        """Return the moments of one block."""
        if not isinstance(block.X, np.ndarray):
            found = _SparseSum(block.X.shape[1])
            found.add(block)
            return found.total()
        if block.rows == 0:
            return cls.zero(block.X.shape[1])
        w = np.ones(block.rows) if block.weight is None else block.weight
        weight = float(w.sum())
        low, high = float(block.y.min()), float(block.y.max())
        if weight == 0:
            return replace(cls.zero(block.X.shape[1]), rows=block.rows, target_min=low, target_max=high)
        mean, squares = _dense(block.X, w, weight)
        target = float(w @ block.y) / weight
        return cls(
            block.rows,
            weight,
            float(w @ w),
            np.append(mean, target),
            np.append(squares, float(w @ (block.y - target) ** 2)),
            low,
            high,
        )

    def __add__(self, other: Moments) -> Moments:
        weight = self.weight + other.weight
        gap = other.mean - self.mean
        share = other.weight / weight if weight else 0.0
        return Moments(
            self.rows + other.rows,
            weight,
            self.weight_squares + other.weight_squares,
            self.mean + gap * share,
            self.squares + other.squares + gap * gap * (self.weight * share),
            min(self.target_min, other.target_min),
            max(self.target_max, other.target_max),
        )

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.mean) - 1

    @property
    def std(self) -> Floats:
        """Standard deviations of features and target, shape (features + 1,), as pyspark.ml's Summarizer has them.

        The variance divides by Σw − Σw²/Σw: unbiased for frequency-like weights, n − 1 without weights.
        """
        freedom = self.weight - self.weight_squares / self.weight if self.weight else 0.0
        if freedom <= 0:
            return np.zeros_like(self.squares)
        # rounding errors of a constant column are no variance
        noise = self.rows * (np.finfo(float).eps * np.abs(self.mean)) ** 2 * self.weight
        return np.sqrt(np.where(self.squares > noise, self.squares, 0.0) / freedom)


def total(moments: Iterable[Moments]) -> Moments | None:
    """Return the moments of all rows together, added up in the order given; None for none."""
    known = list(moments)
    return sum(known[1:], known[0]) if known else None


def joined(pieces: Sequence[Moments]) -> Moments:
    """Return the moments of all features from those of some after others."""
    mean, squares = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("mean", "squares"))
    return replace(pieces[0], mean=mean, squares=squares)


class MomentsSum:
    """Adds up the moments of blocks, of which dense and sparse ones may take turns.

    Sparse blocks change the sums of the features that they store, and no others: what the rest of the rows adds, in
    which a feature is 0, is added once, at the end.
    """

    def __init__(self) -> None:
        self._dense: Moments | None = None
        self._sparse: _SparseSum | None = None

    def add(self, block: Block) -> None:
        """Add a block's rows."""
        if isinstance(block.X, np.ndarray):
            found = Moments.of(block)
            self._dense = found if self._dense is None else self._dense + found
            return
        if self._sparse is None:
            self._sparse = _SparseSum(block.X.shape[1])
        self._sparse.add(block)

    def total(self) -> Moments:
        """Return the moments of all rows so far, of which there is at least one block."""
        found = total([self._dense] if self._dense is not None else [])
        if self._sparse is None:
            assert found is not None  # noqa: S101  # of the caller
            return found
        return self._sparse.total() if found is None else found + self._sparse.total()


NUMBERS = 6
"""Numbers of a row that ``save`` writes before means and squares."""


def save(by_fold: Mapping[int, Moments], path: Path) -> None:
    """Write moments by fold to one file: a row of numbers each."""
    rows = [
        np.concatenate(
            [[fold, m.rows, m.weight, m.weight_squares, m.target_min, m.target_max], m.mean, m.squares],
            dtype=np.float64,
        )
        for fold, m in by_fold.items()
    ]
    path.touch(mode=0o600)
    with path.open("wb") as file:
        np.save(file, np.array(rows) if rows else np.zeros((0, NUMBERS)), allow_pickle=False)


def features(path: Path) -> int:
    """Return the number of features of what ``save`` wrote; -1 where it wrote no rows."""
    return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[1] - NUMBERS) // 2 - 1


def load(path: Path, columns: slice = slice(None)) -> dict[int, Moments]:
    """Read what ``save`` wrote, or some of the features; the target comes after the last feature."""
    saved = np.load(path, mmap_mode="r", allow_pickle=False)
    width = (saved.shape[1] - NUMBERS) // 2
    first, last, _ = columns.indices(width)
    found = {}
    for row in saved:
        fold, rows, weight, weight_squares, low, high = row[:NUMBERS].tolist()
        mean, squares = (np.array(row[start + first : start + last]) for start in (NUMBERS, NUMBERS + width))
        found[int(fold)] = Moments(int(rows), weight, weight_squares, mean, squares, low, high)
    return found


def _dense(X: Array, w: Floats, weight: float) -> tuple[Floats, Floats]:
    """Σ w x and Σ w x² by pieces that stay in a core's cache, about a row: sums stay small, X's width suffices."""
    shift, narrow = X[0], w.astype(X.dtype, copy=False)
    step = max(1, PIECE // max(1, X[:1].nbytes))
    moved = np.empty((min(step, len(X)), X.shape[1]), X.dtype)
    first, second = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for start in range(0, len(X), step):
        rows, weights = X[start : start + step], narrow[start : start + step]
        piece = np.subtract(rows, shift, out=moved[: len(rows)])
        first += weights @ piece
        second += weights @ np.multiply(piece, piece, out=piece)
    mean = first / weight
    return shift + mean, np.maximum(second - weight * mean * mean, 0.0)


FEW = 64
"""Features of a block for each stored entry, from which on its entries are sorted, instead of marked in a table."""


class _SparseSum:
    """Of each feature, the weight, mean and squares of the entries that rows store."""

    def __init__(self, features: int) -> None:
        self._targets = Moments.zero(0)  # of the target alone
        self._counts = np.zeros(features, np.int64)
        self._weight, self._mean, self._squares = np.zeros((3, features))

    def add(self, block: Block) -> None:
        X = block.X
        self._targets += Moments.of(Block(np.zeros((block.rows, 0)), block.y, block.weight))
        if not (block.weight is None or block.weight.any()):
            return
        if isinstance(X, PartlyDense):
            self._add_dense(X.columns, X.dense, block.weight)
            self._add_entries(X.rest, block.weight, X.has_ones)
        else:
            self._add_entries(as_csr(X), block.weight)

    def _add_dense(self, columns: NDArray[np.integer], rows: Array, weight: Array | None) -> None:
        """Add columns that each row stores."""
        w = np.ones(len(rows)) if weight is None else weight
        whole = float(w.sum())
        mean, squares = _dense(rows, w, whole)
        self._counts[columns] += len(rows)
        self._merge(columns, np.full(len(columns), whole), mean, squares)

    def _add_entries(self, X: scipy.sparse.csr_array, weight: Array | None, has_ones: bool = False) -> None:
        """Add the entries of sparse rows, of which all may be ones."""
        if not X.nnz:
            return
        stored, places = _stored(X.indices, X.shape[1])

        def sums(entries: Array) -> Floats:
            return np.bincount(places, entries, len(stored)).astype(np.float64, copy=False)

        counts = np.bincount(places, minlength=len(stored))
        per_entry = None if weight is None else np.repeat(weight, np.diff(X.indptr))
        own = counts.astype(np.float64) if per_entry is None else sums(per_entry)
        self._counts[stored] += counts
        if has_ones:
            some = (own > 0).astype(np.float64)
            self._merge(stored, own, some, np.zeros(len(stored)))
            return
        first = sums(X.data if per_entry is None else per_entry * X.data)
        mean = np.divide(first, own, out=np.zeros_like(own), where=own > 0)
        squares = (X.data - mean[places]) ** 2
        self._merge(stored, own, mean, sums(squares if per_entry is None else per_entry * squares))

    def _merge(self, stored: NDArray[np.integer], own: Floats, mean: Floats, squares: Floats) -> None:
        before = self._weight[stored]
        both = before + own
        share = np.divide(own, both, out=np.zeros_like(both), where=both > 0)
        gap = mean - self._mean[stored]
        self._squares[stored] += squares + gap * gap * (before * share)
        self._mean[stored] += gap * share
        self._weight[stored] = both

    def total(self) -> Moments:
        """Return the moments of all rows; where a feature is not stored, it is 0."""
        targets = self._targets
        if not targets.weight:
            return replace(targets, mean=np.zeros(len(self._mean) + 1), squares=np.zeros(len(self._mean) + 1))
        absent = np.where(self._counts == targets.rows, 0.0, np.maximum(targets.weight - self._weight, 0.0))
        mean = self._mean * (self._weight / targets.weight)
        mean = np.where(absent == 0, self._mean, mean)
        squares = self._squares + self._mean**2 * (self._weight * absent / targets.weight)
        return replace(targets, mean=np.append(mean, targets.mean), squares=np.append(squares, targets.squares))


def _stored(indices: NDArray[np.integer], features: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the features that occur, in their order, and the place of each entry's among them."""
    if len(indices) * FEW < features:
        stored, places = np.unique(indices, return_inverse=True)
        return stored.astype(np.intp), places
    occurs = np.zeros(features, np.bool_)
    occurs[indices] = True
    found = np.flatnonzero(occurs)
    place = np.empty(features, np.intp)
    place[found] = np.arange(len(found))
    return found, place[indices]
