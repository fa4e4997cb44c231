"""Labels that are not 0, 1, …: their different values, and rows with the number of each row's class instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from sparkopt.blocks.names import quoted
from sparkopt.errors import DataError
from sparkopt.features import Collect, RawColumn
from sparkopt.features.statistics import CATEGORY, CategoryStatistics, merged
from sparkopt.features.values import text_of
from sparkopt.machine import Table
from sparkopt.machine.part import OfPart
from sparkopt.values import dataclass

__all__ = ["ClassNumbers", "named_predictions", "values_of", "with_class_numbers"]


def values_of(rows: Any, column: str, most: int) -> list[str] | None:
    """Return the different values of a column as text, in order; None where they are more than ``most``. One pass."""
    from sparkopt.ml.table_statistics import statistics_of  # here, since it loads the estimators

    collect = Collect([RawColumn(column, CATEGORY)], most, counted=False)
    (found,) = merged(statistics_of(rows, [column], collect))
    if not isinstance(found, CategoryStatistics) or found.counts is None:
        return None
    return sorted(found.counts.column("value").to_pylist())


def with_class_numbers(rows: Any, label: str, names: Sequence[str]) -> Any:
    """Return rows whose label is the number of its class; a label that is none of the names is an error."""
    if isinstance(rows, Table):
        place = rows.schema.get_field_index(label)
        schema = rows.schema.set(place, pa.field(label, pa.float64()))
        return rows.with_parts((ClassNumbers(part, label, tuple(names)) for part in rows.partitions), schema)
    text = _as_text(F.col(quoted(label)), rows.schema[label].dataType.typeName())
    place = F.array_position(F.array(*map(F.lit, names)), text)
    unknown = F.raise_error(F.concat(F.lit(f"label column {label!r}: "), text, F.lit(_unknown(names))))
    number = F.when(F.col(quoted(label)).isNull(), F.lit(None)).when(place > 0, (place - 1).cast("double"))
    columns = [
        F.col(quoted(name)) if name != label else number.otherwise(unknown).alias(label) for name in rows.columns
    ]
    return rows.select(*columns)


def _as_text(column: Any, kind: str) -> Any:
    """Return a label as text: whole numbers without a fraction."""
    is_real = kind in ("double", "float", "decimal")
    return column.cast("long").cast("string") if is_real else column.cast("string")


def _unknown(names: Sequence[str]) -> str:
    some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f" is none of the model's classes: {some}."


def named_predictions(column: pa.Array, names: Sequence[str]) -> pa.Array:
    """Return the names of predicted classes; null stays null."""
    return pa.array(names, pa.string()).take(column.cast(pa.int64()))


@dataclass(frozen=True)
class ClassNumbers(OfPart):
    """The rows of a part with the number of each row's class as label.

    Parameters
    ----------
    part : TablePart
        The rows.
    label : str
        The column.
    names : tuple of str
        The classes.
    """

    label: str
    names: tuple[str, ...]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        first = 0
        for batch in self.part.batches(columns):
            place = batch.schema.get_field_index(self.label)
            found = (
                batch if place < 0 else batch.set_column(place, self.label, self._numbers(batch.column(place), first))
            )
            first += batch.num_rows
            yield found

    def _numbers(self, column: pa.Array, first: int) -> pa.Array:
        text = text_of(column, self.label)
        if pa.types.is_dictionary(text.type):
            text = text.dictionary_decode()
        found = pc.index_in(text, value_set=pa.array(self.names, pa.string()))
        if found.null_count > text.null_count:
            row = next(
                i for i, (one, value) in enumerate(zip(found, text, strict=True)) if value.is_valid > one.is_valid
            )
            value = text[row].as_py()
            where = f"{self.part.name}, row {first + row}"
            raise DataError(f"label column {self.label!r}, {where}: {value!r}{_unknown(self.names)}")
        return found.cast(pa.float64())
