"""What a plan knows of the data: the labels of all rows, and the features of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import FEATURES, Columns, feature_matrix, features_type, quoted
from sparkopt.blocks.layout import SPARSE_BELOW
from sparkopt.blocks.reader import HINT
from sparkopt.blocks.store import reader_of
from sparkopt.blocks.tables import TableReader, numbers, spark_schema
from sparkopt.blocks.validity import valid_rows
from sparkopt.errors import DataError
from sparkopt.machine.table import Table
from sparkopt.typing import Array

__all__ = ["DataProfile"]

SAMPLE = 256
"""Rows whose features are read."""


@dataclass(frozen=True)
class DataProfile:
    """What a plan knows of a DataFrame: the labels of all rows, and the features of a few.

    Attributes
    ----------
    rows : list of int
        Rows of each partition that has any.
    partitions : int
        Number of partitions, empty ones included (on Spark Connect, but for empty ones at the end).
    features : int
        Number of features.
    row_bytes : float
        Bytes that a row takes in blocks.
    is_sparse : bool
        Whether blocks would be sparse.
    target_max : float
        Largest label.
    row_entries : float, default 0
        Entries of a row that are stored: without zeros where rows are sparse.
    reader : str, default ""
        What would read the rows: "arrow", or "spark" and why not Arrow.
    """

    rows: Sequence[int]
    partitions: int
    features: int
    row_bytes: float
    is_sparse: bool
    target_max: float
    row_entries: float = 0.0
    reader: str = ""

    @classmethod
    def of(cls, df: DataFrame | Table, columns: Columns) -> DataProfile:
        """Profile a DataFrame or table: one pass over the label column, and the first rows of the features.

        Raises
        ------
        SchemaError
            For a wrong column.
        DataError
            Where there are no rows, or labels that are null or NaN.
        """
        if columns.invalid != "error":
            df = valid_rows(df, columns.features, [columns.label, columns.weight, columns.offset])
        if isinstance(df, Table):
            return cls._of_table(df, columns)
        columns.check(df.schema)
        label = F.col(quoted(columns.label)).cast("double")
        counted = df.select(label.alias("label"), F.spark_partition_id().alias("partition"))
        bad = F.count_if(F.col("label").isNull() | F.isnan("label")).alias("bad")
        totals = F.count(F.lit(1)).alias("rows"), F.max("label").alias("top"), bad
        found = counted.groupBy("partition").agg(*totals).orderBy("partition").collect()
        labels = [_Labels(row["partition"], row["rows"], row["bad"], row["top"]) for row in found]
        _require_labels(labels, columns)
        selected = columns.select(df)
        first = selected.select("features").limit(SAMPLE).toArrow().column("features")
        X = feature_matrix(pa.concat_arrays(first.chunks) if first.num_chunks != 1 else first.chunk(0))
        is_narrow = features_type(df.schema, columns.features) == "float"
        partitions = 1 + labels[-1].partition if is_connect(df) else df.rdd.getNumPartitions()
        return cls._of(labels, X, columns, is_narrow, partitions, reader_of(selected)[1])

    @classmethod
    def _of_table(cls, table: Table, columns: Columns) -> DataProfile:
        """Profile a table: its labels, and the features of the first partition that has rows."""
        reader = TableReader.of(table.schema, columns)
        labels = list[_Labels]()
        for index, part in enumerate(table.partitions):
            values = np.concatenate([batch[:, 0] for batch in numbers([part], [columns.label])] or [np.zeros(0)])
            if len(values):
                bad = np.isnan(values)
                top = float(values[~bad].max()) if not bad.all() else None
                labels.append(_Labels(index, len(values), int(bad.sum()), top))
        _require_labels(labels, columns)
        first = next(batch for batch in reader(table.partitions[labels[0].partition]) if batch.num_rows)
        X = feature_matrix(first.column(FEATURES).slice(0, SAMPLE))
        is_narrow = features_type(spark_schema(table.schema), columns.features) == "float"
        return cls._of(labels, X, columns, is_narrow, len(table.partitions), f"arrow: {table}")

    @classmethod
    def _of(
        cls,
        labels: Sequence[_Labels],
        X: Array | scipy.sparse.csr_array,
        columns: Columns,
        is_narrow: bool,
        partitions: int,
        reader: str,
    ) -> DataProfile:
        """Profile rows of which labels and some features are known."""
        number = 4 if is_narrow else 8
        stored = X.size if isinstance(X, np.ndarray) else X.nnz
        is_sparse = not isinstance(X, np.ndarray) and stored < SPARSE_BELOW * X.shape[0] * X.shape[1]
        per_row = stored / X.shape[0] * (number + 4) if is_sparse else X.shape[1] * number
        others = 8 * (1 + sum(name is not None for name in (columns.weight, columns.offset)))
        return cls(
            [found.rows for found in labels],
            partitions,
            X.shape[1],
            per_row + others,
            is_sparse,
            max(found.top for found in labels if found.top is not None),
            stored / X.shape[0],
            reader,
        )


@dataclass(frozen=True)
class _Labels:
    """A partition's labels: how many rows, how many of them null or NaN, and the largest."""

    partition: int
    rows: int
    bad: int
    top: float | None


def _require_labels(labels: Sequence[_Labels], columns: Columns) -> None:
    """Refuse data without rows, or with labels that are null or NaN."""
    if not labels:
        raise DataError("there are no rows to train on: the DataFrame or table is empty.")
    for found in labels:
        if found.bad:
            raise DataError(
                f"label column {columns.label!r}, partition {found.partition} has {found.bad} rows with null or NaN. "
                f"{HINT}"
            )
