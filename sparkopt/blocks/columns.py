"""From DataFrame columns to arrays: which columns, of which types, and which rows are refused.

The check reads the schema only, so a wrong column is refused before any job. ``Reader`` checks values where they are
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    ByteType,
    DataType,
    DecimalType,
    FloatType,
    IntegralType,
    NullType,
    NumericType,
    ShortType,
    StringType,
    StructType,
    TimestampType,
)

from sparkopt.blocks.names import column_text, path_of, plain_types, quoted, type_at
from sparkopt.errors import DataError, SchemaError
from sparkopt.io.arrow import fixed_width_values
from sparkopt.matrices import Features
from sparkopt.typing import Array
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["RAW", "Columns", "FeatureEncoder", "LabelCombiner", "feature_matrix", "raw_columns", "raw_texts"]

FEATURES, LABEL, WEIGHT, VALIDATION, OFFSET, FOLD = "features", "label", "weight", "validation", "offset", "fold"

TEXT_LABEL = "Cast numbers to double; number classes from 0, as StringIndexer and the command sparkopt train do."
MOST_SHOWN = 100
"""Most columns that an error names."""
RAW = "raw "
"""Begins the names of the columns that an encoder makes features of; their numbers follow."""


class FeatureEncoder(Protocol):
    """What makes features of raw columns: a pure function that can be pickled."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the features, in order."""
        ...

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def vectors(self, columns: Sequence[pa.Array]) -> pa.StructArray:
        """Return the features of some rows as Spark's Vectors.

        Raises
        ------
        DataError
            For a value that it does not know how to take.
        """
        ...

    def matrix(self, columns: Sequence[pa.Array]) -> Features:
        """Return the same features as blocks have them; which of them are dense depends on no row."""
        ...


class LabelCombiner(Protocol):
    """What makes one target of several labels: a pure function that can be pickled."""

    @property
    def targets(self) -> tuple[Interval, ...]:
        """What each further label may be."""
        ...

    def __call__(self, label: Array, more: Sequence[Array]) -> Array:
        """Return the target, float64, of the label and the further ones, each of shape (n,)."""
        ...


@dataclass(frozen=True)
class Columns:
    """Which columns to train on.

    Parameters
    ----------
    features : str or sequence of str
        One Vector or array<numeric> column, or several numeric columns.
    label : str
        A numeric column.
    weight : str or None, default None
        A numeric column of row weights ≥ 0.
    validation : str or None, default None
        A boolean column: true in rows that are for validation and not for training.
    class_weights : tuple of float or None, default None
        Factors of the weights of rows with label 0, 1, …; rows with later labels keep their weights.
    offset : str or None, default None
        A numeric column that is added to the raw predictions.
    fold : str or None, default None
        An integer column: the fold of a cross-validation that a row is in, from 0; null for none.
    folds : int or None, default None
        How many folds there may be; None is any number.
    invalid : {"error", "skip", "keep"}, default "error"
        What becomes of rows with null, NaN or infinity: the last two leave them out.
    encoder : FeatureEncoder or None, default None
        What makes the features, of other columns of the same rows, while blocks are written; None reads them.
    label_hint : str, default ""
        What to do about a label that the model does not take, for errors.
    more_labels : tuple of str, default ()
        Further numeric columns that the target is made of.
    combine : LabelCombiner or None, default None
        What makes the target of the label and of those; None where there are none.
    """

    features: str | Sequence[str]
    label: str
    weight: str | None = None
    validation: str | None = None
    class_weights: tuple[float, ...] | None = None
    offset: str | None = None
    fold: str | None = None
    folds: int | None = None
    invalid: str = "error"
    encoder: FeatureEncoder | None = None
    label_hint: str = ""
    more_labels: tuple[str, ...] = ()
    combine: LabelCombiner | None = None

    @property
    def feature_names(self) -> str:
        """The feature columns as errors name them."""
        return self.features if isinstance(self.features, str) else ", ".join(self.features)

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        features = [self.features] if isinstance(self.features, str) else list(self.features)
        others = (self.label, self.weight, self.validation, self.offset, self.fold)
        return [*features, *(name for name in others if name is not None), *self.more_labels]

    @property
    def more_roles(self) -> dict[str, str]:
        """The columns of further labels by the names under which they are read."""
        return {f"{LABEL} {number}": name for number, name in enumerate(self.more_labels, 1)}

    def check(self, schema: StructType) -> None:
        """Refuse a schema that lacks a column or has one of the wrong type.

        Raises
        ------
        SchemaError
            Naming the column, its type and the types that are allowed.
        """
        features_type(schema, self.features)
        if not isinstance(self.features, str):
            check_once(schema, self.features, "featuresCols")
        alike = (
            [] if isinstance(self.features, str) else [n for n in self.features if n.lower() == self.label.lower()]
        )
        if any(path_of(schema, name, FEATURES) == path_of(schema, self.label, LABEL) for name in alike):
            raise SchemaError(
                f"featuresCols names the label, {self.label!r}: the model would predict it by itself. Leave it out."
            )
        if self.weight is not None and self.weight == self.label:
            raise SchemaError(f"{WEIGHT} column names the label, {self.label!r}. Name the column of row weights.")
        more = [(LABEL, name) for name in self.more_labels]
        for role, name in ((LABEL, self.label), *more, (WEIGHT, self.weight), (OFFSET, self.offset)):
            if name is not None:
                number_type(schema, name, role)
        if self.fold is not None:
            found = column_type(schema, self.fold, FOLD)
            if not isinstance(found, IntegralType):
                raise SchemaError(f"{FOLD} column {self.fold!r} has type {found.simpleString()}; it must be integer.")
        if self.validation is not None:
            found = column_type(schema, self.validation, VALIDATION)
            if not isinstance(found, BooleanType):
                raise SchemaError(
                    f"{VALIDATION} column {self.validation!r} has type {found.simpleString()}; it must be boolean."
                )

    def select(self, df: DataFrame) -> DataFrame:
        """Return the columns under fixed names and types, as ``Reader`` expects them."""
        self.check(df.schema)

        def column(name: str, role: str) -> str:
            return column_text(df.schema, name, role)

        # SQL: the JVM takes a whole expression by one call, where each operation on a Column takes about ten
        selected = [f"CAST({column(self.label, LABEL)} AS DOUBLE) AS `{LABEL}`"]
        for role, name in ((WEIGHT, self.weight), (OFFSET, self.offset)):
            if name is not None:
                selected.append(f"CAST({column(name, role)} AS DOUBLE) AS `{role}`")
        for role, name in self.more_roles.items():
            selected.append(f"CAST({column(name, LABEL)} AS DOUBLE) AS `{role}`")
        if self.validation is not None:
            selected.append(f"{column(self.validation, VALIDATION)} AS `{VALIDATION}`")
        if self.fold is not None:
            selected.append(f"CAST({column(self.fold, FOLD)} AS BIGINT) AS `{FOLD}`")
        if self.encoder is None:
            return df.selectExpr(f"{features_text(df.schema, self.features)} AS `{FEATURES}`", *selected)
        return df.select(*raw_columns(df.schema, self.encoder.columns), *map(F.expr, selected))


def column_type(schema: StructType, name: str, role: str) -> DataType:
    """Return the type of column ``name``.

    Raises
    ------
    SchemaError
        Where there is no such column; the message lists those there are.
    """
    path = path_of(schema, name, role)
    if path is None:
        raise SchemaError(f"{role} column {name!r} does not exist. Columns: {shown_names(schema.names)}.")
    return type_at(schema, path)


def shown_names(names: Sequence[str]) -> str:
    """Return the names of columns for an error: all of them, where they are not too many to read."""
    more = f", ... ({len(names):,} in all)" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def is_number(found: DataType) -> bool:
    """Whether a column of this type can be cast to double without loss of meaning."""
    return isinstance(found, (NumericType, BooleanType, NullType))  # of null alone: a column that is empty today


def number_type(schema: StructType, name: str, role: str) -> DataType:
    """Return the type of a column of numbers.

    Raises
    ------
    SchemaError
        Where it has other values, or does not exist.
    """
    found = column_type(schema, name, role)
    if not is_number(found):
        way = f" {TEXT_LABEL}" if role == LABEL and isinstance(found, StringType) else ""
        raise SchemaError(f"{role} column {name!r} has type {found.simpleString()}; it must be numeric.{way}")
    return found


def features_type(schema: StructType, features: str | Sequence[str]) -> str:
    """Return the kind of the features: "vector", "float" or "double" (arrays of that type).

    Raises
    ------
    SchemaError
        For a missing column or a type that holds no numbers.
    """
    from pyspark.ml.linalg import VectorUDT  # here, since it loads pandas and tasks import this module

    narrow = (FloatType, ByteType, ShortType)  # types whose values float32 holds exactly
    if isinstance(features, str):
        found = column_type(schema, features, FEATURES)
        if isinstance(found, VectorUDT):
            return "vector"
        if isinstance(found, ArrayType) and is_number(found.elementType):
            return "float" if isinstance(found.elementType, narrow) else "double"
        raise SchemaError(
            f"features column {features!r} has type {found.simpleString()}; it must be a Vector or an array of "
            f"numbers. Numeric columns go into featuresCols=[...]."
        )
    if not features:
        raise SchemaError("featuresCols is empty: name at least one numeric column.")
    known = plain_types(schema)
    types = [known[name] if name in known else column_type(schema, name, FEATURES) for name in features]
    for name, found in zip(features, types, strict=True):
        if not is_number(found):
            raise SchemaError(f"features column {name!r} has type {found.simpleString()}; it must be numeric.")
    return "float" if all(isinstance(found, narrow) for found in types) else "double"


def check_once(schema: StructType, names: Sequence[str], parameter: str) -> None:
    """Refuse a column that is named twice, in one spelling or two.

    Raises
    ------
    SchemaError
        Naming the column.
    """
    if len({name.lower().strip("`") for name in names}) == len(names):
        return
    before: dict[tuple[str, ...] | None, str] = {}
    for name in names:
        path = path_of(schema, name, FEATURES)
        if path in before:
            other = before[path]
            how = "twice" if other == name else f"as {other!r} too"
            raise SchemaError(f"{parameter} names column {name!r} {how}. Leave one out.")
        before[path] = name


def features_column(schema: StructType, features: str | Sequence[str]) -> Column:
    """Return one expression for the features: the Vector itself, or an array<float> or array<double>."""
    return F.expr(features_text(schema, features))


def features_text(schema: StructType, features: str | Sequence[str]) -> str:
    """Return the same in SQL: a call of the JVM for each of thousands of columns takes seconds."""
    kind = features_type(schema, features)
    if isinstance(features, str):
        name = column_text(schema, features, FEATURES)
        return name if kind == "vector" else f"CAST({name} AS ARRAY<{kind}>)"
    known = plain_types(schema)
    names = [quoted(name) if name in known else column_text(schema, name, FEATURES) for name in features]
    return f"array({', '.join(f'CAST({name} AS {kind})' for name in names)})"


def raw_columns(schema: StructType, names: Sequence[str]) -> list[Column]:
    """Return columns under the names that begin with ``RAW``, of types that Arrow has as Spark shows them.

    Raises
    ------
    SchemaError
        For a column that does not exist.
    """
    return [F.expr(text) for text in raw_texts(schema, names)]


def raw_texts(schema: StructType, names: Sequence[str]) -> list[str]:
    """Return the same in SQL: of a struct of them it is one call of the JVM."""
    known = plain_types(schema)
    found = []
    for number, name in enumerate(names):
        kind = known[name] if name in known else column_type(schema, name, FEATURES)
        text = quoted(name) if name in known else column_text(schema, name, FEATURES)
        if isinstance(kind, TimestampType):  # the clock of the session's time zone
            text = f"CAST({text} AS TIMESTAMP_NTZ)"
        elif isinstance(kind, DecimalType):
            text = f"CAST({text} AS DOUBLE)"
        found.append(f"{text} AS {quoted(f'{RAW}{number}')}")
    return found


def feature_matrix(column: pa.Array) -> Array | scipy.sparse.csr_array:
    """Return Arrow rows as a matrix: CSR for sparse vectors, else dense, in their own width.

    Parameters
    ----------
    column : pyarrow.Array
        Spark's Vector struct, or a list of floats.

    Raises
    ------
    DataError
        For null rows, rows of different lengths or null entries; the message starts with the row's number.
    """
    if column.null_count:
        raise DataError(f"row {int(np.flatnonzero(column.is_null())[0])} has null features")
    if pa.types.is_struct(column.type):
        return _vectors(column)
    values = column.flatten()
    if values.null_count:
        flat = int(np.flatnonzero(values.is_null())[0])
        row = int(np.searchsorted(offsets(column), flat, side="right")) - 1
        raise DataError(f"row {row} has a null entry")
    if pa.types.is_fixed_size_list(column.type):
        rectangle: Array = fixed_width_values(values).reshape(len(column), column.type.list_size)
        return rectangle
    return _rectangle(fixed_width_values(values), np.diff(offsets(column)))


def offsets(column: pa.Array) -> Array:
    if pa.types.is_fixed_size_list(column.type):
        regular: Array = np.arange(len(column) + 1) * column.type.list_size
        return regular
    offsets = fixed_width_values(column.offsets)
    from_zero: Array = offsets - offsets[0]
    return from_zero


def _rectangle(values: Array, lengths: Array) -> Array:
    width = int(lengths[0]) if len(lengths) else 0
    if len(lengths) and (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        raise DataError(f"row {row} has {lengths[row]} entries where the rows before it have {width}")
    rectangle: Array = values.reshape(len(lengths), width)
    return rectangle


def _vectors(column: pa.Array) -> Array | scipy.sparse.csr_array:
    """Rows of Spark's Vector struct (type 0 sparse, 1 dense; size, indices, values)."""
    kind = fixed_width_values(column.field("type"))
    values = column.field("values")
    if (kind == 1).all():
        return _rectangle(fixed_width_values(values.flatten()), np.diff(offsets(values)))
    size = column.field("size")
    size = size.fill_null(0) if size.null_count else size  # which loads pandas
    lengths = np.diff(offsets(values))
    widths = np.where(kind == 1, lengths, fixed_width_values(size))
    if (widths != widths[0]).any():
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise DataError(f"row {row} has {widths[row]} entries where the rows before it have {widths[0]}")
    return _csr(column, kind, lengths, int(widths[0]))


def _csr(column: pa.Array, kind: Array, lengths: Array, width: int) -> scipy.sparse.csr_array:
    data = fixed_width_values(column.field("values").flatten())
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.empty(len(data), np.int32)
    from_sparse = np.repeat(kind == 0, lengths)
    indices[from_sparse] = fixed_width_values(column.field("indices").drop_null().flatten())
    indices[~from_sparse] = np.tile(np.arange(width, dtype=np.int32), int((kind == 1).sum()))
    return scipy.sparse.csr_array((data, indices, indptr), shape=(len(kind), width))
