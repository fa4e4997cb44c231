"""DataFrames of which a column of features is computed, and remember by what.

Such a column is an ordinary one for Spark. Where it is trained on or scored, the same task that needs the features
computes them, of the raw columns: they never pass through the JVM. A DataFrame that is made of such a one forgets it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.chunks import CHUNK_SCHEMA, chunks_of, collected, pickled
from sparkopt.blocks.classic import of_files
from sparkopt.blocks.columns import FeatureEncoder, raw_columns
from sparkopt.blocks.descriptions import described
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.parquet import NotReadHere
from sparkopt.blocks.scan import parquet_scan
from sparkopt.io.worker import spare_modules
from sparkopt.values import dataclass

__all__ = ["encoder_of", "for_each_partition", "remember"]

T = TypeVar("T")
ATTRIBUTE = "_sparkopt_encoded"
BatchesFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], T]
"""What is computed from a partition's rows; it can be pickled."""


def remember(df: DataFrame, features: str, encoder: FeatureEncoder) -> DataFrame:
    """Return a DataFrame that knows what makes one of its columns."""
    setattr(df, ATTRIBUTE, (features, encoder))
    return df


def encoder_of(df: object, features: str | Sequence[str]) -> FeatureEncoder | None:
    """Return what makes a DataFrame's column of features, where it knows that."""
    name, encoder = vars(df).get(ATTRIBUTE, ("", None))
    return encoder if name == features else None


def for_each_partition(df: DataFrame, names: Sequence[str], function: BatchesFunction[T]) -> list[T]:
    """Return what a function returns of each partition's rows, in the order of the partitions; in one job.

    Parameters
    ----------
    df : DataFrame
        The rows.
    names : sequence of str
        The columns that the function is given, in this order.
    function : callable
        Of an iterator of batches.

    Raises
    ------
    SchemaError
        For a column that does not exist.
    DataError
        What the function raises.
    """
    selected = df.select(*raw_columns(df.schema, names))
    with data_errors(), described(df.sparkSession, "statistics of columns"):
        found = None if is_connect(df) else _of_files(selected, function)
        if found is None:
            found = collected(selected.mapInArrow(_OfRows(pickled(function)), CHUNK_SCHEMA).toArrow())
        return found


def _of_files(selected: DataFrame, function: BatchesFunction[T]) -> list[T] | None:
    """Return what a function returns of each partition, where tasks can read the files themselves."""
    try:
        scan = parquet_scan(selected)
    except NotReadHere:
        return None
    return of_files(selected, scan, function) if scan.partitions else None


@dataclass(frozen=True)
class _OfRows:
    """The task that is given a partition's rows by Spark."""

    pickled: bytes

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spare_modules()
        function = pickle.loads(self.pickled)  # noqa: S301  # written by this session's own driver
        context = TaskContext.get()
        yield from chunks_of(0 if context is None else context.partitionId(), pickled(function(batches)))
