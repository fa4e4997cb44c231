"""Reader: a partition's Arrow batches as checked blocks.

Values are checked here, in the executors: a bad one is reported with its column, partition and row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used

from sparkopt.blocks.block import NO_FOLD, Block
from sparkopt.blocks.columns import (
    FEATURES,
    FOLD,
    LABEL,
    OFFSET,
    RAW,
    VALIDATION,
    WEIGHT,
    Columns,
    FeatureEncoder,
    feature_matrix,
    offsets,
)
from sparkopt.blocks.invalid import finite_features, finite_rows, valid_features
from sparkopt.blocks.vectors import KIND, unpacked
from sparkopt.errors import DataError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.matrices import Features
from sparkopt.typing import Array
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["HINT", "Reader"]

HINT = "Filter or repair such rows before fitting."
INVALID, INVALID_HINT = ("is null", "is nan", "is inf", "is -inf"), f"{HINT[:-1]}, or set handleInvalid='skip'."
"""What ``handleInvalid`` can leave out."""


@dataclass
class Reader:
    """Turns one partition's Arrow batches of ``Columns.select`` into checked blocks.

    Parameters
    ----------
    columns : Columns
        Names, for errors.
    targets : Interval
        What a label may be.
    partition : int
        Number of the partition, for errors.
    shown : str, default ""
        What it is, for errors, where it has a name.
    """

    columns: Columns
    targets: Interval
    partition: int
    shown: str = ""

    def __post_init__(self) -> None:
        self.row = 0  # rows of this partition in earlier batches
        self.skipped = 0
        self._kept: Array | None = None  # numbers of this batch's rows that are left
        self.width: int | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Block]:
        """Yield a batch's rows as one block, or as one for each fold, for training and for validation.

        Raises
        ------
        DataError
            At the first value that cannot be trained on.
        """
        for given in batches:
            X = None if self.columns.encoder is None else self._encoded(given, self.columns.encoder)
            batch = given if self.columns.invalid == "error" else self._valid(given, X)
            if batch.num_rows:
                X = X if X is None or self._kept is None else X[self._kept]
                yield from self._split(batch, self._block(batch, X))
            self.row += given.num_rows

    def _encoded(self, batch: pa.RecordBatch, encoder: FeatureEncoder) -> Features:
        """Return the features of raw columns."""
        raw = [batch.column(f"{RAW}{number}") for number in range(len(encoder.columns))]
        try:
            return encoder.matrix(raw)
        except DataError as error:
            raise DataError(f"partition {self._named}, counted from row {self.row}: {error}") from None

    def _valid(self, batch: pa.RecordBatch, X: Features | None) -> pa.RecordBatch:
        """Return the rows that can be trained on, and count the others; ``X`` are their features, if encoded."""
        names = {
            LABEL: True,
            **dict.fromkeys(self.columns.more_roles, True),
            WEIGHT: True,
            OFFSET: True,
            VALIDATION: False,
        }
        read = {name: is_number for name, is_number in names.items() if name in batch.schema.names}
        features = valid_features(batch.column(FEATURES)) if X is None else finite_features(X)
        valid = finite_rows(batch, features, read)
        self._kept = None if valid is None else np.flatnonzero(valid)
        if self._kept is None:
            return batch
        self.skipped += batch.num_rows - len(self._kept)
        return batch.take(pa.array(self._kept))

    def _block(self, batch: pa.RecordBatch, X: Features | None) -> Block:
        if X is None:
            kind = batch.column(KIND) if KIND in batch.schema.names else None
            X = self._features(batch.column(FEATURES), kind)
        self._check_finite(X)
        y = self._numbers(batch, LABEL, self.columns.label, self.targets)
        if self.columns.combine is not None:
            pairs = zip(self.columns.more_roles.items(), self.columns.combine.targets, strict=True)
            y = self.columns.combine(y, [self._numbers(batch, role, name, may) for (role, name), may in pairs])
        weight = None
        if self.columns.weight is not None:
            weight = self._numbers(batch, WEIGHT, self.columns.weight, Interval(0, None))
        if self.columns.class_weights is not None:
            factors = np.append(self.columns.class_weights, 1.0)
            factor = factors[np.minimum(y, len(factors) - 1).astype(np.intp)]
            weight = factor if weight is None else weight * factor
        offset = None
        if self.columns.offset is not None:
            offset = self._numbers(batch, OFFSET, self.columns.offset, Interval())
        return Block(X, y, weight, offset=offset)

    def _split(self, batch: pa.RecordBatch, block: Block) -> Iterator[Block]:
        """Split a block into training and validation rows, and by fold."""
        if self.columns.validation is None and self.columns.fold is None:
            yield block
            return
        validation, folds = self._validation(batch), self._folds(batch).astype(np.int64)
        most = int(folds.max()) - NO_FOLD + 1
        kinds = validation * most + (folds - NO_FOLD)
        for kind in np.unique(kinds).tolist():  # of pairs of numbers it takes longer than all else here
            is_validation, fold = divmod(kind, most)
            rows = np.flatnonzero(kinds == kind)
            yield replace(block.take(rows), is_validation=bool(is_validation), fold=fold + NO_FOLD)

    def _validation(self, batch: pa.RecordBatch) -> Array:
        """Return 1 for rows to validate on and 0 for others."""
        name = self.columns.validation
        if name is None:
            return np.zeros(batch.num_rows, np.int64)
        column = batch.column(VALIDATION)
        if column.null_count:
            self._refuse(VALIDATION, name, int(np.flatnonzero(column.is_null())[0]), "is null")
        found: Array = fixed_width_values(column).astype(np.int64)
        return found

    def _folds(self, batch: pa.RecordBatch) -> Array:
        """Return the fold of each row."""
        name, most = self.columns.fold, self.columns.folds
        if name is None:
            return np.full(batch.num_rows, NO_FOLD)
        domain = Interval(0, None if most is None else most - 1, whole=True)
        column = batch.column(FOLD)
        inside = domain.contains(fixed_width_values(column.fill_null(0)))
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            self._refuse(FOLD, name, row, f"is {column[row].as_py()}; it must be {domain}")
        found: Array = fixed_width_values(column.fill_null(NO_FOLD))
        return found

    def _features(self, column: pa.Array, kind: pa.Array | None) -> Array | scipy.sparse.csr_array:
        name = self.columns.feature_names
        if column.null_count:
            self._refuse(FEATURES, name, int(np.flatnonzero(column.is_null())[0]), "is null")
        self._check_entries(column)
        try:
            kinds = None if kind is None else fixed_width_values(kind)
            X = feature_matrix(column) if kinds is None or kinds.all() else unpacked(column, kinds)
        except DataError as error:
            raise DataError(
                f"features column {name!r}, partition {self._named}, {error}, counted from row {self.row}. {HINT}"
            ) from None
        self.width = X.shape[1] if self.width is None else self.width
        if X.shape[1] != self.width:
            problem = f"has {X.shape[1]} entries where the rows before it have {self.width}"
            self._refuse(FEATURES, name, 0, problem)
        return X

    def _check_entries(self, column: pa.Array) -> None:
        values = None if pa.types.is_struct(column.type) else column.flatten()
        if values is not None and values.null_count:
            flat, begins = int(np.flatnonzero(values.is_null())[0]), offsets(column)
            row = int(np.searchsorted(begins, flat, side="right")) - 1
            self._refuse_entry(row, flat - int(begins[row]), "null")

    def _check_finite(self, X: Features) -> None:
        valid = finite_features(X)
        if valid is None:
            return
        row = int(np.flatnonzero(~valid)[0])
        entries = X[row : row + 1]
        values = (entries if isinstance(entries, np.ndarray) else entries.toarray())[0]
        feature = int(np.flatnonzero(~np.isfinite(values))[0])
        self._refuse_entry(row, feature, str(values[feature]))

    def _refuse_entry(self, row: int, feature: int, value: str) -> None:
        """Name the column where features are several, else the feature's place."""
        if isinstance(self.columns.features, str):
            self._refuse(FEATURES, self.columns.features, row, f"is {value} at feature {feature}")
        self._refuse(FEATURES, self.columns.features[feature], row, f"is {value}")

    def _numbers(self, batch: pa.RecordBatch, role: str, name: str, domain: Interval) -> Array:
        column = batch.column(role)
        if column.null_count:
            self._refuse(role, name, int(np.flatnonzero(column.is_null())[0]), "is null")
        values: Array = fixed_width_values(column)
        inside = domain.contains(values)
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            hint = self.columns.label_hint if role == LABEL else ""
            self._refuse(role, name, row, f"is {values[row]:g}; it must be {domain}", hint or HINT)
        return values

    def _refuse(self, role: str, name: str, row: int, problem: str, hint: str = HINT) -> None:
        role, _, _ = role.partition(" ")  # further labels are numbered
        row = row if self._kept is None else int(self._kept[row])
        hint = INVALID_HINT if problem.startswith(INVALID) else hint
        raise DataError(f"{role} column {name!r}, partition {self._named}, row {self.row + row} {problem}. {hint}")

    @property
    def _named(self) -> str:
        return f"{self.partition} ({self.shown})" if self.shown else str(self.partition)
