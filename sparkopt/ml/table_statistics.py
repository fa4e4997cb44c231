"""Statistics of raw columns of all rows, or of each fold of a cross-validation, in one pass on any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Generic, TypeVar

import pyarrow as pa

from sparkopt.blocks.encoded import for_each_partition
from sparkopt.blocks.rows import Rows
from sparkopt.blocks.tables import named_table
from sparkopt.errors import DataError
from sparkopt.features import Collect, ColumnStatistics, EncodingOptions, RawColumn
from sparkopt.features.statistics import CollectByFold
from sparkopt.machine import Table, TablePart
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.values import dataclass

__all__ = ["ByFold", "Learning", "statistics_of"]

T = TypeVar("T")
Statistics = list[ColumnStatistics]
"""Of each column."""


@dataclass(frozen=True)
class Learning:
    """What `TableFeatures` learns.

    Attributes
    ----------
    columns : sequence of RawColumn
        The columns that are read.
    terms : sequence of tuple of str
        The columns and products of columns that are features.
    options : EncodingOptions
        How columns are encoded.
    types : mapping of str to str
        Spark's names of the columns' types.
    """

    columns: Sequence[RawColumn]
    terms: Sequence[tuple[str, ...]]
    options: EncodingOptions
    types: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    @property
    def collect(self) -> Collect:
        """What is computed of a partition's rows."""
        is_counted = self.options.impute in ("median", "most_frequent")
        return Collect(self.columns, self.options.max_categories, is_counted)


def statistics_of(rows: Rows, names: list[str], collect: Callable[[Iterator[pa.RecordBatch]], T]) -> list[T]:
    """Return the statistics of each partition, in order.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows.
    names : list of str
        The columns of the batches that ``collect`` is given.
    collect : callable
        Of a partition's batches; it can be pickled.
    """
    if isinstance(rows, Table):
        found = for_each_part(_OfPart(names, collect), named_table(rows, names))
    else:
        found = for_each_partition(rows, names, collect)
    if not found:
        raise DataError("there are no rows to take features from: the DataFrame or table is empty.")
    return found


class ByFold:
    """The statistics of a cross-validation's rows, by partition and fold, from one pass.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows, with the number of their fold.
    fold : str
        Column of this number; null is no fold.
    learning : Learning
        Which columns are read.
    """

    def __init__(self, rows: Rows, fold: str, learning: Learning) -> None:
        collect = CollectByFold(learning.collect)
        self._parts: list[Mapping[int, Statistics]] = statistics_of(rows, [*learning.names, fold], collect)

    def without(self, fold: int | None) -> list[Statistics]:
        """Return the statistics of the rows that a fold's models are trained on, part by part; with None, of all.

        Raises
        ------
        DataError
            Where there are none.
        """
        found = [
            deepcopy(statistics)  # merging changes the first
            for part in self._parts
            for other, statistics in sorted(part.items())
            if other != fold
        ]
        if not found:
            raise DataError(f"without the rows of fold {fold} there are none to train on. Take other folds.")
        return found


@dataclass(frozen=True)
class _OfPart(Generic[T]):
    """The task: the statistics of a table's partition."""

    names: list[str]
    collect: Callable[[Iterator[pa.RecordBatch]], T]

    def __call__(self, part: TablePart) -> T:
        names = list(dict.fromkeys(self.names))
        every = (batch.columns for batch in part.coded(names))
        places = [names.index(name) for name in self.names]  # a column may be both a feature and the fold
        return self.collect(
            pa.RecordBatch.from_arrays([columns[place] for place in places], list(map(str, range(len(places)))))
            for columns in every
        )
