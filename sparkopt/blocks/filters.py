"""Filters of rows as Spark evaluates them: a row stays where the condition is true, and NaN is above all numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.values import dataclass

__all__ = ["COMPARISONS", "Filter"]

COMPARISONS = {
    "EqualTo": "equal",
    "LessThan": "less",
    "LessThanOrEqual": "less_equal",
    "GreaterThan": "greater",
    "GreaterThanOrEqual": "greater_equal",
}
"""Arrow's names of Spark's comparisons."""


@dataclass(frozen=True)
class Filter:
    """A condition on columns, by the names of Spark's expressions.

    Attributes
    ----------
    kind : str
        "And", "Or", "Not", "IsNull", "IsNotNull", "AtLeastNNonNulls", "In" or one of ``COMPARISONS``.
    parts : sequence of Filter
        The conditions of "And", "Or" and "Not".
    columns : sequence of int
        Numbers of the columns that the others look at.
    value : number, str, or sequence of them
        What these are compared with; of "AtLeastNNonNulls" how many must be there.
    """

    kind: str
    parts: Sequence[Filter] = ()
    columns: Sequence[int] = ()
    value: Any = None

    def used(self) -> Iterator[int]:
        """Yield the numbers of all columns that it looks at."""
        yield from self.columns
        for part in self.parts:
            yield from part.used()

    def __call__(self, column: Callable[[int], pa.Array]) -> pa.Array:
        """Return whether the condition is true in each row, or null.

        Parameters
        ----------
        column : callable
            Returns a column by its number.

        Examples
        --------
        >>> import pyarrow as pa
        >>> rows = pa.array([1.0, 5.0, float("nan"), None])
        >>> Filter("GreaterThan", columns=[0], value=2.0)(lambda _: rows).to_pylist()
        [False, True, True, None]
        """
        if self.parts:
            found = [part(column) for part in self.parts]
            return {"And": pc.and_kleene, "Or": pc.or_kleene, "Not": pc.invert}[self.kind](*found)
        if self.kind == "AtLeastNNonNulls":
            return self._present([column(number) for number in self.columns])
        values = column(self.columns[0])
        if self.kind in ("IsNull", "IsNotNull"):
            return values.is_null() if self.kind == "IsNull" else values.is_valid()
        if self.kind == "In":
            found = pc.is_in(values, pa.array(self.value, values.type))
            return pc.if_else(values.is_valid(), found, None)
        compared = getattr(pc, COMPARISONS[self.kind])(values, pa.scalar(self.value, values.type))
        if self.kind.startswith("Greater") and pa.types.is_floating(values.type):
            return pc.or_kleene(compared, pc.is_nan(values))
        return compared

    def _present(self, columns: Sequence[pa.Array]) -> pa.Array:
        """Return where at least so many columns are neither null nor NaN."""
        total = None
        for values in columns:
            present = pc.invert(values.is_null(nan_is_null=pa.types.is_floating(values.type))).cast(pa.int32())
            total = present if total is None else pc.add(total, present)
        return pc.greater_equal(total, self.value)
