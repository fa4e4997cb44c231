"""Tallies of a model's outputs in one pass, over the scored rows of Spark or of a table."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import feature_matrix
from sparkopt.blocks.names import column_text, quoted
from sparkopt.blocks.tables import named_table, number_of
from sparkopt.errors import DataError
from sparkopt.machine import Table, TablePart
from sparkopt.ml.metrics.rows import LABEL, WEIGHT, refuse_nan, tallies_of
from sparkopt.ml.metrics.tallies import ScoreTally, Tally, merged
from sparkopt.ml.table_columns import is_list
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Judged", "completed", "tallied"]


@dataclass(frozen=True)
class Judged:
    """What is tallied.

    Attributes
    ----------
    tally : Tally
        The empty tally.
    column : str or None
        The column of scored rows that it is given; None is zeros.
    entry : int or None, default None
        Which entry, of a column of Vectors; None is all of them, which only tables have.
    """

    tally: Tally
    column: str | None
    entry: int | None = None


def tallied(rows: DataFrame | Table, label: str, weight: str | None, judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Return a tally of each judged column, taken in one pass.

    Parameters
    ----------
    rows : DataFrame or Table
        Scored rows.
    label, weight : str
        Columns of targets and row weights; None is a weight of 1.
    judged : mapping of str to Judged
        What a model says, and the empty tally of it, by a name.

    Raises
    ------
    DataError
        Where there are no rows, or one of these columns is null in a row.
    """
    if not isinstance(rows, Table):
        weights = F.lit(1.0)
        if weight is not None:
            weights = F.col(column_text(rows.schema, weight, WEIGHT)).cast("double")
        columns = {name: (_column(one), one.tally) for name, one in judged.items()}
        return tallies_of(rows, F.col(column_text(rows.schema, label, LABEL)).cast("double"), weights, columns)
    rows = named_table(rows, [label, weight])
    found = for_each_part(_TallyPart(label, weight, judged), rows)
    parts = [part for part in found if part is not None]
    if not parts:
        raise DataError("there are no rows to evaluate: the table is empty.")
    return {name: merged([part[name] for part in parts]) for name in judged}


def completed(rows: DataFrame | Table, label: str, weight: str | None, first: Judged) -> ScoreTally:
    """Return the complete tally of scores, from that of a first pass."""
    tally: Any = first.tally
    if not tally.complete:
        tally = tallied(rows, label, weight, {"score": Judged(tally.at(), first.column, first.entry)})["score"]
    counted: ScoreTally = tally
    return counted


def _column(one: Judged) -> Column:
    if one.column is None:
        return F.lit(0.0)
    column = F.col(quoted(one.column))
    return column if one.entry is None else F.unwrap_udt(column)["values"][one.entry]


@dataclass(frozen=True)
class _TallyPart:
    """The task: the tallies of a table's part; None where it has no rows."""

    label: str
    weight: str | None
    judged: Mapping[str, Judged]

    def __call__(self, part: TablePart) -> dict[str, Tally] | None:
        tallies, any_rows = {name: deepcopy(one.tally) for name, one in self.judged.items()}, False
        named = [self.label, self.weight, *(one.column for one in self.judged.values())]
        for batch in part.batches(list(dict.fromkeys(name for name in named if name is not None))):
            if not batch.num_rows:
                continue
            any_rows = True
            y = _numbers(batch, self.label, LABEL)
            weight = np.ones(len(y)) if self.weight is None else _numbers(batch, self.weight, WEIGHT)
            for name, one in self.judged.items():
                found = np.zeros(len(y)) if one.column is None else _values(batch, one.column, name, one.entry)
                tallies[name].add(y, weight, found)
        for tally in tallies.values():
            if isinstance(tally, ScoreTally):
                tally.settle()
        return tallies if any_rows else None


def _values(batch: pa.RecordBatch, column: str, name: str, entry: int | None) -> Array:
    """Return a column's numbers (n,), or of Vectors one entry (n,) or all of them (n, k)."""
    values = batch.column(column)
    if not (is_list(values.type) or pa.types.is_struct(values.type)):
        return _numbers(batch, column, name)
    try:
        rows = feature_matrix(values)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    rows = rows if isinstance(rows, np.ndarray) else rows.toarray()
    return rows if entry is None else rows[:, entry]


def _numbers(batch: pa.RecordBatch, column: str, name: str) -> Floats:
    count = batch.column(column).null_count
    if count:
        raise DataError(f"{name} is null in {count} rows: they cannot be evaluated. Leave them out.")
    found = number_of(batch, column)
    if name == LABEL:
        refuse_nan(found)
    return found
