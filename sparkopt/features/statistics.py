"""Statistics of raw columns: small, and those of two parts of the rows can be merged.

They are merged in the order of the partitions, so the same partitions give the same features everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.features.values import days_of, numbers_of, text_of
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = [
    "CATEGORY",
    "DATE",
    "NO_FOLD",
    "NUMBER",
    "CategoryStatistics",
    "Collect",
    "CollectByFold",
    "ColumnStatistics",
    "NumberStatistics",
    "RawColumn",
    "merged",
]

NUMBER, CATEGORY, DATE = "number", "category", "date"
DISTINCT = 100_000
"""Most different numbers of a column that are kept for its median or its most frequent value."""
PENDING = 1 << 18
"""Counted values that are gathered before equal ones are added up."""


@dataclass(frozen=True)
class RawColumn:
    """A column, and what it is taken for.

    Parameters
    ----------
    name : str
        Its name.
    kind : {"number", "category", "date"}
        What its values are.
    has_time : bool, default False
        Whether a date has hours.
    """

    name: str
    kind: str
    has_time: bool = False


@dataclass
class NumberStatistics:
    """Of numbers, or of dates as days since 1970.

    Attributes
    ----------
    rows, missing : int
        Rows, and those with null or NaN.
    total : float
        Sum of the finite values.
    finite : int
        How many these are.
    minimum : float
        The smallest of them; infinity without any.
    counted : bool
        Whether ``values`` are kept.
    values, weights : ndarray
        The different values in order, and how often each was seen: exactly up to 100,000 of them, beyond that in
        equal shares of the rows.
    """

    counted: bool = False
    rows: int = 0
    missing: int = 0
    total: float = 0.0
    finite: int = 0
    minimum: float = np.inf
    values: Floats = field(default_factory=lambda: np.zeros(0))
    weights: Floats = field(default_factory=lambda: np.zeros(0))

    def add(self, numbers: Floats) -> None:
        """Take up more rows."""
        self.rows += len(numbers)
        self.missing += int(np.isnan(numbers).sum())
        finite = numbers[np.isfinite(numbers)]
        self.finite += len(finite)
        if len(finite):
            self.total += float(finite.sum())
            self.minimum = min(self.minimum, float(finite.min()))
            if self.counted:
                self._count(*np.unique(finite, return_counts=True))

    def merge(self, other: NumberStatistics) -> None:
        """Take up the rows of another part."""
        self.rows += other.rows
        self.missing += other.missing
        self.total += other.total
        self.finite += other.finite
        self.minimum = min(self.minimum, other.minimum)
        self._count(other.values, other.weights)

    def _count(self, values: Floats, weights: Array) -> None:
        if not len(self.values):
            self.values, self.weights = values, weights.astype(np.float64)
        elif len(values):
            found, places = np.unique(np.concatenate([self.values, values]), return_inverse=True)
            sums = np.bincount(places, np.concatenate([self.weights, weights]), len(found))
            self.weights = sums.astype(np.float64)
            self.values = found
        if len(self.values) > DISTINCT:
            self._compress()

    def _compress(self) -> None:
        """Keep as many values as half of ``DISTINCT``, each for an equal share of the rows."""
        ends = np.cumsum(self.weights)
        kept = DISTINCT // 2
        at = np.searchsorted(ends, (np.arange(kept) + 0.5) * ends[-1] / kept)
        self.values, places = np.unique(self.values[np.minimum(at, len(ends) - 1)], return_inverse=True)
        self.weights = np.bincount(places).astype(np.float64) * (ends[-1] / kept)

    def mean(self) -> float:
        """Return the mean of the finite values; 0 without any."""
        return self.total / self.finite if self.finite else 0.0

    def median(self) -> float:
        """Return the median, between the two middle values where the number of rows is even; 0 without any."""
        if not len(self.values):
            return 0.0
        ends = np.cumsum(self.weights)
        half = ends[-1] / 2
        at = int(np.searchsorted(ends, half))
        if ends[at] == half and at + 1 < len(ends):
            return float((self.values[at] + self.values[at + 1]) / 2)
        return float(self.values[at])

    def most_frequent(self) -> float:
        """Return the value seen most often, the smallest of several; 0 without any."""
        return float(self.values[int(np.argmax(self.weights))]) if len(self.values) else 0.0


@dataclass
class CategoryStatistics:
    """Of categories.

    Attributes
    ----------
    most : int
        How many different ones are counted.
    rows, missing : int
        Rows, and those with null.
    counts : pyarrow.Table or None
        Columns ``value`` and ``count``; None where there are more than ``most``.
    """

    most: int
    rows: int = 0
    missing: int = 0
    counts: pa.Table | None = field(default_factory=lambda: _table([], []))
    _pending: list[pa.Table] = field(default_factory=list)

    def add(self, text: pa.Array) -> None:
        """Take up more rows."""
        self.rows += len(text)
        self.missing += text.null_count
        if self.counts is None:
            return
        found = pc.value_counts(text)
        values = found.field("values")
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        self._take(_table(values, found.field("counts")))

    def merge(self, other: CategoryStatistics) -> None:
        """Take up the rows of another part."""
        self.rows += other.rows
        self.missing += other.missing
        if other.settled().counts is None or self.counts is None:
            self.counts, self._pending = None, []
        else:
            self._take(other.counts)

    def _take(self, counts: pa.Table) -> None:
        self._pending.append(counts)
        if sum(table.num_rows for table in self._pending) > PENDING:
            self.settled()

    def settled(self) -> CategoryStatistics:
        """Return itself, with equal values added up."""
        if self.counts is not None and self._pending:
            every = pa.concat_tables([self.counts, *self._pending])
            found = every.filter(every.column("value").is_valid()).group_by("value").aggregate([("count", "sum")])
            self.counts = _table(*(found.column(name).combine_chunks() for name in ("value", "count_sum")))
            if self.counts.num_rows > self.most:
                self.counts = None
        self._pending = []
        return self


def _table(values: object, counts: object) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.string()), "count": pa.array(counts, pa.int64())})


ColumnStatistics: TypeAlias = NumberStatistics | CategoryStatistics
"""Of a column of either kind."""


@dataclass(frozen=True)
class Collect:
    """A function from rows to the statistics of some columns. It can be pickled.

    Parameters
    ----------
    columns : sequence of RawColumn
        The columns, in the order of the batches' columns.
    most : int
        How many different categories are counted.
    counted : bool
        Whether the different values of numbers are kept, for their median or their most frequent one.
    """

    READ: ClassVar = {NUMBER: numbers_of, CATEGORY: text_of, DATE: days_of}

    columns: Sequence[RawColumn]
    most: int
    counted: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> list[ColumnStatistics]:
        """Return the statistics of each column."""
        found = self.none()
        for batch in batches:
            self.add(found, batch.columns)
        return _settled(found)

    def none(self) -> list[ColumnStatistics]:
        """Return the statistics of no rows."""
        return [
            CategoryStatistics(self.most) if column.kind == CATEGORY else NumberStatistics(self.counted)
            for column in self.columns
        ]

    def add(self, found: list[ColumnStatistics], rows: Sequence[pa.Array]) -> None:
        """Add some rows, column by column."""
        for column, values, statistics in zip(self.columns, rows, found, strict=True):
            statistics.add(self.READ[column.kind](values, column.name))


NO_FOLD = -1


@dataclass(frozen=True)
class CollectByFold:
    """A function from rows to the statistics of each fold, by its number; ``NO_FOLD`` is rows without one.

    Parameters
    ----------
    collect : Collect
        Which statistics. The batches have one more column, the last: the number of the fold.
    """

    collect: Collect

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> dict[int, list[ColumnStatistics]]:
        """Return the statistics of each column, by fold."""
        found: dict[int, list[ColumnStatistics]] = {}
        for batch in batches:
            *columns, folds = batch.columns
            folds = folds.cast(pa.int64()).fill_null(NO_FOLD)
            for fold in sorted(folds.unique().to_pylist()):
                inside = pc.equal(folds, fold)
                self.collect.add(
                    found.setdefault(fold, self.collect.none()), [column.filter(inside) for column in columns]
                )
        return {fold: _settled(statistics) for fold, statistics in found.items()}


def merged(parts: Sequence[list[ColumnStatistics]]) -> list[ColumnStatistics]:
    """Return the statistics of all rows, given those of each part, in order."""
    first, *others = parts
    for other in others:
        for own, more in zip(first, other, strict=True):
            own.merge(more)  # type: ignore[arg-type]  # both are of the same column
    return _settled(first)


def _settled(found: list[ColumnStatistics]) -> list[ColumnStatistics]:
    return [one.settled() if isinstance(one, CategoryStatistics) else one for one in found]
