"""Labels of pyspark.ml's StringIndexer: those of several stages, and of all folds of a search, from one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, FloatType, NumericType, StringType, StructType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.names import quoted
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["StringLabels", "countable", "with_labels"]

WHICH, VALUE, FOLD, COUNT = "which", "value", "fold", "count"
JVM_MODEL = "org.apache.spark.ml.feature.StringIndexerModel"
NUL = "\x00"
"""What labels are joined by on their way to the JVM."""


@dataclass(frozen=True)
class StringLabels:
    """How often each value occurs in the columns of StringIndexers, by fold.

    Attributes
    ----------
    stages : sequence of StringIndexer
        The stages; their columns are counted one after the other.
    counts : pa.Table
        A row for each column (its number in ``which``), value and fold (null for none), and how many rows have it.
    """

    stages: Sequence[Any]
    counts: pa.Table

    @classmethod
    def counted(cls, stages: Sequence[Any], rows: Any, fold: str | None = None) -> StringLabels:
        """Count the values of all columns in one pass.

        Parameters
        ----------
        stages : sequence of StringIndexer
            Those that `countable` gives.
        rows : DataFrame
            The rows.
        fold : str, optional
            Column of the rows' folds.
        """
        if not stages:
            return cls(stages, pa.table({}))
        columns = [_values(rows, name) for stage in stages for name in _inputs(stage)]
        pairs = [F.struct(F.lit(place).alias(WHICH), value.alias(VALUE)) for place, value in enumerate(columns)]
        of_fold = F.lit(None).cast("int") if fold is None else F.col(quoted(fold)).cast("int")
        each = rows.select(of_fold.alias(FOLD), F.explode(F.array(*pairs)).alias("pair"))
        each = each.select(FOLD, f"pair.{WHICH}", f"pair.{VALUE}").where(F.col(VALUE).isNotNull())
        return cls(stages, each.groupBy(FOLD, WHICH, VALUE).agg(F.count("*").alias(COUNT)).toArrow())

    def models(self, without: int | None = None) -> list[Any]:
        """Return the stages' models, fitted to the rows of all folds but one."""
        labels = self._labels(without)
        return [_model(stage, [next(labels) for _ in _inputs(stage)]) for stage in self.stages]

    def _labels(self, without: int | None) -> Iterator[list[str]]:
        """Yield the labels of each column in their order."""
        which, folds = (self.counts[name].to_numpy(zero_copy_only=False) for name in (WHICH, FOLD))
        kept = np.ones(len(which), bool) if without is None else folds != without
        orders = [stage.getStringOrderType() for stage in self.stages for _ in _inputs(stage)]
        for place, order in enumerate(orders):
            found = self.counts.filter(pa.array(kept & (which == place)))
            summed = found.group_by(VALUE).aggregate([(COUNT, "sum")])
            yield _ordered(summed[VALUE].to_pylist(), summed[f"{COUNT}_sum"].to_numpy(), order)


def countable(stages: Sequence[Any], rows: Any) -> list[Any]:
    """Return the first stages, as many as are StringIndexers whose values can be counted in the rows as they are.

    A stage that reads what one before it computes is not, and neither is any after one that leaves out rows. What
    pyspark.ml's own fit would refuse is left to it.
    """
    from pyspark.ml.feature import StringIndexer

    if not isinstance(rows, DataFrame) or is_connect(rows):
        return []
    schema, found, made = rows.schema, list[Any](), set[str]()
    for stage in stages:
        if type(stage) is not StringIndexer or not _fits(stage, schema, made):
            break
        found.append(stage)
        made.update(name.lower() for name in _outputs(stage))
        if stage.getHandleInvalid() == "skip":
            break
    return found


def with_labels(stages: Sequence[Any], rows: Any) -> list[Any]:
    """Return the stages of a pipeline, the first StringIndexers of which are fitted already, in one pass."""
    first = countable(stages, rows)
    models = StringLabels.counted(first, rows).models() if first else []
    return [*models, *stages[len(first) :]]


def _fits(stage: Any, schema: StructType, made: set[str]) -> bool:
    """Whether a stage would be fitted: its columns are in the rows, of a type that it takes, and its outputs new."""
    single = stage.isSet("inputCol") and stage.isSet("outputCol")
    several = stage.isSet("inputCols") and stage.isSet("outputCols")
    if single == several:
        return False
    inputs, outputs = _inputs(stage), [name.lower() for name in _outputs(stage)]
    names = [name.lower() for name in schema.names]
    taken = [*names, *made]
    if len(inputs) != len(outputs) or len({*taken, *outputs}) < len(set(taken)) + len(outputs):
        return False
    return all(
        names.count(name.lower()) == 1
        and name in schema.names
        and isinstance(schema[name].dataType, (StringType, NumericType))
        for name in inputs
    )


def _inputs(stage: Any) -> list[str]:
    return [stage.getInputCol()] if stage.isSet("inputCol") else list(stage.getInputCols())


def _outputs(stage: Any) -> list[str]:
    return [stage.getOutputCol()] if stage.isSet("inputCol") else list(stage.getOutputCols())


def _values(rows: DataFrame, name: str) -> Any:
    """Return a column as text, as pyspark.ml's fit reads it; NaN counts as null."""
    column = F.col(quoted(name))
    if isinstance(rows.schema[name].dataType, (DoubleType, FloatType)):
        column = F.when(~F.isnan(column), column)
    return column.cast("string")


def _ordered(values: list[str], counts: Array, order: str) -> list[str]:
    """Return values as pyspark.ml orders them: those that are as frequent by their code points."""
    ranked = sorted(zip(values, counts.tolist(), strict=True))
    if order == "alphabetDesc":
        ranked.reverse()
    elif order.startswith("frequency"):
        ranked.sort(key=lambda pair: pair[1] if order == "frequencyAsc" else -pair[1])
    return [value for value, _ in ranked]


def _model(stage: Any, labels: list[list[str]]) -> Any:
    """Return the model that pyspark.ml's fit would, of labels by column."""
    from pyspark import SparkContext  # which clients of Connect alone do not have
    from pyspark.ml.feature import StringIndexerModel

    context: Any = SparkContext._active_spark_context  # of a Classic session, which there is
    gateway, jvm = context._gateway, context._jvm
    arrays = gateway.new_array(jvm.java.lang.String, len(labels), 0)
    for place, own in enumerate(labels):
        arrays[place] = _text_array(gateway, jvm, own)
    made = StringIndexerModel._create_from_java_class(JVM_MODEL, stage.uid, arrays)
    return stage._copyValues(made)


def _text_array(gateway: Any, jvm: Any, values: list[str]) -> Any:
    """Return text as an array in the JVM: all of it in one call, where it can be joined."""
    if values and not any(NUL in value for value in values):
        return jvm.java.util.regex.Pattern.compile(NUL).split(NUL.join(values), -1)
    found = gateway.new_array(jvm.java.lang.String, len(values))
    for place, value in enumerate(values):
        found[place] = value
    return found
