"""How one raw column becomes features: pure functions of an Arrow array, described by data.

An encoding returns *entries*: for each row at most one feature that is not zero, as its place and its value. A number
is one entry, a category is one, a date several. So a product of two columns is a product of their entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.errors import DataError
from sparkopt.features.values import EPOCH, days_of, numbers_of, text_of
from sparkopt.io.hashing import xxhash64
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = [
    "CategoryEncoding",
    "ColumnEncoding",
    "DateEncoding",
    "Entry",
    "HashEncoding",
    "NumberEncoding",
    "restored",
]


class Entry(NamedTuple):
    """One of the entries of some rows.

    Attributes
    ----------
    place : int or ndarray of shape (n,)
        Place of each row's feature within its column's: a number where all rows have the same, −1 for no entry.
    value : ndarray of shape (n,) or None
        Its value; None is 1.
    """

    place: int | Array
    value: Floats | None

    def times(self, other: Entry, width: int) -> Entry:
        """Return the entry of the product with an entry of a column of ``width`` features."""
        place = self.place * width + other.place
        if not (isinstance(self.place, int) and isinstance(other.place, int)):
            place = np.where((np.asarray(self.place) < 0) | (np.asarray(other.place) < 0), -1, place)
        if self.value is None or other.value is None:
            return Entry(place, other.value if self.value is None else self.value)
        return Entry(place, self.value * other.value)

    def at(self, start: int) -> Entry:
        """Return the same where the column's first feature is number ``start``."""
        if isinstance(self.place, int):
            return Entry(self.place + start, self.value)
        return Entry(np.where(self.place < 0, -1, self.place + start).astype(np.int32), self.value)


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class ColumnEncoding(ABC):
    """How one column becomes features.

    Attributes
    ----------
    kind : str
        Its name in saved encoders.
    column : str
        The column.
    """

    kind: ClassVar[str]
    column: str

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Names of the features."""

    @abstractmethod
    def entries(self, values: pa.Array) -> list[Entry]:
        """Return the entries of some rows."""

    def state(self) -> dict[str, Any]:
        """Return what describes it, for JSON."""
        fields = asdict(self)  # type: ignore[call-overload]  # all of them are dataclasses
        return {"kind": self.kind, **{name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}}


@dataclass(frozen=True)
class NumberEncoding(ColumnEncoding):
    """A number as itself, with another in place of null.

    Parameters
    ----------
    column : str
        The column.
    fill : float
        What takes the place of null and NaN.
    indicator : bool, default False
        Whether a feature says that it was null.
    """

    kind = "number"

    column: str
    fill: float
    indicator: bool = False

    @property
    def names(self) -> list[str]:
        """The column's name, and that of the indicator."""
        return [self.column, *([_missing(self.column)] if self.indicator else [])]

    def entries(self, values: pa.Array) -> list[Entry]:
        """Return the number, and whether it is missing."""
        return _with_indicator(numbers_of(values, self.column), self.fill, 1 if self.indicator else None)


def _missing(column: str) -> str:
    return f"{column} is missing"


def _with_indicator(numbers: Floats, fill: float, place: int | None) -> list[Entry]:
    """Return numbers at place 0 with the missing ones filled, and the indicator at its place, if it has one."""
    missing = np.isnan(numbers)
    found = [Entry(0, np.where(missing, fill, numbers))]
    if place is not None:
        found.append(Entry(np.where(missing, place, -1).astype(np.int32), None))
    return found


@dataclass(frozen=True)
class CategoryEncoding(ColumnEncoding):
    """A category as a feature that is 1 where the row has it.

    A category that was not seen in training is 0 in all of them, or "other" where rare ones were joined.

    Parameters
    ----------
    column : str
        The column.
    categories : tuple of str
        Those that have a feature of their own, in order.
    reference : tuple of str, default ()
        Those that are known, and 0 in all features.
    other : bool, default False
        Whether the rare ones share a feature.
    missing : bool, default False
        Whether null has a feature.
    """

    kind = "category"

    column: str
    categories: tuple[str, ...]
    reference: tuple[str, ...] = ()
    other: bool = False
    missing: bool = False

    @property
    def names(self) -> list[str]:
        """``column=category`` for each, then other and missing."""
        own = [f"{self.column}={category}" for category in self.categories]
        return [*own, *([f"{self.column}=(other)"] if self.other else []), *([_missing(self.column)] * self.missing)]

    @cached_property
    def _known(self) -> pa.Array:
        return pa.array([*self.categories, *self.reference], pa.string())

    def entries(self, values: pa.Array) -> list[Entry]:
        """Return the place of each row's category."""
        text = text_of(values, self.column)
        coded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
        other = len(self.categories) if self.other else -1
        place = pc.index_in(coded.dictionary, value_set=self._known).fill_null(-2).to_numpy(zero_copy_only=False)
        by_code = np.where(place == -2, other, np.where(place >= len(self.categories), -1, place)).astype(np.int32)
        null = len(self.categories) + self.other if self.missing else -1
        by_code = np.append(by_code, np.int32(null))
        codes = coded.indices.fill_null(len(by_code) - 1) if coded.indices.null_count else coded.indices
        return [Entry(by_code[codes.to_numpy(zero_copy_only=False)], None)]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}


@dataclass(frozen=True)
class HashEncoding(ColumnEncoding):
    """A category as one of some features by its hash: for columns of very many.

    Parameters
    ----------
    column : str
        The column.
    buckets : int
        How many features there are.
    missing : bool, default False
        Whether null has a feature of its own.
    """

    kind = "hash"

    column: str
    buckets: int
    missing: bool = False

    @property
    def names(self) -> list[str]:
        """``column#number`` for each."""
        return [
            *(f"{self.column}#{number}" for number in range(self.buckets)),
            *[_missing(self.column)] * self.missing,
        ]

    def entries(self, values: pa.Array) -> list[Entry]:
        """Return the place of each row's category."""
        text = text_of(values, self.column)
        coded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
        place = np.zeros(0, np.int64)
        if len(coded.dictionary):
            place = (xxhash64([coded.dictionary]).view(np.uint64) % np.uint64(self.buckets)).astype(np.int64)
        by_code = np.append(place, self.buckets if self.missing else -1).astype(np.int32)
        codes = coded.indices.fill_null(len(by_code) - 1) if coded.indices.null_count else coded.indices
        return [Entry(by_code[codes.to_numpy(zero_copy_only=False)], None)]


@dataclass(frozen=True)
class DateEncoding(ColumnEncoding):
    """A date as days since the first one, years since the first one's, day of the month, and month, weekday and hour.

    Months, weekdays and hours are categories: a feature each. A timestamp with a time zone counts as the clock there
    shows it.

    Parameters
    ----------
    column : str
        The column.
    start : float
        Days from 1970 to the first date.
    fill : float
        Days from 1970 to the date that takes the place of null.
    has_time : bool, default False
        Whether there are hours.
    indicator : bool, default False
        Whether a feature says that it was null.
    """

    kind = "date"

    column: str
    start: float
    fill: float
    has_time: bool = False
    indicator: bool = False

    @property
    def names(self) -> list[str]:
        """The column's name with what each feature is."""
        first = EPOCH + np.timedelta64(int(np.floor(self.start)), "D")
        parts = [f"days since {first}", f"years since {str(first)[:4]}", "day of month"]
        parts += [f"month={month}" for month in MONTHS]
        parts += [f"weekday={weekday}" for weekday in WEEKDAYS]
        parts += [f"hour={hour}" for hour in range(24)] if self.has_time else []
        return [*(f"{self.column}: {part}" for part in parts), *([_missing(self.column)] if self.indicator else [])]

    def entries(self, values: pa.Array) -> list[Entry]:
        """Return an entry for each part."""
        days = days_of(values, self.column)
        missing = np.isnan(days)
        days = np.where(missing, self.fill, days)
        whole = np.floor(days).astype(np.int64)
        date = whole.astype("datetime64[D]")
        months = date.astype("datetime64[M]")
        first_year = int((EPOCH + np.timedelta64(int(np.floor(self.start)), "D")).astype("datetime64[Y]").astype(int))
        month = months.astype(np.int64)
        elapsed = (days if self.has_time else whole) - np.floor(self.start)
        found = [
            Entry(0, elapsed.astype(np.float64)),
            Entry(1, (np.floor_divide(month, 12) - first_year).astype(np.float64)),
            Entry(2, (date - months.astype("datetime64[D]")).astype(np.float64) + 1),
            Entry((3 + np.mod(month, 12)).astype(np.int32), None),
            Entry((15 + np.mod(whole + 3, 7)).astype(np.int32), None),  # 1970 began on a Thursday
        ]
        if self.has_time:
            hours = np.clip(np.floor((days - whole) * 24 + 1e-9), 0, 23)
            found.append(Entry((22 + hours).astype(np.int32), None))
        if self.indicator:
            place = 46 if self.has_time else 22
            found.append(Entry(np.where(missing, place, -1).astype(np.int32), None))
        return found


KINDS: dict[str, type[Any]] = {
    encoding.kind: encoding for encoding in (NumberEncoding, CategoryEncoding, HashEncoding, DateEncoding)
}


def restored(states: Sequence[dict[str, Any]]) -> tuple[ColumnEncoding, ...]:
    """Return the encodings that were described.

    Raises
    ------
    DataError
        For a kind that is not known: a newer version's.
    """
    found = []
    for state in states:
        kind = KINDS.get(state["kind"])
        if kind is None:
            raise DataError(f"column {state['column']!r} is encoded by {state['kind']!r}: update sparkopt.")
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}
        found.append(kind(**{key: value for key, value in fields.items() if key != "kind"}))
    return tuple(found)
