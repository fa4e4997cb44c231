"""pyspark.ml's CrossValidator, with all folds and all param maps trained in the same passes over the data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from pyspark import inheritable_thread_target
from pyspark.ml import Pipeline, PipelineModel, Transformer, tuning
from pyspark.ml.util import MLReader, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType

from sparkopt.blocks.columns import Columns, column_type, quoted
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.selection import check_engine
from sparkopt.errors import DataError, ParameterError
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.metrics.held_out import held_out_metrics
from sparkopt.ml.rows import training_rows
from sparkopt.ml.scoring import HeldOut
from sparkopt.ml.search_persistence import (
    SearchModelReader,
    SearchModelWriter,
    SearchReader,
    SearchWriter,
    is_java_convertible,
)
from sparkopt.ml.training import TrainingTask, fits_of
from sparkopt.training.trainer import Fit
from sparkopt.validation import Interval, check

__all__ = ["CrossValidator", "CrossValidatorModel"]

logger = logging.getLogger(__name__)

FOLD, DRAWN = "__sparkopt_fold", "__sparkopt_drawn"
"""Columns of a search: the same in each process, since a checkpoint's identity includes the columns' names."""

Tasks = Sequence[TrainingTask[Any]]


class CrossValidator(tuning.CrossValidator):
    """pyspark.ml's CrossValidator, which trains all folds together where the estimator is one of sparkopt's.

    The rows are written once, with blocks for each fold. All models of all folds are trained in the same passes, each
    without the blocks of its own held-out fold, and the best candidate is then trained on all rows. Each model is the
    one that a fit on the other folds' rows alone gives. Folds are drawn as pyspark.ml draws them, so the metrics are
    those of its CrossValidator with the same seed or ``foldCol``.

    The estimator may be a Pipeline that ends in one of sparkopt's, after transformers, which have no state. The
    metrics of pyspark.ml's evaluators are computed for all models in the same pass over the rows, others by the
    evaluator.

    Folds that cannot be trained together (another estimator, stages that are fitted, mini-batches, local steps, lossy
    codecs, balanced class weights, a grid over columns) are trained one after the other, as pyspark.ml does, and the
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

    def _fit(self, dataset: DataFrame) -> CrossValidatorModel:
        self._check(dataset)
        try:
            return self._fit_together(dataset, self._joint_tasks(dataset))
        except _ApartError as reason:
            logger.warning("the folds are trained one after the other: %s", reason)
        found = super()._fit(dataset)
        return self._result(found.bestModel, found.avgMetrics, found.stdMetrics, found.subModels)

    def _check(self, dataset: DataFrame) -> None:
        """Refuse a search without what it needs, before the first job.

        Raises
        ------
        ParameterError
            Where the estimator, its param maps or the evaluator are not set, or there are fewer than two folds.
        SchemaError
            Where there is no such column as ``foldCol``.
        """
        for name in ("estimator", "estimatorParamMaps", "evaluator"):
            if not self.isDefined(name) or not self.getOrDefault(name):
                raise ParameterError(f"{name} is not set. A search needs an estimator, param maps and an evaluator.")
        check("numFolds", self.getNumFolds(), Interval(2, None, whole=True))
        if self.getFoldCol():
            column_type(dataset.schema, self.getFoldCol(), "fold")

    def _joint_tasks(self, dataset: DataFrame) -> Tasks:
        """Return the candidates as tasks that can be trained together on all folds, or raise why they cannot."""
        stages, estimator = self._stages()
        fold = self.getFoldCol()
        if fold and not isinstance(dataset.schema[fold].dataType, IntegralType):
            raise _ApartError(f"foldCol={fold!r} is no integer column")
        schema = _transformed(stages, dataset).schema
        tasks = [estimator.copy(values)._task(schema) for values in self.getEstimatorParamMaps()]
        for task in tasks:
            if task.shared is None:
                raise _ApartError("local steps and lossy compression are one model's own")
            if task.shared["miniBatchFraction"] < 1.0:
                raise _ApartError("mini-batches of all folds are not those of a model's own folds")
        if any(task.reading != tasks[0].reading for task in tasks):
            raise _ApartError("the grid is over columns, class weights or how blocks are compressed on disk")
        if tasks[0].reading.class_weights == "balanced":
            raise _ApartError("classWeights='balanced' is another weight in each fold")
        return tasks

    def _stages(self) -> tuple[list[Transformer], LinearEstimator[Any]]:
        """Return the estimator and the stateless stages before it, or raise why folds cannot share these."""
        stages: list[Any] = [self.getEstimator()]
        if type(stages[0]) is Pipeline and stages[0].getStages():
            stages = list(stages[0].getStages())
        *first, last = stages
        if not isinstance(last, LinearEstimator):
            raise _ApartError(f"{_named(last)} is no linear estimator of sparkopt")
        for stage in first:
            if not isinstance(stage, Transformer):
                raise _ApartError(f"{_named(stage)} is fitted to the rows of each fold")
        for values in self.getEstimatorParamMaps():
            if any(param.parent != last.uid for param in values):
                raise _ApartError("the grid is over other stages than the last")
        return first, last

    def _fit_together(self, dataset: DataFrame, tasks: Tasks) -> CrossValidatorModel:
        """Train all folds' models on blocks that are written once, measure them, and train the best on all rows."""
        reading, folds = tasks[0].reading, range(self.getNumFolds())
        for task in tasks:
            check_engine(task.engine, dataset)
        stages, _ = self._stages()
        whole, (folded, fold) = _transformed(stages, dataset), self._folded(dataset)
        reading.columns.check(whole.schema)
        folded = _transformed(stages, folded)  # folds are drawn of the rows as they come, as pyspark.ml does
        if fold not in folded.columns:
            raise _ApartError("a stage before the last leaves out columns that it does not know")
        columns = reading.weighted(replace(reading.columns, fold=fold, folds=len(folds)), whole)
        with BlockStore.write(folded, columns, reading.targets, reading.block_codec) as store:
            self._check_folds(store, tasks)
            fits = fits_of(store, [(task, fold) for fold in folds for task in tasks])
            models = _by_fold(tasks, fits, folded, columns)
            metrics = held_out_metrics(store, models, self.getEvaluator())
            if metrics is None:
                with HeldOut(folded, fold, models, self.getEvaluator()) as held_out:
                    metrics = self._measured(held_out, len(tasks), dataset)
            average, spread = self._gen_avg_and_std_metrics(metrics)
            best = tasks[int((np.argmax if self.getEvaluator().isLargerBetter() else np.argmin)(average))]
            (fit,) = fits_of(store, [(best, None)])
        model = self._whole(stages, best.model(fit, training_rows(whole, columns)))
        every = [[self._whole(stages, model) for model in fold_models] for fold_models in models]
        return self._result(model, average, spread, every if self.getCollectSubModels() else None)

    def _whole(self, stages: list[Transformer], model: Any) -> Any:
        """Return the model of the estimator: that of its last stage, after the others where it is a pipeline."""
        return PipelineModel([*stages, model]) if type(self.getEstimator()) is Pipeline else model

    def _folded(self, dataset: DataFrame) -> tuple[DataFrame, str]:
        """Return the rows with the number of their fold, as pyspark.ml numbers them, and the name of that column."""
        folds, name = self.getNumFolds(), self.getFoldCol()
        if name:
            refusal = F.raise_error(f"Fold number must be in range [0, {folds}), but got null").cast("int")
            return dataset.withColumn(name, F.coalesce(F.col(quoted(name)), refusal)), name
        width, drawn = 1.0 / folds, F.col(DRAWN)
        number = F.lit(None).cast("int")  # rounding may leave a last gap: such a row is in no fold
        for fold in reversed(range(folds)):
            number = F.when((drawn >= fold * width) & (drawn < (fold + 1) * width), fold).otherwise(number)
        return dataset.select("*", F.rand(self.getSeed()).alias(DRAWN)).withColumn(FOLD, number).drop(DRAWN), FOLD

    def _check_folds(self, store: BlockStore, tasks: Tasks) -> None:
        """Refuse folds without rows, and raise for folds whose models would be of different kinds."""
        for fold in range(self.getNumFolds()):
            if self.getFoldCol() and not store.fold_rows(fold):
                raise DataError(f"foldCol={self.getFoldCol()!r}: no row is in fold {fold}, so it measures nothing.")
            moments = store.moments_without(fold)
            for task in tasks:
                if task.trainer(moments).loss != task.trainer(store.moments).loss:
                    raise _ApartError(f"without fold {fold} there are fewer classes")
                task.reading.require_weights(moments)

    def _measured(self, held_out: HeldOut, models: int, dataset: DataFrame) -> list[list[float]]:
        """Return the metric of each fold's models on the rows that they did not see."""
        pairs = [(fold, model) for fold in range(self.getNumFolds()) for model in range(models)]

        def measure(pair: tuple[int, int]) -> float:
            return held_out.metric(*pair)

        with ThreadPool(min(self.getParallelism(), len(pairs))) as pool:
            found = pool.map(inheritable_thread_target(dataset.sparkSession)(measure), pairs, chunksize=1)
        return [found[start : start + models] for start in range(0, len(found), models)]

    def _result(
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


def _transformed(stages: Sequence[Transformer], dataset: DataFrame) -> DataFrame:
    """Return the rows as they leave the stages."""
    for stage in stages:
        dataset = stage.transform(dataset)
    return dataset


def _named(stage: Any) -> str:
    return f"{type(stage).__module__}.{type(stage).__name__}"


class _ApartError(ParameterError):
    """The reason why the folds' models cannot be trained together."""


def _by_fold(tasks: Tasks, fits: Sequence[Fit], folded: DataFrame, columns: Columns) -> list[list[Any]]:
    """Return models by fold and task; each keeps the rows that it was trained on."""
    found = []
    for fold, start in enumerate(range(0, len(fits), len(tasks))):
        others = folded.where(~F.col(quoted(str(columns.fold))).eqNullSafe(fold))
        rows = training_rows(others, columns)
        pairs = zip(tasks, fits[start : start + len(tasks)], strict=True)
        found.append([task.model(fit, rows) for task, fit in pairs])
    return found
