"""Which fold each row is in: drawn by a seed, or given by a column, of DataFrames and of tables without Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from sparkopt.blocks.names import column_text, quoted
from sparkopt.blocks.rows import Rows
from sparkopt.blocks.tables import named_table
from sparkopt.errors import DataError
from sparkopt.machine import Table
from sparkopt.machine.part import OfPart
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["FOLD", "Draw", "drawn", "given", "in_fold", "not_in_fold"]

FOLD, DRAWN = "__sparkopt_fold", "__sparkopt_drawn"
"""Columns of a search: the same in each process, since a checkpoint's identity includes the columns' names."""


@dataclass(frozen=True)
class Draw:
    """How rows are divided by a number that is drawn for each, from 0 to 1.

    Attributes
    ----------
    bounds : tuple of (float, float)
        The numbers of each fold, from the first to below the second. Rows between them are in no fold.
    seed : int
        Determines the numbers, with a row's partition and place there.
    """

    bounds: tuple[tuple[float, float], ...]
    seed: int


def drawn(rows: Rows, draw: Draw) -> Rows:
    """Return the rows with the number of their fold in the column ``FOLD``, null for none; on Spark pyspark.ml's."""
    if isinstance(rows, Table):
        schema = rows.schema.append(pa.field(FOLD, pa.int32()))
        parts = (DrawnPart(part, number, draw) for number, part in enumerate(rows.partitions))
        return rows.with_parts(parts, schema)
    number = F.lit(None).cast("int")  # rounding may leave a last gap: such a row is in no fold
    for fold, (least, below) in reversed(list(enumerate(draw.bounds))):
        number = F.when((F.col(DRAWN) >= least) & (F.col(DRAWN) < below), fold).otherwise(number)
    return rows.select("*", F.rand(draw.seed).alias(DRAWN)).withColumn(FOLD, number).drop(DRAWN)


def given(rows: Rows, name: str, folds: int) -> Rows:
    """Return the rows, of which one without a fold is refused as it is read."""
    if isinstance(rows, Table):
        rows = named_table(rows, [name])
        return rows.with_parts(GivenPart(part, name, folds) for part in rows.partitions)
    refusal = F.raise_error(f"Fold number must be in range [0, {folds}), but got null").cast("int")
    return rows.withColumn(name, F.coalesce(F.col(column_text(rows.schema, name, "fold")), refusal))


def in_fold(rows: Rows, name: str, fold: int) -> Rows:
    """Return the rows of a fold."""
    if isinstance(rows, Table):
        return _chosen(rows, name, fold, True)
    return rows.where(F.col(quoted(name)).eqNullSafe(fold))


def not_in_fold(rows: Rows, name: str, fold: int) -> Rows:
    """Return the rows of all folds but one, and of none."""
    if isinstance(rows, Table):
        return _chosen(rows, name, fold, False)
    return rows.where(~F.col(quoted(name)).eqNullSafe(fold))


def _chosen(rows: Table, name: str, fold: int, inside: bool) -> Table:
    return rows.with_parts(ChosenPart(part, name, fold, inside) for part in rows.partitions)


@dataclass(frozen=True)
class DrawnPart(OfPart):
    """A part whose last column is the fold of each row.

    Parameters
    ----------
    part : TablePart
        The rows.
    number : int
        Which part of the table it is.
    draw : Draw
        How folds are drawn.
    """

    number: int
    draw: Draw

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows; how many are in a batch changes no fold."""
        generator = np.random.default_rng([abs(self.draw.seed), self.number])
        read = None if columns is None else [name for name in columns if name != FOLD]
        for batch in self.part.batches(read):
            folds = self._folds(generator.random(batch.num_rows))
            wanted = [*batch.schema.names, FOLD] if columns is None else list(columns)
            field = pa.field(FOLD, pa.int32())
            fields = [field if name == FOLD else batch.schema.field(name) for name in wanted]
            arrays = [folds if name == FOLD else batch.column(name) for name in wanted]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _folds(self, values: Floats) -> pa.Array:
        folds = np.full(len(values), -1, np.int32)
        for fold, (least, below) in enumerate(self.draw.bounds):
            folds[(values >= least) & (values < below)] = fold
        return pa.array(folds, mask=folds < 0)


@dataclass(frozen=True)
class GivenPart(OfPart):
    """A part in which every row has a fold.

    Parameters
    ----------
    part : TablePart
        The rows.
    column : str
        Column of folds.
    folds : int
        How many there are.
    """

    column: str
    folds: int

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows.

        Raises
        ------
        DataError
            For a row without a fold.
        """
        first = 0
        for batch in self.part.batches(columns):
            if self.column in batch.schema.names and batch.column(self.column).null_count:
                row = first + int(np.flatnonzero(batch.column(self.column).is_null())[0])
                raise DataError(
                    f"fold column {self.column!r}, {self.name}, row {row} is null; it must be a whole number from 0 "
                    f"to {self.folds - 1}. Filter or repair such rows before fitting."
                )
            first += batch.num_rows
            yield batch


@dataclass(frozen=True)
class ChosenPart(OfPart):
    """The rows of a part that are, or are not, in a fold.

    Parameters
    ----------
    part : TablePart
        The rows.
    column : str
        Column of folds.
    fold : int
        The fold.
    inside : bool
        Whether its rows are chosen, or the others.
    """

    column: str
    fold: int
    inside: bool

    @property
    def rows(self) -> None:  # type: ignore[override]
        """Not known before they are read."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        read = None if columns is None else list(dict.fromkeys([*columns, self.column]))
        for batch in self.part.batches(read):
            inside = pc.fill_null(pc.equal(batch.column(self.column), self.fold), False)
            found = batch.filter(inside if self.inside else pc.invert(inside))
            yield found if columns is None else found.select(list(columns))
