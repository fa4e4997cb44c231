"""Named numbers of rows, with the aggregates that metrics and charts are computed from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparkopt.errors import DataError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.io.hashing import xxhash64
from sparkopt.typing import Floats

__all__ = ["ArrayValues", "Pair", "RowValues", "column_values"]

Pair = tuple[float, ...]
"""The values of a row; NaN for null."""


class RowValues(ABC):
    """Numbers of rows, by name."""

    @property
    @abstractmethod
    def names(self) -> Iterable[str]:
        """What there is."""

    @abstractmethod
    def present(self, name: str) -> tuple[int, int]:
        """Return the number of rows, and how many of them have the value."""

    @abstractmethod
    def tallies(self, label: str, weight: str | None, judged: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        """Return a tally of each judged value, taken in one pass; every row weighs 1 without ``weight``."""

    @abstractmethod
    def counts(self, *names: str, limit: int) -> dict[tuple[float, ...], float]:
        """Return the number of rows of the most frequent tuples of values, in descending order."""

    @abstractmethod
    def sample(self, *names: str, count: int) -> list[tuple[float, ...]]:
        """Return at most so many rows, the same ones in every run."""

    @abstractmethod
    def extent(self, name: str) -> tuple[float, float, int]:
        """Return the least and the greatest finite value, and the number of finite values."""

    @abstractmethod
    def bins(self, name: str, low: float, width: float, count: int) -> dict[int, float]:
        """Return the number of finite values in each of so many bins of one width, the first from low."""

    @abstractmethod
    def quantiles(self, name: str, shares: Sequence[float]) -> list[float]:
        """Return the values below which about these shares of the rows are."""

    @abstractmethod
    def above(self, name: str, label: str, edges: Sequence[float]) -> list[tuple[float, float]]:
        """Return sum of ``label`` and number of rows by how many edges are below the value, most first."""


MOST_CODES = 1 << 16
"""Tuples of classes that are counted in a table of all that there could be."""


def _different(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the different columns of a table in order, and how often each occurs; of classes without a sort."""
    if values.size and np.isfinite(values).all() and values.min() >= 0 and (values == np.trunc(values)).all():
        sizes = tuple(int(most) + 1 for most in values.max(axis=1))
        if math.prod(sizes) <= MOST_CODES:
            rows = np.bincount(np.ravel_multi_index(tuple(values.astype(np.intp)), sizes))
            found = np.flatnonzero(rows)
            return np.array(np.unravel_index(found, sizes), np.float64), rows[found]
    different, counts = np.unique(values, axis=1, return_counts=True)
    return different, counts


class ArrayValues(RowValues):
    """Numbers in arrays of this machine; NaN stands for none where a label has none.

    Parameters
    ----------
    arrays : mapping of str to ndarray of shape (rows,)
        The numbers.
    missing : mapping of str to int, optional
        How many rows do not have a value, by name.
    """

    def __init__(self, arrays: Mapping[str, Floats], missing: Mapping[str, int] | None = None) -> None:
        self._arrays, self._missing = dict(arrays), dict(missing or {})

    @property
    def names(self) -> Iterable[str]:
        return self._arrays

    def present(self, name: str) -> tuple[int, int]:
        rows = len(self._arrays[name])
        return rows, rows - self._missing.get(name, 0)

    def tallies(self, label: str, weight: str | None, judged: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        from sparkopt.ml.metrics.rows import missing  # here, since it loads the estimators, and flags need none
        from sparkopt.ml.metrics.tallies import ScoreTally

        y = self._arrays[label]
        weights = self._arrays[weight] if weight is not None else np.ones(len(y))
        found = {}
        for name, (column, tally) in judged.items():
            for each in (label, weight, column):
                if each is not None and self._missing.get(each):
                    raise DataError(missing(each, self._missing[each]))
            tally.add(y, weights, self._arrays[column])
            found[name] = tally.settle() if isinstance(tally, ScoreTally) else tally
        return found

    def counts(self, *names: str, limit: int) -> dict[tuple[float, ...], float]:
        values, rows = _different(np.stack([self._arrays[name] for name in names]))
        order = np.argsort(-rows, kind="stable")[:limit]
        return {tuple(map(float, values[:, i])): float(rows[i]) for i in order}

    def sample(self, *names: str, count: int) -> list[tuple[float, ...]]:
        chosen = [self._arrays[name] for name in names]
        order = np.argsort(xxhash64([pa.array(each) for each in chosen]), kind="stable")[:count]
        return [tuple(map(float, row)) for row in zip(*(each[order] for each in chosen), strict=True)]

    def _finite(self, name: str) -> Floats:
        values = self._arrays[name]
        found: Floats = values[np.isfinite(values)]
        return found

    def extent(self, name: str) -> tuple[float, float, int]:
        values = self._finite(name)
        return (float(values.min()), float(values.max()), len(values)) if len(values) else (0.0, 0.0, 0)

    def bins(self, name: str, low: float, width: float, count: int) -> dict[int, float]:
        index = np.minimum(np.floor((self._finite(name) - low) / width), count - 1).astype(np.intp)
        return {number: float(rows) for number, rows in enumerate(np.bincount(index, minlength=count)) if rows}

    def quantiles(self, name: str, shares: Sequence[float]) -> list[float]:
        values = np.sort(self._arrays[name])
        return (
            [float(values[max(0, int(np.ceil(share * len(values))) - 1)]) for share in shares] if len(values) else []
        )

    def above(self, name: str, label: str, edges: Sequence[float]) -> list[tuple[float, float]]:
        index = np.searchsorted(np.asarray(edges), self._arrays[name], side="left")
        size = len(edges) + 1
        positive, rows = np.bincount(index, self._arrays[label], size), np.bincount(index, minlength=size)
        return [(float(positive[i]), float(rows[i])) for i in reversed(range(size)) if rows[i]]


def column_values(column: Any) -> tuple[Floats, int]:
    """Return an Arrow column of numbers as float64 with NaN for nulls, and how many of these there are."""
    numbers = column.cast(pa.float64())
    if isinstance(numbers, pa.Array) and not numbers.null_count:
        return fixed_width_values(numbers), 0  # without pandas, which ``to_numpy`` loads
    return numbers.to_numpy(zero_copy_only=False), int(numbers.null_count)
