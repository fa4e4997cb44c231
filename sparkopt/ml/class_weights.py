"""Class weights: factors of row weights by label, given or such that all classes have the same weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pyspark.ml.param import Param, Params
from pyspark.sql import functions as F

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.names import column_text
from sparkopt.blocks.rows import Rows
from sparkopt.blocks.tables import named_table, numbers
from sparkopt.errors import DataError, ParameterError
from sparkopt.machine.table import Table
from sparkopt.ml.rows import training_rows
from sparkopt.validation import Interval, check

__all__ = [
    "FROM_0",
    "INFERRED_CLASSES",
    "MOST_CLASSES",
    "ClassWeightSetters",
    "HasClassWeights",
    "factors",
    "require_all",
]

C = TypeVar("C", bound="ClassWeightSetters")

BALANCED = "balanced"
MOST_CLASSES = 10_000
"""Beyond this, labels are far more likely to be row numbers or amounts than classes."""
INFERRED_CLASSES = 100
"""Most classes where nothing but the largest label says how many there are; as many as pyspark.ml infers."""
FROM_0 = "Number the classes from 0, as StringIndexer and the command sparkopt train do."
WEIGHT, LABEL = Interval(0, None), Interval(0, MOST_CLASSES - 1, whole=True)


def _converted(value: Any) -> str | list[float] | dict[int, float]:
    """Return classWeights as plain data; labels that were keys in JSON become numbers again."""
    if isinstance(value, str) and value == BALANCED:
        return value
    if isinstance(value, Mapping):
        pairs = {int(label): weight for label, weight in value.items()}
        for label, weight in pairs.items():
            check("label in classWeights", label, LABEL)
            check(f"weight of class {label} in classWeights", weight, WEIGHT)
        return {label: float(weight) for label, weight in pairs.items()}
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str):
        return [float(check(f"weight of class {i} in classWeights", w, WEIGHT)) for i, w in enumerate(value)]
    raise ParameterError(
        "classWeights must be 'balanced', a list with a weight for each label, or a dict from labels to weights. "
        f"Got {value!r} instead."
    )


class HasClassWeights(Params):
    """The parameter classWeights.

    "balanced" gives all classes the same weight: Σ weight / (classes · Σ weight of the class), over training rows. A
    list holds one factor for each label 0, 1, …; a dict has those of some labels, and 1 for the others.
    """

    classWeights: Param[Any] = Param(
        Params._dummy(),
        "classWeights",
        "factors of row weights by label: 'balanced', a list, or a dict from labels to factors",
        typeConverter=_converted,
    )

    def getClassWeights(self) -> str | list[float] | dict[int, float]:
        """Return classWeights."""
        weights: str | list[float] | dict[int, float] = self.getOrDefault(self.classWeights)
        return weights


class ClassWeightSetters(HasClassWeights):
    """The setter of classWeights, which estimators have and models do not."""

    def setClassWeights(self: C, value: str | Sequence[float] | Mapping[int, float]) -> C:
        """Set the factors of row weights by label."""
        return self._set(classWeights=value)


def factors(weights: str | list[float] | dict[int, float], dataset: Rows, columns: Columns) -> tuple[float, ...]:
    """Return one factor for each label from 0 on; "balanced" takes one job, over label and weight alone."""
    if weights == BALANCED:
        return balanced(dataset, columns)
    if isinstance(weights, dict):
        return tuple(weights.get(label, 1.0) for label in range(max(weights, default=-1) + 1))
    return tuple(float(weight) for weight in weights)


def balanced(dataset: Rows, columns: Columns) -> tuple[float, ...]:
    """Return the factors that give all classes the same weight in the training rows."""
    rows = training_rows(dataset, columns)
    if isinstance(rows, Table):
        return _balanced(_class_sums(rows, columns))
    weight = F.lit(1.0)
    if columns.weight is not None:
        weight = F.col(column_text(rows.schema, columns.weight, "weight")).cast("double")
    label = F.col(column_text(rows.schema, columns.label, "label")).cast("double").alias("label")
    # the ingest refuses bad labels and names their rows; here they only must not fill the driver
    sums = rows.groupBy(label).agg(F.sum(weight).alias("weight")).limit(MOST_CLASSES + 1).collect()
    return _balanced({row.label: row.weight for row in sums if row.label is not None and row.weight is not None})


def _balanced(labels: Mapping[float, float]) -> tuple[float, ...]:
    """Return the factors for classes of these weights."""
    heavy = {int(label): w for label, w in labels.items() if label in range(MOST_CLASSES) and w > 0}
    mean = sum(heavy.values()) / max(1, len(heavy))
    return tuple(mean / heavy[label] if label in heavy else 1.0 for label in range(max(heavy, default=-1) + 1))


def _class_sums(rows: Table, columns: Columns) -> dict[float, float]:
    """Return the weight of each label in a table; more labels than ``MOST_CLASSES`` are cut off."""
    sums: dict[float, float] = {}
    names = [columns.label, *([] if columns.weight is None else [columns.weight])]
    rows = named_table(rows, names)
    for batch in numbers(rows.partitions, names):
        complete = batch[~np.isnan(batch).any(axis=1)]
        found, places = np.unique(complete[:, 0], return_inverse=True)
        weights = None if columns.weight is None else complete[:, 1]
        totals = np.bincount(places, weights, len(found))
        for label, total in zip(found.tolist(), totals.tolist(), strict=True):
            if label in sums or len(sums) <= MOST_CLASSES:
                sums[label] = sums.get(label, 0.0) + total
    return sums


def require_all(weights: list[float], classes: int) -> None:
    """Refuse a list with fewer entries than there are classes.

    Raises
    ------
    DataError
        Naming both numbers.
    """
    if len(weights) < classes:
        raise DataError(
            f"classWeights has {len(weights)} entries but labels go up to {classes - 1}. Give one for each label, or "
            f"a dict."
        )
