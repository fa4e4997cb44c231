"""Which rows are held out for validation: by a column, or by a hash of what they hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from sparkopt.blocks.names import column_text
from sparkopt.io.hashing import xxhash64
from sparkopt.typing import Array, Seed
from sparkopt.values import dataclass

__all__ = ["HeldOut"]

_SHARES = 1_000_000
"""Rows are held out in millionths, by a hash of their content."""


@dataclass(frozen=True)
class HeldOut:
    """Which rows are held out; the same ones by Spark (``condition``) and of a table (``rows``).

    Parameters
    ----------
    columns : tuple of str
        One boolean column, true in rows that are held out; or, with a ``fraction``, the columns that decide.
    fraction : float, default 0
        Share of the rows.
    seed : int, default 0
        With another seed, others are held out.
    """

    columns: tuple[str, ...]
    fraction: float = 0.0
    seed: Seed = 0

    def condition(self, schema: StructType) -> Column:
        """Return a boolean column of rows with this schema."""
        columns = [F.col(column_text(schema, name, "validation indicator")) for name in self.columns]
        if not self.fraction:
            return columns[0].cast("boolean")
        return F.pmod(F.xxhash64(F.lit(self.seed), *columns), F.lit(_SHARES)) < self._shares

    def rows(self, batch: pa.RecordBatch) -> Array:
        """Return a boolean for each row of a table's batch."""
        columns = [batch.column(name) for name in self.columns]
        if not self.fraction:
            return self.flags(columns[0])
        held_out: Array = xxhash64([self._seeds(batch.num_rows), *columns]) % _SHARES < self._shares
        return held_out

    @staticmethod
    def flags(column: pa.Array) -> Array:
        """Return a boolean column as an array; null is false."""
        found: Array = column.fill_null(False).to_numpy(zero_copy_only=False)
        return found

    @property
    def _shares(self) -> int:
        return int(self.fraction * _SHARES)

    def _seeds(self, rows: int) -> pa.Array:
        """Return the seed as a literal of Spark's is hashed: of 4 bytes where it fits."""
        is_short = -(2**31) <= self.seed < 2**31
        return pa.array(np.full(rows, self.seed), pa.int32() if is_short else pa.int64())
