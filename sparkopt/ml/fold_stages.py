"""Stages of a pipeline that are fitted to the rows of each fold: once a fold, for all candidates of a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, Protocol

from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import StructField, StructType

from sparkopt.blocks.rows import Rows, schema_of
from sparkopt.ml.folds import not_in_fold
from sparkopt.ml.pipeline import Pipeline
from sparkopt.ml.string_labels import StringLabels, countable
from sparkopt.ml.table_features import TableFeatures
from sparkopt.ml.table_statistics import ByFold
from sparkopt.values import dataclass

__all__ = ["FittedStages", "FoldStages", "FoldedRows", "TableStage", "transformed"]


@dataclass(frozen=True)
class FoldedRows:
    """The rows of a search.

    Attributes
    ----------
    whole, folded : DataFrame or Table
        All rows as they leave the stateless stages, without and with the number of their fold.
    fold : str
        Column of this number.
    features : Transformer or None, default None
        What computes the features: the fitted stages.
    """

    whole: Rows
    folded: Rows
    fold: str
    features: Any = None

    def of(self, rows: Rows) -> Rows:
        """Return some of the rows with their features."""
        return rows if self.features is None else self.features.transform(rows)


class FoldStages(Protocol):
    """Stages that are fitted to the training rows of each fold."""

    @property
    def stages(self) -> Sequence[Any]:
        """The stages, in order."""

    def schema(self, rows: Rows) -> StructType:
        """Return the columns of all rows as they leave these stages."""

    def fits(self, every: FoldedRows) -> Callable[[int | None], Any]:
        """Return a function: the transformer that is fitted without a fold's rows; with None, to all."""


@dataclass(frozen=True)
class TableStage:
    """`TableFeatures`, whose statistics of all folds are one pass.

    Attributes
    ----------
    stage : TableFeatures
        The stage.
    """

    stage: TableFeatures

    @property
    def stages(self) -> Sequence[Any]:
        """The stage alone."""
        return (self.stage,)

    def schema(self, rows: Rows) -> StructType:
        """Return the columns of all rows as they leave the stage."""
        return StructType([*schema_of(rows).fields, StructField(self.stage.getOutputCol(), VectorUDT())])

    def fits(self, every: FoldedRows) -> Callable[[int | None], Any]:
        """Return a function: the stage that is fitted without a fold's rows; with None, to all."""
        learning = self.stage._learning(schema_of(every.whole))
        statistics = ByFold(every.folded, every.fold, learning)
        return lambda fold: self.stage._learnt(learning, statistics.without(fold))


@dataclass
class FittedStages:
    """Any stages, as StringIndexer: fitted to each fold's rows, and to all rows before, for the best model.

    The values of StringIndexers that come first are counted in one pass for all folds.

    Attributes
    ----------
    stages : sequence of Estimator and Transformer
        The stages, in order.
    """

    stages: Sequence[Any]
    _whole: Any = field(init=False, default=None)

    def schema(self, rows: Rows) -> StructType:
        """Return the columns of all rows as they leave the stages, which are fitted to them."""
        self._whole = _fitted(self.stages, rows)
        return schema_of(self._whole.transform(rows))

    def fits(self, every: FoldedRows) -> Callable[[int | None], Any]:
        """Return a function: the stages that are fitted without a fold's rows; with None, to all."""
        first = countable(self.stages, every.folded)
        labels = StringLabels.counted(first, every.folded, every.fold)

        def fitted(fold: int | None) -> Any:
            if fold is None:
                return self._whole
            stages = [*labels.models(fold), *self.stages[len(first) :]]
            return _fitted(stages, not_in_fold(every.folded, every.fold, fold))

        return fitted


def _fitted(stages: Sequence[Any], rows: Any) -> Any:
    return Pipeline(stages=list(stages)).fit(rows)


def transformed(stages: Sequence[Any], rows: Rows) -> Rows:
    """Return the rows as they leave the stages."""
    for stage in stages:
        rows = stage.transform(rows)
    return rows
