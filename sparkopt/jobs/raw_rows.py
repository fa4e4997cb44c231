"""Raw columns in commands: which become features, how, and what the classes of a label are called."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.columns import is_number
from sparkopt.blocks.names import path_of
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.features import Formula
from sparkopt.features.fitting import IMPUTE
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.invalid_rows import last_stage
from sparkopt.jobs.runtimes.base import InputRows
from sparkopt.jobs.runtimes.class_names import values_of, with_class_numbers
from sparkopt.jobs.sources import FEATURES, IMAGES, LABEL

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from sparkopt.ml import TableFeatures, TableFeaturesModel

__all__ = [
    "MOST_CLASSES",
    "hidden_columns",
    "known_types",
    "raw_columns_of",
    "raw_flags",
    "real_names",
    "table_features",
    "with_classes",
]

MOST_CLASSES = 100
"""Most classes of a label where --loss does not ask for more."""
OF_TWO = ("logistic", "hinge", "squared_hinge")
"""Losses of two classes."""
MORE_CLASSES = "Leave --loss out, or give --loss multinomial for classes, --loss squared_error for numbers."


def raw_flags(flags: Parser) -> None:
    """Add the flags of columns that are no numbers yet."""
    raw = flags.add_argument_group("columns of text, dates and nulls, which become features")
    raw.add_argument("--categorical", metavar="COLUMNS", help="numbers that are categories, with commas between")
    raw.add_argument("--impute", choices=IMPUTE, help="what takes the place of missing numbers (default: mean)")
    raw.add_argument("--formula", help="features as in R: 'y ~ a + b + a:b - 1', where . is all other columns")


def table_features(args: argparse.Namespace, rows: InputRows, schema: StructType) -> TableFeatures | None:
    """Return the stage that makes features of raw columns; None where features are there as they are.

    Raises
    ------
    ParameterError
        For flags that contradict each other.
    SchemaError
        Where the label is among the features, or missing.
    """
    formula = Formula.of(args.formula) if args.formula else None
    label = (formula.label if formula and formula.label else "") or rows.label or LABEL
    if formula is not None and formula.label and args.label not in (LABEL, formula.label):
        raise ParameterError(
            f"--formula predicts {formula.label!r}, and --label is {args.label!r}. Give one of them."
        )
    asked = bool(args.categorical or args.impute or args.formula)
    named = _named(args, rows, schema, label)
    if named is not None and not asked and (isinstance(named, str) or _all_numbers(schema, named)):
        return None
    if label not in schema.names:
        known = ", ".join(schema.names)
        raise SchemaError(f"label column {label!r} does not exist. Columns: {known}. Name one of them by --label.")
    from sparkopt.ml import TableFeatures  # here, since it loads the estimators, and flags need none

    stage = TableFeatures(labelCol=label, outputCol=_free(schema), exclude=[rows.weight] if rows.weight else [])
    if isinstance(named, str):
        raise ParameterError(
            f"--categorical, --impute and --formula are for raw columns; {named!r} is one of Vectors."
        )
    if named is not None:
        stage._set(inputCols=named)
    if args.categorical:
        stage._set(categorical=[name.strip() for name in args.categorical.split(",")])
    if args.impute:
        stage._set(impute=args.impute)
    if formula is not None:
        stage._set(formula=formula.features_text())
    return stage


def _named(args: argparse.Namespace, rows: InputRows, schema: StructType, label: str) -> str | list[str] | None:
    """Return the columns that --features names; None for all but the label."""
    names = [name.strip() for name in args.features.split(",")]
    if names == [FEATURES]:
        if FEATURES in schema.names and not is_number(schema[FEATURES].dataType):
            kind = schema[FEATURES].dataType.typeName()
            return None if kind in ("string", "date", "timestamp", "timestamp_ntz") else FEATURES
        if FEATURES not in schema.names:
            return None
    if label in names:
        raise SchemaError(f"--features names the label, {label!r}: it would predict itself. Leave it out.")
    one: str | None = names[0] if len(names) == 1 and names[0] in schema.names else None
    if one is not None and schema[one].dataType.typeName() in ("array", "vectorudt", "udt", "vector"):
        return one
    return names


def real_names(rows: InputRows, schema: StructType) -> InputRows:
    """Return rows whose label and weight have the names of their columns, which flags may give in another case."""

    def real(name: str | None, role: str) -> str | None:
        path = path_of(schema, name, role) if name else None
        return path[0] if path is not None and len(path) == 1 else name

    return replace(rows, label=real(rows.label, LABEL), weight=real(rows.weight, "weight"))


def _all_numbers(schema: StructType, names: list[str]) -> bool:
    known = {field.name: field.dataType for field in schema}
    return all(is_number(known[name]) for name in names if name in known)


def _free(schema: StructType) -> str:
    """Return a name for the features that no column has."""
    name = FEATURES
    while name in schema.names:
        name += "_"
    return name


def with_classes(args: argparse.Namespace, rows: InputRows, schema: StructType, *, most: int) -> InputRows:
    """Return rows whose label is the number of its class, and the names of the classes, where these need numbers.

    Labels 0, 1, … stay as they are, and have no names.

    Raises
    ------
    DataError
        Where there are too few classes, or more than ``most``.
    """
    label = rows.label or LABEL
    loss = getattr(args, "loss", None)
    most = 2 if loss in OF_TWO else most
    if args.source.kind == IMAGES and len(rows.labels) > most:
        raise DataError(
            f"{args.source.location!r} has images of {len(rows.labels)} classes, more than {most}. {MORE_CLASSES}"
        )
    if args.source.kind == IMAGES or label not in schema.names or schema[label].dataType.typeName() == "boolean":
        return rows
    is_text = schema[label].dataType.typeName() in ("string", "varchar", "char")
    if not is_text and not is_number(schema[label].dataType):
        return rows
    names = list(rows.labels) or values_of(rows.rows, label, most)
    if names is None and loss in OF_TWO:
        raise DataError(
            f"label column {label!r} has more than two different values, and --loss {loss} is of two classes. "
            f"{MORE_CLASSES}"
        )
    if names is None:
        way = "Predict numbers with --loss squared_error" if not is_text else "Group them, or choose another --label"
        raise DataError(
            f"label column {label!r} has more than {most:,} different values; a classifier takes each for a class. "
            f"{way}{'' if most > MOST_CLASSES else ', or ask for so many classes by --loss multinomial'}."
        )
    if not is_text and not rows.labels:
        names = _of_numbers(label, names)
    if not names:
        return rows
    if len(names) < 2:
        raise DataError(f"label column {label!r} is {names[0]!r} in every row: there is nothing to learn.")
    return replace(rows, rows=with_class_numbers(rows.rows, label, names), labels=names)


def _of_numbers(label: str, found: list[str]) -> list[str]:
    """Return the names of classes that are not 0, 1, … already."""
    numbers = sorted(float(value) for value in found)
    if any(number != int(number) for number in numbers if abs(number) < 2**53):
        raise DataError(
            f"label column {label!r} has values such as {next(n for n in numbers if n != int(n)):g}, which are no "
            f"classes. Predict numbers with --loss squared_error."
        )
    if numbers[:1] and numbers[0] >= 0 and (numbers[0] == 0 or numbers[-1] < 2):
        return []  # as estimators take them, which refuse gaps by themselves
    return [f"{number:.0f}" for number in numbers]


def hidden_columns(model: Any) -> list[str]:
    """Return the columns of features that a pipeline makes for itself."""
    return [stage.getOutputCol() for stage in _table_features(model)]


def _table_features(model: Any) -> list[TableFeaturesModel]:
    """Return the stages of a pipeline that make features of raw columns."""
    from sparkopt.ml import TableFeaturesModel

    return [stage for stage in getattr(model, "stages", []) if isinstance(stage, TableFeaturesModel)]


def known_types(model: Any, label: str | None = None, labels: Sequence[str] = ()) -> dict[str, str]:
    """Return what a model knows columns as: "string" or "number". A CSV file of today is read accordingly.

    Parameters
    ----------
    model : Model
        The model.
    label : str or None, default None
        The column of labels, where it is not the model's own.
    labels : sequence of str, default ()
        Names of the classes: where one is no number, the labels are text.
    """
    found = {name: "string" for stage in _table_features(model) for name in stage.encoder.texts}
    if model.hasParam("featuresCols") and model.isSet("featuresCols"):
        found |= dict.fromkeys(model.getOrDefault("featuresCols"), "number")
    last = last_stage(model)
    own = label or (last.getOrDefault("labelCol") if last.hasParam("labelCol") else "")
    if own and any(not _is_number_text(name) for name in labels):
        found[own] = "string"
    return found


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def raw_columns_of(model: Any) -> list[str] | None:
    """Return the raw columns that a pipeline reads; None for other models."""
    stages = _table_features(model)
    return list(dict.fromkeys(name for stage in stages for name in stage.encoder.columns)) if stages else None
