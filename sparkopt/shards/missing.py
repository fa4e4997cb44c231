"""Invalid rows of a network: null, NaN, infinity, and images that cannot be decoded (``handleInvalid``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, DataError
from sparkopt.images import Compose
from sparkopt.images.arrow import FAILURES, reason_of
from sparkopt.images.label_targets import LabelTarget
from sparkopt.shards.dense import dense, opened, stored
from sparkopt.shards.fields import Field, MissingValueError
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["RowCheck"]


@dataclass(frozen=True)
class RowCheck:
    """Finds the invalid rows of Arrow columns.

    Parameters
    ----------
    fields : sequence of Field
        What the columns are.
    pipeline : str or None
        JSON of what decodes images; each is decoded once to find those that cannot be. None leaves them unread.
    """

    fields: Sequence[Field]
    pipeline: str | None = None

    def valid(self, columns: Sequence[pa.Array]) -> Array | None:
        """Return which rows are valid; None where all are.

        Rows of unlike shapes and negative weights are valid here: they are no missing values.
        """
        decode = None if self.pipeline is None else Compose.from_json(self.pipeline)
        found = np.ones(len(columns[0]), bool)
        alone = None if any(field.target is not None for field in self.fields) else decode
        for field, column in zip(self.fields, columns, strict=True):
            _search(_Reading(field, column, alone), 0, len(column), found)
        self._compare(columns, decode, found)
        return None if found.all() else found

    def _compare(self, columns: Sequence[pa.Array], decode: Compose | None, found: Array) -> None:
        """Mark rows whose image or label cannot be decoded, or that do not fit each other."""
        places = [place for place, field in enumerate(self.fields) if field.target is not None]
        if not places or decode is None:
            return
        target = LabelTarget(self.fields[places[0]].target or "")
        kept = [columns[place].filter(pa.array(found)) for place in (0, places[0])]
        contents: list[Any] = [dense(self.fields[p], one) for p, one in zip((0, places[0]), kept, strict=True)]
        pairs = zip(*[one.to_pylist() for one in contents], strict=True)
        for row, (image, label) in zip(np.flatnonzero(found), pairs, strict=True):
            try:
                decode(target.sample(opened(self.fields[0], image), label))
            except FAILURES:
                found[row] = False


@dataclass(frozen=True)
class _Reading:
    """Reads rows of a column as a network does, to see whether that works."""

    field: Field
    column: pa.Array
    decode: Compose | None

    def __call__(self, start: int, rows: int) -> None:
        values: Any = stored(self.field, self.column.slice(start, rows))
        if self.field.is_image and self.decode is not None:
            for content in values.to_pylist():
                try:
                    self.decode(opened(self.field, content))
                except FAILURES as error:  # such as one that is too small for a crop
                    raise CorruptImageError(reason_of(error)) from error


def _search(read: Callable[[int, int], None], start: int, rows: int, valid: Array) -> None:
    """Mark the rows that cannot be read: a part that can be is not looked into further."""
    if not rows:
        return
    try:
        read(start, rows)
    except (DataError, CorruptImageError) as error:
        if rows == 1:  # a negative weight is no missing value, nor are rows of unlike shapes
            valid[start] &= not isinstance(error, (MissingValueError, CorruptImageError))
            return
        half = rows // 2
        _search(read, start, half, valid)
        _search(read, start + half, rows - half, valid)
