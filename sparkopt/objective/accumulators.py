"""Sums of a pass over blocks of rows, at many points at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np
import scipy  # loads scipy.sparse where it is used

from sparkopt.blocks.block import Block
from sparkopt.matrices import Features, PartlyDense
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum
from sparkopt.objective.sparse_rows import add_transposed_product
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Accumulators", "Objectives", "add_product"]

Objectives: TypeAlias = Sequence[LinearObjective]
"""One objective for each point."""


@dataclass
class Accumulators:
    """Accumulators of one pass, in the user's coordinates and float64."""

    loss: Floats
    matrix: Floats
    intercept: Floats
    auxiliary: Floats
    weight: float = 0.0
    rows: int = 0

    @classmethod
    def zero(cls, objective: LinearObjective, m: int) -> Accumulators:
        """Return the accumulators for m points."""
        outputs, auxiliary = objective.loss.outputs, objective.loss.auxiliary
        matrix = np.zeros((objective.features, m * outputs))
        return cls(np.zeros(m), matrix, np.zeros(m * outputs), np.zeros((m, auxiliary)))

    @property
    def weights(self) -> Floats:
        """Σ weight, which is the same at every point."""
        return np.full(len(self.loss), self.weight)

    def add(self, block: Block, slopes: Iterable[Array]) -> None:
        """Add a block's weighted slopes, one array of the loss's shape a point, which is copied before the next."""
        (m, auxiliary), k = self.auxiliary.shape, self.matrix.shape[1] // len(self.loss)
        if m * k == 1:
            (slope,) = slopes
            if auxiliary:
                self.auxiliary[0] += slope[:, k:].sum(axis=0, dtype=np.float64)
                slope = slope[:, 0]
            slope = slope.reshape(-1).astype(block.X.dtype, copy=False)
            add_product(block.X, slope, self.matrix)
            self.intercept += slope.sum(dtype=np.float64)
            return
        order: Literal["C", "F"] = "F" if k == 1 and isinstance(block.X, np.ndarray) else "C"
        table = np.empty((block.rows, m * k), block.X.dtype, order=order)
        for i, slope in enumerate(slopes):
            if auxiliary:
                self.auxiliary[i] += slope[:, k:].sum(axis=0, dtype=np.float64)
                slope = slope[:, :k]
            table[:, i * k : (i + 1) * k] = slope.reshape(block.rows, k)
        add_product(block.X, table, self.matrix)
        self.intercept += table.sum(axis=0, dtype=np.float64)

    def count(self, block: Block) -> None:
        """Count a block's rows, also those that add nothing."""
        self.weight += block.rows if block.weight is None else float(block.weight.sum())
        self.rows += block.rows

    def partial(self, objectives: Objectives, pull_back: bool) -> PartialSum:
        """Return losses and gradients, by the chain rule in every point's own coordinates where ``pull_back``."""
        own, m, (features, columns) = objectives[0], len(objectives), self.matrix.shape
        gradient, k = np.empty((m, own.size)), columns // m
        by_point = self.matrix.reshape(features, m, k).transpose(1, 0, 2)
        # For each point the matrix (features, k), row by row, then intercepts and auxiliary parameters.
        gradient[:, : features * k].reshape(m, features, k)[:] = by_point
        if own.fit_intercept:
            gradient[:, features * k : (features + 1) * k] = self.intercept.reshape(m, k)
        gradient[:, own.size - self.auxiliary.shape[1] :] = self.auxiliary
        if pull_back:
            for objective, run in runs(objectives):
                objective.pull_back(gradient[run])
        return PartialSum(self.loss, gradient, self.weights, self.rows)


def runs(objectives: Objectives) -> Iterator[tuple[LinearObjective, slice]]:
    """Yield each objective with the consecutive points that are its own."""
    first = 0
    for _, run in groupby(objectives, key=id):
        own = list(run)
        yield own[0], slice(first, first + len(own))
        first += len(own)


def add_product(X: Features, slopes: Array, total: Floats) -> None:
    """Add Xᵀ · slopes, (n,) or (n, columns), to ``total`` (features, columns); of few sparse rows what they store."""
    if isinstance(X, np.ndarray):
        product = X.T @ slopes
        total += product[:, None] if slopes.ndim == 1 else product
    elif isinstance(X, PartlyDense):
        product = X.dense.T @ slopes
        total[X.columns] += product[:, None] if slopes.ndim == 1 else product
        add_product(X.rest, slopes, total)
    elif slopes.ndim == 1 and X.dtype == total.dtype:
        add_transposed_product(X, slopes, total[:, 0])
    elif X.nnz >= X.shape[1]:
        product = X.T @ slopes
        total += product[:, None] if slopes.ndim == 1 else product
    elif slopes.ndim == 1:
        np.add.at(total[:, 0], X.indices, X.data * np.repeat(slopes, np.diff(X.indptr)))
    else:
        features, places = np.unique(X.indices, return_inverse=True)
        few = scipy.sparse.csr_array((X.data, places, X.indptr), shape=(X.shape[0], len(features)))
        total[features] += few.T @ slopes
