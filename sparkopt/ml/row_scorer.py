"""Rows that are scored in Arrow: by Python workers, on one machine, and where a model is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from sparkopt.blocks.columns import FeatureEncoder, feature_matrix
from sparkopt.blocks.invalid import InvalidRowError, finite_rows, invalid_entry, of_valid, valid_features
from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.ml.responses import Response
from sparkopt.ml.scores import Scores
from sparkopt.ml.table_columns import to_arrow
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["NOT_A_NUMBER", "RestScorer", "RowScorer", "respond_in_task", "score_in_task"]

NOT_A_NUMBER = (
    "has NaN, or infinities that cancel out, in its features or offset. Set handleInvalid='keep' for a null "
    "prediction, or 'skip' to leave such rows out."
)


def score_in_task(scorer: RowScorer) -> Callable[[pa.Array], pa.Array]:
    """Return a scorer for ``arrow_udf``: its errors name the task's partition, and the row there."""
    seen = 0

    def score(rows: pa.Array) -> pa.Array:
        nonlocal seen  # rows of this task in earlier batches
        try:
            found = scorer(rows)
        except InvalidRowError as error:
            context = TaskContext.get()
            raise error.at(f"partition {context.partitionId() if context else 0}", seen) from None
        seen += len(rows)
        return found

    score.__annotations__ = {"rows": pa.Array, "return": pa.Array}
    return score


def respond_in_task(response: Response, outputs: tuple[str, ...]) -> Callable[[pa.Array], pa.Array]:
    """Return a function for ``arrow_udf`` from raw predictions, numbers, to a struct of output columns."""

    def respond(raw: pa.Array) -> pa.Array:
        spare_modules()
        found = response(raw.to_numpy(zero_copy_only=False)[:, None])
        return pa.StructArray.from_arrays([to_arrow(found[key]) for key in outputs], list(outputs))

    respond.__annotations__ = {"raw": pa.Array, "return": pa.Array}
    return respond


@dataclass(frozen=True)
class RowScorer:
    """Scores rows in Arrow.

    Parameters
    ----------
    scores : Scores
        The model's.
    features : str or sequence of str
        The features' columns, for messages.
    outputs : tuple of str
        Keys of the outputs that are wanted.
    offset : str or None
        The offset's column: rows are structs of features and offset then, instead of features alone.
    keeps : bool
        Whether invalid rows, with null, NaN or infinity, get null instead of an error.
    encoder : FeatureEncoder or None, default None
        What makes the features of the raw columns that rows have in place of them.
    """

    scores: Scores
    features: str | Sequence[str]
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
        found = invalid_entry(rows.field("features") if self.offset else rows, self.features)
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
        return finite_rows(batch, valid_features(batch.column("features")), {"offset": True})

    def _scored(self, rows: pa.Array) -> pa.Array:
        predicted = self.scores.raw(feature_matrix(rows.field("features") if self.offset else rows))
        if self.offset:
            predicted = predicted + rows.field("offset").to_numpy(zero_copy_only=False)[:, None]
        if len(predicted) and np.isnan(predicted[:, 0]).any():
            raise DataError(f"row {int(np.flatnonzero(np.isnan(predicted[:, 0]))[0])} {NOT_A_NUMBER}")
        found = self.scores.outputs(predicted)
        return pa.StructArray.from_arrays([to_arrow(found[key]) for key in self.outputs], list(self.outputs))


@dataclass(frozen=True)
class RestScorer:
    """Scores rows in Arrow by the models of all classes.

    Parameters
    ----------
    scores : list of Scores
        Those of the model of each class.
    features : str or sequence of str
        The features' columns, for messages.
    outputs : tuple of str
        Keys of the outputs that are wanted.
    keeps : bool
        Whether invalid rows, with null, NaN or infinity, get null instead of an error.
    """

    scores: list[Scores]
    features: str | Sequence[str]
    outputs: tuple[str, ...]
    keeps: bool

    def __call__(self, rows: pa.Array) -> pa.Array:
        """Return a struct of the outputs."""
        if self.keeps:
            return of_valid(self._scored, rows, valid_features(rows))
        try:
            return self._scored(rows)
        except DataError as error:
            raise invalid_entry(rows, self.features) or error from None

    def _scored(self, rows: pa.Array) -> pa.Array:
        X = feature_matrix(rows)
        raw = np.stack([one.output("rawPrediction", one.raw(X))[:, 1] for one in self.scores], axis=1)
        found = {"rawPrediction": raw, "prediction": raw.argmax(axis=1)}
        return pa.StructArray.from_arrays([to_arrow(found[key]) for key in self.outputs], list(self.outputs))
