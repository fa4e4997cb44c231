"""Rows that are scored in Arrow: by Python workers, on one machine, and where a model is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.blocks.columns import FeatureEncoder, feature_matrix
from sparkopt.blocks.invalid import InvalidRowError, finite_rows, invalid_entry, of_valid, valid_features
from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.ml.table_columns import to_arrow
from sparkopt.typing import Array

__all__ = ["NOT_A_NUMBER", "RowScorer"]

NOT_A_NUMBER = (
    "has NaN, or infinities that cancel out, in its features or offset. Set handleInvalid='keep' for a null "
    "prediction, or 'skip' to leave such rows out."
)


@dataclass(frozen=True)
class RowScorer:
    """Scores rows in Arrow.

    Parameters
    ----------
    model : LinearModel
        The model.
    outputs : tuple of str
        Keys of the outputs that are wanted.
    offset : str or None
        The offset's column: rows are structs of features and offset then, instead of features alone.
    keeps : bool
        Whether invalid rows, with null, NaN or infinity, get null instead of an error.
    encoder : FeatureEncoder or None, default None
        What makes the features of the raw columns that rows have in place of them.
    """

    model: Any
    outputs: tuple[str, ...]
    offset: str | None
    keeps: bool
    encoder: FeatureEncoder | None = None

    def __call__(self, rows: pa.Array) -> pa.Array:
        """Return a struct of the outputs."""
        spare_modules()
        rows = self._encoded(rows)
        if self.keeps:
            return of_valid(self._scored, rows, self._valid(rows))
        try:
            return self._scored(rows)
        except DataError as error:
            raise self._invalid(rows) or error from None

    def _encoded(self, rows: pa.Array) -> pa.Array:
        """Return the rows with features in place of raw columns."""
        if self.encoder is None:
            return rows
        features = self.encoder.vectors((rows.field("features") if self.offset else rows).flatten())
        if self.offset is None:
            return features
        return pa.StructArray.from_arrays([features, rows.field("offset")], ["features", "offset"])

    def _invalid(self, rows: pa.Array) -> InvalidRowError | None:
        """Return the error of the first invalid row; None where there is none."""
        found = invalid_entry(rows.field("features") if self.offset else rows, self.model._features())
        valid = self._valid(rows)
        if found is not None or self.offset is None or valid is None:
            return found
        row = int(np.flatnonzero(~valid)[0])
        value = rows.field("offset")[row].as_py()
        return InvalidRowError(f"offset column {self.offset!r}", row, f"is {'null' if value is None else value}")

    def _valid(self, rows: pa.Array) -> Array | None:
        """Return which rows are valid; None where all are."""
        if self.offset is None:
            return valid_features(rows)
        batch = pa.RecordBatch.from_arrays([rows.field(0), rows.field(1)], ["features", "offset"])
        return finite_rows(batch, "features", {"offset": True})

    def _scored(self, rows: pa.Array) -> pa.Array:
        predicted = self.model._raw(feature_matrix(rows.field("features") if self.offset else rows))
        if self.offset:
            predicted = predicted + rows.field("offset").to_numpy(zero_copy_only=False)[:, None]
        if len(predicted) and np.isnan(predicted[:, 0]).any():
            raise DataError(f"row {int(np.flatnonzero(np.isnan(predicted[:, 0]))[0])} {NOT_A_NUMBER}")
        found = self.model._outputs(predicted)
        return pa.StructArray.from_arrays([to_arrow(found[key]) for key in self.outputs], list(self.outputs))
