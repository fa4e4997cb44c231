"""pyspark.ml's searches, with all folds and all param maps trained in the same passes over the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.ml import tuning
from pyspark.ml.util import MLReader, MLWriter
from pyspark.sql.types import IntegralType, NumericType, StructType

from sparkopt.blocks.columns import column_type
from sparkopt.blocks.rows import Rows, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.errors import DataError, SchemaError
from sparkopt.ml.folds import FOLD, Draw, drawn, given
from sparkopt.ml.search import ApartError, Metrics, Plan, Search
from sparkopt.ml.search_persistence import (
    SearchModelReader,
    SearchModelWriter,
    SearchReader,
    SearchWriter,
    is_java_convertible,
)
from sparkopt.validation import Interval, check

__all__ = ["CrossValidator", "CrossValidatorModel", "TrainValidationSplit", "TrainValidationSplitModel"]


class CrossValidator(Search, tuning.CrossValidator):
    """pyspark.ml's CrossValidator, which trains all folds together where the estimator is one of sparkopt's.

    The rows are written once, with blocks for each fold. All models of all folds are trained in the same passes, each
    without the blocks of its own held-out fold, and the best candidate is then trained on all rows. Each model is the
    one that a fit on the other folds' rows alone gives. Folds are drawn as pyspark.ml draws them, so the metrics are
    those of its CrossValidator with the same seed or ``foldCol``.

    The estimator may be a Pipeline that ends in one of sparkopt's. Stages before it that are fitted, as
    StringIndexer, are fitted once to the training rows of each fold, not once for each candidate, and all candidates
    of a fold are trained in the same passes; `TableFeatures` takes its statistics for all folds in one pass. The
    metrics of pyspark.ml's evaluators are computed for all models in the same pass over the rows, others by the
    evaluator.

    Folds that cannot be trained together (another estimator, a grid over other stages or over columns, mini-batches,
    local steps, lossy codecs, balanced class weights) are trained one after the other, as pyspark.ml does, and the
    reason is logged.

    Parameters
    ----------
    estimator : Estimator
        The estimator.
    estimatorParamMaps : list of dict
        Parameters and their values, for each candidate.
    evaluator : Evaluator
        Computes the metric that decides.
    numFolds : int, default 3
        How many folds.
    seed : int, optional
        Determines the folds.
    parallelism : int, default 1
        Threads that evaluate.
    collectSubModels : bool, default False
        Keep the models of every fold in ``subModels``.
    foldCol : str, default ""
        An integer column with the number of each row's fold, from 0; "" draws folds at random.

    Examples
    --------
    >>> from pyspark.ml.evaluation import BinaryClassificationEvaluator
    >>> from pyspark.ml.tuning import ParamGridBuilder
    >>> from sparkopt.ml import LogisticRegression
    >>> estimator = LogisticRegression()
    >>> grid = ParamGridBuilder().addGrid(estimator.regParam, [0.001, 0.1]).build()
    >>> search = CrossValidator(
    ...     estimator=estimator, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), seed=1
    ... )
    >>> model = search.fit(df)
    >>> len(model.avgMetrics), model.bestModel.summary.receipt.models
    (2, 1)
    """

    @property
    def _held_out(self) -> int:
        return int(self.getNumFolds())

    @property
    def _folds_are_given(self) -> bool:
        return bool(self.getFoldCol())

    def _check_schema(self, schema: StructType) -> None:
        check("numFolds", self.getNumFolds(), Interval(2, None, whole=True))
        if self.getFoldCol():
            found = column_type(schema, self.getFoldCol(), "fold")
            if not isinstance(found, NumericType):
                raise SchemaError(
                    f"fold column {self.getFoldCol()!r} has type {found.simpleString()}; it must be integer."
                )

    def _plan(self, rows: Rows) -> Plan:
        fold = self.getFoldCol()
        if fold and not isinstance(column_type(schema_of(rows), fold, "fold"), IntegralType):
            raise ApartError(f"foldCol={fold!r} is no integer column")
        return super()._plan(rows)

    def _folded(self, rows: Rows) -> tuple[Rows, str]:
        folds, name = self.getNumFolds(), self.getFoldCol()
        if name:
            return given(rows, name, folds), name
        width = 1.0 / folds
        bounds = tuple((fold * width, (fold + 1) * width) for fold in range(folds))
        return drawn(rows, Draw(bounds, self.getSeed())), FOLD

    def _check_rows(self, store: BlockStore) -> None:
        for fold in range(self.getNumFolds()):
            if not store.fold_rows(fold):
                given, folds = self.getFoldCol(), self.getNumFolds()
                what = f"foldCol={given!r}" if given else f"numFolds={folds}"
                way = "" if given else " There are few rows: take fewer folds."
                raise DataError(f"{what}: no row is in fold {fold}, so it measures nothing.{way}")

    def _average(self, metrics: Metrics) -> Sequence[float]:
        return self._gen_avg_and_std_metrics(metrics)[0]

    def _fit_on_spark(self, dataset: Any) -> CrossValidatorModel:
        found = tuning.CrossValidator._fit(self, dataset)
        return self._model(found.bestModel, found.avgMetrics, found.stdMetrics, found.subModels)

    def _result(self, best: Any, metrics: Metrics, models: list[list[Any]] | None) -> CrossValidatorModel:
        return self._model(best, *self._gen_avg_and_std_metrics(metrics), models)

    def _model(
        self, best: Any, average: list[float], spread: list[float], models: list[list[Any]] | None
    ) -> CrossValidatorModel:
        return self._copyValues(CrossValidatorModel(best, average, models, spread))

    def write(self) -> MLWriter:
        """Return a writer: ``search.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if is_java_convertible(self) else SearchWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # it reads more than pyspark's
        """Return a reader: ``CrossValidator.read().load(path)``. It reads pyspark.ml's searches too."""
        return SearchReader(cls)


class CrossValidatorModel(tuning.CrossValidatorModel):
    """pyspark.ml's CrossValidatorModel; copies and loaded ones keep the models of each fold, where there are any.

    Attributes
    ----------
    bestModel : Model
        Trained on all rows, with the parameters of the best average metric.
    avgMetrics, stdMetrics : list of float
        Mean and standard deviation of each param map's metric over the folds.
    subModels : list of list of Model, or None
        By fold and param map, with ``collectSubModels``.
    """

    def copy(self, extra: Any = None) -> CrossValidatorModel:
        """Return a copy, with other values of some parameters in the best model."""
        folds = self.subModels
        models = None if folds is None else [[model.copy() for model in fold] for fold in folds]
        best = self.bestModel.copy(extra or {})
        own = CrossValidatorModel(best, list(self.avgMetrics), models, list(self.stdMetrics))
        return self._copyValues(own, extra=extra)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if is_java_convertible(self) else SearchModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # it reads more than pyspark's
        """Return a reader: ``CrossValidatorModel.read().load(path)``. It reads pyspark.ml's models too."""
        return SearchModelReader(cls)


class TrainValidationSplit(Search, tuning.TrainValidationSplit):
    """pyspark.ml's TrainValidationSplit, which trains all candidates together, as `CrossValidator` does.

    The rows are written once. All candidates are trained in the same passes over the rows for training, their metrics
    are computed in one pass over the others, and the best candidate is then trained on all rows.

    Parameters
    ----------
    estimator : Estimator
        The estimator.
    estimatorParamMaps : list of dict
        Parameters and their values, for each candidate.
    evaluator : Evaluator
        Computes the metric that decides.
    trainRatio : float, default 0.75
        Share of the rows that are trained on, in (0, 1).
    parallelism : int, default 1
        Threads that evaluate.
    collectSubModels : bool, default False
        Keep the models of all candidates in ``subModels``.
    seed : int, optional
        Determines which rows are trained on.

    Examples
    --------
    >>> from pyspark.ml.tuning import ParamGridBuilder
    >>> from sparkopt.ml import LinearRegression, RegressionEvaluator, TrainValidationSplit
    >>> estimator = LinearRegression(featuresCols=["x1", "x2"])
    >>> grid = ParamGridBuilder().addGrid(estimator.regParam, [0.0, 0.1]).build()
    >>> search = TrainValidationSplit(
    ...     estimator=estimator, estimatorParamMaps=grid, evaluator=RegressionEvaluator(), seed=1
    ... )
    >>> len(search.fit(df).validationMetrics)
    2
    """

    @property
    def _held_out(self) -> int:
        return 1

    def _check_schema(self, schema: StructType) -> None:
        check("trainRatio", self.getTrainRatio(), Interval(0, 1, closed="neither"))

    def _folded(self, rows: Rows) -> tuple[Rows, str]:
        return drawn(rows, Draw(((self.getTrainRatio(), 1.0),), self.getSeed())), FOLD

    def _check_rows(self, store: BlockStore) -> None:
        if not store.fold_rows(0):
            raise DataError(
                f"trainRatio={self.getTrainRatio():g}: no row was drawn to validate on. Take a smaller ratio, or "
                f"more rows."
            )

    def _average(self, metrics: Metrics) -> Sequence[float]:
        return metrics[0]

    def _fit_on_spark(self, dataset: Any) -> TrainValidationSplitModel:
        found = tuning.TrainValidationSplit._fit(self, dataset)
        models = None if found.subModels is None else [found.subModels]
        return self._result(found.bestModel, [found.validationMetrics], models)

    def _result(self, best: Any, metrics: Metrics, models: list[list[Any]] | None) -> TrainValidationSplitModel:
        return self._copyValues(TrainValidationSplitModel(best, metrics[0], None if models is None else models[0]))

    def write(self) -> MLWriter:
        """Return a writer: ``search.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if is_java_convertible(self) else SearchWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # it reads more than pyspark's
        """Return a reader: ``TrainValidationSplit.read().load(path)``. It reads pyspark.ml's searches too."""
        return SearchReader(cls)


class TrainValidationSplitModel(tuning.TrainValidationSplitModel):
    """pyspark.ml's TrainValidationSplitModel; copies keep the models of all candidates, where there are any.

    Attributes
    ----------
    bestModel : Model
        Trained on all rows, with the parameters of the best metric.
    validationMetrics : list of float
        The metric of each param map.
    subModels : list of Model, or None
        By param map, with ``collectSubModels``.
    """

    def copy(self, extra: Any = None) -> TrainValidationSplitModel:
        """Return a copy, with other values of some parameters in the best model."""
        models = None if self.subModels is None else [model.copy() for model in self.subModels]
        own = TrainValidationSplitModel(self.bestModel.copy(extra or {}), list(self.validationMetrics), models)
        return self._copyValues(own, extra=extra)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if is_java_convertible(self) else SearchModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # it reads more than pyspark's
        """Return a reader: ``TrainValidationSplitModel.read().load(path)``. It reads pyspark.ml's models too."""
        return SearchModelReader(cls)
