"""Weighted means and variances of features and targets, gathered while blocks are written.

Sums are taken about the mean and merged by the formulas of Chan, Golub & LeVeque (1983, *Algorithms for computing
the sample variance*, eq. 2.1), so that large means do not eat the variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from sparkopt.blocks.block import Block
from sparkopt.typing import Array, Floats

__all__ = ["Moments", "load", "save", "total"]

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
        if block.rows == 0:
            return cls.zero(block.X.shape[1])
        w = np.ones(block.rows) if block.weight is None else block.weight
        weight = float(w.sum())
        low, high = float(block.y.min()), float(block.y.max())
        if weight == 0:
            return replace(cls.zero(block.X.shape[1]), rows=block.rows, target_min=low, target_max=high)
        mean, squares = (_sparse if sparse.issparse(block.X) else _dense)(block.X, w, weight)
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


def save(by_fold: Mapping[int, Moments], path: Path) -> None:
    """Write moments by fold to one file, as arrays."""
    found = by_fold.values()
    numbers = [[m.rows, m.weight, m.weight_squares, m.target_min, m.target_max] for m in found]
    path.touch(mode=0o600)
    with path.open("wb") as file:
        means, squares = [m.mean for m in found], [m.squares for m in found]
        np.savez(file, folds=np.array([*by_fold], np.int64), numbers=numbers, means=means, squares=squares)


def load(path: Path) -> dict[int, Moments]:
    """Read what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        rows = zip(saved["numbers"].tolist(), saved["means"], saved["squares"], strict=True)
        moments = [Moments(int(n), w, ww, mean, squares, low, high) for (n, w, ww, low, high), mean, squares in rows]
        return dict(zip(saved["folds"].tolist(), moments, strict=True))


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


def _sparse(X: sparse.csr_array, w: Floats, weight: float) -> tuple[Floats, Floats]:
    """Σ w (x − m)² over stored entries, plus m² times the weight of the rows where the feature is not stored."""
    features = X.shape[1]
    per_entry = np.repeat(w, np.diff(X.indptr))
    mean = np.bincount(X.indices, per_entry * X.data, features) / weight
    stored = np.bincount(X.indices, per_entry, features)
    squares = np.bincount(X.indices, per_entry * (X.data - mean[X.indices]) ** 2, features)
    return mean, squares + (weight - stored) * mean * mean
