"""From columns to tensors: which columns are the inputs of a network, and how their rows are held in memory.

Every column is one of seven kinds. Vectors, arrays (nested to any depth), tensors (the struct that
:func:`sparkopt.images.udf` gives) and numbers become dense arrays of one shape; images stay bytes until a batch is
made of them: encoded ones, given as bytes or by their paths, and decoded ones that an image pipeline prepares, which
are rows of Spark's image schema, or tensors. A column is selected by Spark (``Field.expression``), or taken from
a table's Arrow batches (``Field.taken``), to the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, IntegralType, StringType, StructType

from sparkopt.blocks.columns import column_type, is_number
from sparkopt.blocks.names import column_text
from sparkopt.errors import DataError, SchemaError
from sparkopt.io.hadoop import CarriesSettings
from sparkopt.io.pixel_structs import holds_image, holds_tensor
from sparkopt.shards.arrow_columns import as_numbers, plain, side_by_side
from sparkopt.values import dataclass

__all__ = ["Features", "Field", "Fields", "MissingValueError", "flat"]

Features: TypeAlias = "Sequence[str | Sequence[str]]"
"""Names of feature columns, and lists of those that are joined."""

LABEL, WEIGHT = "label", "weight"
_IMAGES = {"bytes": "bytes", "path": "text, which are paths of images", "pixels": "decoded images"}
"""Kinds of columns that hold images."""
"""Fields of Spark's image schema, of which the origin may be missing."""
HINT = "Filter or repair such rows before fitting."
INVALID_HINT = f"{HINT[:-1]}, or set handleInvalid='skip'."


class MissingValueError(DataError):
    """A null, a number that is not finite, or a file that is no image: what ``handleInvalid`` may leave out."""


@dataclass(frozen=True)
class Field(CarriesSettings):
    """A column in a store.

    Attributes
    ----------
    name : str
        Its name there: ``input0``, ``input1`` …, ``label``, ``weight``.
    columns : tuple of str
        Where it comes from: one column of the DataFrame, or several numeric ones that are joined.
    kind : {"number", "vector", "array", "tensor", "bytes", "path", "pixels", "points"}
        What it holds; ``path`` is the path of an image's file, ``pixels`` are decoded images that a pipeline
        prepares, ``points`` are boxes or keypoints.
    whole : bool, default False
        Whether its numbers are whole, and become int64 instead of float32.
    target : {"mask", "boxes", "keypoints"} or None, default None
        Of a label that an image pipeline moves with the image: what it is.
    padded : bool, default False
        Of lists: whether they may be of unlike lengths, and are padded in each batch.
    """

    name: str
    columns: tuple[str, ...]
    kind: str
    whole: bool = False
    target: str | None = None
    padded: bool = False

    @property
    def role(self) -> str:
        """Its name in errors."""
        return "features" if self.name.startswith("input") else LABEL if self.name != WEIGHT else WEIGHT

    @property
    def title(self) -> str:
        """Its columns, as errors name them."""
        return ", ".join(self.columns)

    @property
    def _opens_paths(self) -> bool:
        return self.kind == "path"

    @property
    def is_image(self) -> bool:
        """Whether it holds images, which a pipeline prepares."""
        return self.kind in _IMAGES

    @property
    def is_encoded(self) -> bool:
        """Whether it holds image files, which a pipeline must decode."""
        return self.is_image and self.kind != "pixels"

    @property
    def held(self) -> str:
        """What it holds, as errors name it."""
        return _IMAGES.get(self.kind, "numbers")

    def expression(self, schema: StructType) -> Column:
        """Return the column, or the columns joined, with numbers in a type that tensors have."""
        columns = [F.col(column_text(schema, name, self.role)) for name in self.columns]
        number = "bigint" if self.whole else "float"
        if len(columns) > 1:
            return F.array(*[column.cast(number) for column in columns]).alias(self.name)
        if self.kind == "number":
            return columns[0].cast(number).alias(self.name)
        if self.kind == "array":
            return columns[0].cast(_lists(column_type(schema, self.columns[0], self.role), number)).alias(self.name)
        return columns[0].alias(self.name)

    def taken(self, batch: pa.RecordBatch) -> pa.Array:
        """Return what ``expression`` selects, from a batch of a table's rows."""
        columns = [plain(batch.column(name)) for name in self.columns]
        if len(columns) > 1:
            return side_by_side([as_numbers(column, self.whole) for column in columns])
        if self.kind in ("number", "array"):
            return as_numbers(columns[0], self.whole)
        return columns[0].cast(pa.binary()) if self.kind == "bytes" else columns[0]


@dataclass(frozen=True)
class Fields:
    """The inputs of a network, and its target.

    Parameters
    ----------
    inputs : tuple of Field
        One argument of the module's ``forward`` each.
    label, weight : Field or None
        Target and row weight, where they are needed.
    labels : tuple of Field, default ()
        Several targets in place of one.
    """

    inputs: tuple[Field, ...]
    label: Field | None = None
    weight: Field | None = None
    labels: tuple[Field, ...] = ()

    @classmethod
    def of(
        cls,
        schema: StructType,
        features: str | Features,
        label: str | None = None,
        weight: str | None = None,
        label_kind: str = "numbers",
        *,
        labels: Sequence[str] = (),
        padded: Sequence[str] = (),
        prepared: bool = False,
    ) -> Fields:
        """Find the columns in a schema.

        Parameters
        ----------
        schema : StructType
            Of the DataFrame.
        features : str or sequence
            One column; or several, each an input of its own, but that those with fractional numbers are joined to
            one. A list of columns among them is joined as well.
        label, weight : str or None
            Target and row weight.
        label_kind : {"numbers", "mask", "boxes", "keypoints"}, default "numbers"
            What the target is; all but numbers belong to the one image among the features.
        labels : sequence of str, default ()
            Several targets in place of ``label``.
        padded : sequence of str, default ()
            Features that are lists of unlike lengths.
        prepared : bool, default False
            Whether an image pipeline is set. Then tensors are decoded images, which it prepares; but next to a column
            of images they are numbers, as they are without a pipeline.

        Raises
        ------
        SchemaError
            Naming a column that is missing or has a type that no tensor can be made of.
        """
        groups = _groups(schema, [features] if isinstance(features, str) else features)
        inputs = _padded(tuple(_input(schema, number, group) for number, group in enumerate(groups)), padded)
        if prepared and not any(one.is_image for one in inputs):
            inputs = tuple(map(_as_pixels, inputs))
        if labels:
            targets = [_target(schema, name) for name in labels]
            several = tuple(replace(one, name=f"{LABEL}{number}") for number, one in enumerate(targets))
            return cls(inputs, None, _weight(schema, weight), several)
        if label is not None and label_kind != "numbers":
            if len(inputs) != 1 or not inputs[0].is_image:
                raise SchemaError(
                    f"labelKind={label_kind!r} needs one column of features, of images: their pipeline moves the "
                    f"labels with them. The features are {', '.join(one.title for one in inputs)}."
                )
            return cls(inputs, _of_image(schema, label, label_kind), _weight(schema, weight))
        target = None if label is None else _target(schema, label)
        return cls(inputs, target, _weight(schema, weight))

    def scoring(self, schema: StructType, then: Sequence[str], features: str | Features) -> Fields:
        """Return these inputs as the table has them that is scored.

        Parameters
        ----------
        schema : StructType
            Of the table.
        then : sequence of str
            The names of the features at training.
        features : str or sequence
            Their names now, in the same order.

        Raises
        ------
        SchemaError
            Where a column holds something else than what was trained on.
        """
        now = flat(features)
        if len(now) != len(then):
            raise SchemaError(
                f"the network was trained on {', '.join(then)}; the model's feature columns are {', '.join(now)}."
            )
        names = dict(zip(then, now, strict=True))
        renamed = (replace(one, columns=tuple(names[name] for name in one.columns)) for one in self.inputs)
        return Fields(tuple(_as_trained(schema, one) for one in renamed))

    @property
    def all(self) -> tuple[Field, ...]:
        """Every field, inputs first."""
        return (*self.inputs, *self.labels, *(one for one in (self.label, self.weight) if one is not None))

    def select(self, df: DataFrame, *more: Column) -> DataFrame:
        """Return the fields of ``df``, and ``more``."""
        return df.select(*[field.expression(df.schema) for field in self.all], *more)


def flat(features: str | Features) -> list[str]:
    """Return the names of columns, those that are joined too."""
    if isinstance(features, str):
        return [features]
    return [name for entry in features for name in ([entry] if isinstance(entry, str) else entry)]


def _groups(schema: StructType, features: Features) -> list[tuple[str, ...]]:
    """Return the columns of each input."""
    if not features or not all(features):
        raise SchemaError("featuresCols is empty: name at least one column.")
    names = flat(features)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"featuresCols names {twice[0]!r} more than once.")
    loose = [entry for entry in features if isinstance(entry, str)]
    joined = tuple(name for name in loose if _is_fraction(column_type(schema, name, "features")))
    found: list[tuple[str, ...]] = []
    for entry in features:
        group = joined if entry in joined else (entry,) if isinstance(entry, str) else tuple(entry)
        if group not in found:
            found.append(group)
    return found


def _padded(inputs: tuple[Field, ...], padded: Sequence[str]) -> tuple[Field, ...]:
    """Return inputs of which these columns are lists of unlike lengths."""
    known = {one.columns[0]: one for one in inputs if len(one.columns) == 1}
    for name in padded:
        if name not in known:
            raise SchemaError(f"paddedCols names {name!r}, which is no feature of its own. Name it in featuresCols.")
        if known[name].kind != "array":
            raise SchemaError(f"paddedCols names {name!r}, which holds no lists of numbers.")
    return tuple(replace(one, padded=one.title in padded) for one in inputs)


def _is_fraction(kind: DataType) -> bool:
    return is_number(kind) and not isinstance(kind, IntegralType)


def _input(schema: StructType, number: int, names: tuple[str, ...]) -> Field:
    types = [column_type(schema, name, "features") for name in names]
    kinds = [_kind(found, name) for name, found in zip(names, types, strict=True)]
    whole = all(_is_whole(found) for found in types)
    if len(names) == 1:
        return Field(f"input{number}", names, kinds[0], whole)
    for name, kind in zip(names, kinds, strict=True):
        if kind != "number":
            raise SchemaError(f"features column {name!r} cannot be joined with {', '.join(names)}: it is no number.")
    return Field(f"input{number}", names, "array", whole)


def _as_trained(schema: StructType, entry: Field) -> Field:
    """Return an input of a network as a schema has it."""
    found = _input(schema, 0, entry.columns)
    found = _as_pixels(found) if entry.is_image else found
    if found.is_image != entry.is_image:
        raise SchemaError(
            f"features column {entry.title!r} holds {found.held}; the network was trained on {entry.held}."
        )
    if entry.whole and not found.whole and found.kind in ("number", "array"):
        raise SchemaError(
            f"features column {entry.title!r} has fractional numbers; the network was trained on whole ones. Cast it "
            "to bigint."
        )
    if entry.padded and found.kind != "array":
        raise SchemaError(f"features column {entry.title!r} holds no lists; the network was trained on lists.")
    return replace(found, name=entry.name, whole=entry.whole, padded=entry.padded)


def _as_pixels(entry: Field) -> Field:
    """Return tensors as decoded images."""
    return replace(entry, kind="pixels", whole=False) if entry.kind == "tensor" else entry


def _is_whole(found: DataType) -> bool:
    return isinstance(_innermost(found), IntegralType)


def _target(schema: StructType, label: str) -> Field:
    found = column_type(schema, label, LABEL)
    field = Field(LABEL, (label,), _kind(found, label, LABEL), _is_whole(found))
    if field.is_image:
        raise SchemaError(
            f"label column {label!r} holds {field.held}; it must be a number, a vector, an array or a tensor. Names "
            "of classes become numbers by pyspark.ml's StringIndexer, say; masks are labels with labelKind='mask'."
        )
    return field


def _of_image(schema: StructType, label: str, label_kind: str) -> Field:
    """Return a label that belongs to places of an image."""
    found = column_type(schema, label, LABEL)
    if label_kind == "mask":
        kind = _kind(found, label, LABEL)
        if kind not in ("bytes", "path", "tensor"):
            raise SchemaError(
                f"label column {label!r} has type {found.simpleString()}; masks are bytes or paths of encoded images "
                "of one channel, or tensors (struct<shape, dtype, data>)."
            )
        return Field(LABEL, (label,), kind, target=label_kind)
    inner = found.elementType if isinstance(found, ArrayType) else None
    if not isinstance(inner, ArrayType) or not is_number(inner.elementType):
        numbers = "[x_min, y_min, x_max, y_max, ...]" if label_kind == "boxes" else "[x, y]"
        raise SchemaError(
            f"label column {label!r} has type {found.simpleString()}; {label_kind} are arrays of arrays of numbers, "
            f"{numbers} in pixels."
        )
    return Field(LABEL, (label,), "points", target=label_kind)


def _weight(schema: StructType, weight: str | None) -> Field | None:
    if weight is None:
        return None
    if not is_number(found := column_type(schema, weight, WEIGHT)):
        raise SchemaError(f"weight column {weight!r} has type {found.simpleString()}; it must be numeric.")
    return Field(WEIGHT, (weight,), "number")


def _kind(found: DataType, name: str, role: str = "features") -> str:
    from pyspark.ml.linalg import VectorUDT  # here, since it imports pandas and tasks import this module

    if isinstance(found, VectorUDT):
        return "vector"
    if is_number(found):
        return "number"
    if isinstance(found, BinaryType):
        return "bytes"
    if isinstance(found, StringType):
        return "path"
    if isinstance(found, StructType) and holds_tensor(found.names):
        return "tensor"
    if isinstance(found, StructType) and holds_image(found.names):
        return "pixels"
    if isinstance(found, ArrayType) and is_number(_innermost(found)):
        return "array"
    raise SchemaError(
        f"{role} column {name!r} has type {found.simpleString()}; it must be a number, a Vector, an array of numbers "
        "(nested or not), a tensor as sparkopt.images.udf gives, or an image: its bytes, its path, or a row of "
        "Spark's image schema."
    )


def _innermost(found: DataType) -> DataType:
    return _innermost(found.elementType) if isinstance(found, ArrayType) else found


def _lists(found: DataType, number: str) -> str:
    """Return the type of lists as nested as ``found``."""
    return f"array<{_lists(found.elementType, number)}>" if isinstance(found, ArrayType) else number
