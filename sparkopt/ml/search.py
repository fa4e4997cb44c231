"""What searches over param maps share: where they may, all candidates of all folds are trained in the same passes."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import inheritable_thread_target
from pyspark.ml import Estimator, Transformer
from pyspark.ml import pipeline as pipelines
from pyspark.ml.evaluation import Evaluator
from pyspark.sql.types import StructType

from sparkopt.blocks.backend import fixed
from sparkopt.blocks.descriptions import of_subject
from sparkopt.blocks.rows import Rows, rows_of, rows_to_fit, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.selection import check_engine
from sparkopt.errors import ParameterError
from sparkopt.machine import Table
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.fold_stages import FittedStages, FoldedRows, FoldStages, TableStage, transformed
from sparkopt.ml.folds import FOLD, in_fold, not_in_fold
from sparkopt.ml.metrics.evaluators import measure_of
from sparkopt.ml.metrics.held_out import held_out_metrics
from sparkopt.ml.param_maps import check_maps
from sparkopt.ml.pipeline import Pipeline, PipelineModel, check_labels
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import training_rows
from sparkopt.ml.scoring import HeldOut
from sparkopt.ml.table_features import TableFeatures
from sparkopt.ml.table_scoring import like
from sparkopt.ml.training import TrainingTask, fits_of, train
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ApartError", "Plan", "Search"]

logger = logging.getLogger(__name__)

Tasks = Sequence[TrainingTask[Any]]
Metrics = list[list[float]]
"""By fold and candidate."""


class ApartError(ParameterError):
    """The reason why the models of a search cannot be trained together."""


@dataclass(frozen=True)
class Plan:
    """How a search's models are trained together.

    Attributes
    ----------
    stages : list of Transformer
        The stages without a state, in order.
    fitted : FoldStages or None
        The stages after them that are fitted to each fold's rows.
    tasks : sequence of TrainingTask
        The candidates.
    """

    stages: list[Transformer]
    fitted: FoldStages | None
    tasks: Tasks


class Search:
    """Mixin of pyspark.ml's searches."""

    getEstimator: Any
    getEvaluator: Any
    getEstimatorParamMaps: Any
    getCollectSubModels: Any
    getParallelism: Any
    isDefined: Any
    getOrDefault: Any

    @property
    @abstractmethod
    def _held_out(self) -> int:
        """How many folds are held out, one after the other."""

    @abstractmethod
    def _folded(self, rows: Rows) -> tuple[Rows, str]:
        """Return the rows with the number of their fold, and the name of that column."""

    @abstractmethod
    def _result(self, best: Any, metrics: Metrics, models: list[list[Any]] | None) -> Any:
        """Return the result of the search."""

    @abstractmethod
    def _check_schema(self, schema: StructType) -> None:
        """Refuse rows that cannot be divided into folds."""

    @abstractmethod
    def _check_rows(self, store: BlockStore) -> None:
        """Refuse folds without rows."""

    @abstractmethod
    def _average(self, metrics: Metrics) -> Sequence[float]:
        """Return the metric of each candidate that decides."""

    @abstractmethod
    def _fit_on_spark(self, dataset: Any) -> Any:
        """Return what pyspark.ml's own search finds."""

    @illegal_arguments()
    def _fit(self, dataset: Any) -> Any:
        rows = rows_to_fit(dataset)
        self._check(rows)
        try:
            return self._fit_together(rows, self._plan(rows), dataset)
        except ApartError as reason:
            logger.warning("the folds are trained one after the other: %s", reason)
        # folds are drawn by the rows' places, which must not vary from the training of a fold to its measuring
        if isinstance(rows, Table):
            return self._fit_apart(rows, dataset)
        return self._fit_on_spark(dataset if self._folds_are_given else fixed(dataset))

    @property
    def _folds_are_given(self) -> bool:
        """Whether a column says which fold a row is in."""
        return False

    def _check(self, rows: Rows) -> None:
        """Refuse a search without what it needs, before the first job.

        Raises
        ------
        ParameterError
            Where the estimator, its param maps or the evaluator are not set.
        """
        self._check_set("estimator", "estimatorParamMaps", "evaluator")
        check("parallelism", self.getParallelism(), Interval(1, None, whole=True))
        check_maps(self.getEstimator(), self.getEstimatorParamMaps())
        self._check_schema(schema_of(rows))

    def _check_set(self, *names: str) -> None:
        """Refuse a search that has not these, or of which estimator or evaluator are none."""
        for name in names:
            if not self.isDefined(name) or not self.getOrDefault(name):
                raise ParameterError(f"{name} is not set. A search needs an estimator, param maps and an evaluator.")
        for name, kind, example in (
            ("estimator", Estimator, "LogisticRegression()"),
            ("evaluator", Evaluator, "BinaryClassificationEvaluator()"),
        ):
            found = self.getOrDefault(name)
            if not isinstance(found, kind):
                raise ParameterError(f"{name} must be an {kind.__name__}, such as {example}. Got {found!r} instead.")

    def _plan(self, rows: Rows) -> Plan:
        """Return how all candidates can be trained together on all folds, or raise why they cannot."""
        stages, fitted, estimator = self._stages()
        check_labels([*stages, *([] if fitted is None else fitted.stages), estimator], rows)
        rows = transformed(stages, rows)
        schema = schema_of(rows) if fitted is None else fitted.schema(rows)
        tasks = [estimator.copy(values)._task(schema) for values in self.getEstimatorParamMaps()]
        for task in tasks:
            if task.shared is None:
                raise ApartError("local steps and lossy compression are one model's own")
            if task.shared["miniBatchFraction"] < 1.0:
                raise ApartError("mini-batches of all folds are not those of a model's own folds")
        if any(task.reading != tasks[0].reading for task in tasks):
            raise ApartError("the grid is over columns, class weights or how blocks are compressed on disk")
        if tasks[0].reading.class_weights == "balanced":
            raise ApartError("classWeights='balanced' is another weight in each fold")
        return Plan(stages, fitted, tasks)

    @property
    def _is_pipeline(self) -> bool:
        return type(self.getEstimator()) in (pipelines.Pipeline, Pipeline)

    def _stages(self) -> tuple[list[Transformer], FoldStages | None, LinearEstimator[Any]]:
        """Return the stateless stages, those that are fitted to each fold's rows after them, and the estimator.

        Or raise why folds cannot share these.
        """
        stages: list[Any] = [self.getEstimator()]
        if self._is_pipeline and stages[0].getStages():
            stages = list(stages[0].getStages())
        *before, last = stages
        if not isinstance(last, LinearEstimator):
            raise ApartError(f"{_named(last)} is no linear estimator of sparkopt")
        for values in self.getEstimatorParamMaps():
            if any(param.parent != last.uid for param in values):
                raise ApartError("the grid is over other stages than the last")
        stateless = list(takewhile(lambda stage: isinstance(stage, Transformer), before))
        fitted = before[len(stateless) :]
        if not fitted:
            return stateless, None, last
        is_read = (
            len(fitted) == 1 and type(fitted[0]) is TableFeatures and last._features() == fitted[0].getOutputCol()
        )
        return stateless, TableStage(fitted[0]) if is_read else FittedStages(fitted), last

    def _fit_together(self, rows: Rows, plan: Plan, dataset: Any) -> Any:
        """Train and measure all folds' models, and return the search's."""
        with of_subject(f"{type(self).__name__} of {plan.tasks[0].name}"):
            return self._fit_on_blocks(rows, plan, dataset)

    def _fit_on_blocks(self, rows: Rows, plan: Plan, dataset: Any) -> Any:
        """Train all folds' models on blocks that are written once, measure them, and train the best on all rows."""
        stages, tasks = plan.stages, plan.tasks
        every = self._every(rows, plan)
        if plan.fitted is not None:
            return self._fit_with_features(every, plan.fitted, plan, dataset)
        tasks[0].reading.columns.check(schema_of(every.whole))
        with self._stored(every, tasks) as store:
            models, metrics = self._models(store, every, tasks, range(self._held_out), dataset)
            best = tasks[self._best(metrics)]
            (fit,) = fits_of(store, [(best, None)])
            columns = store.columns
        model = self._whole(stages, best.model(fit, training_rows(every.whole, columns)))
        return self._result(model, metrics, self._collected([(stages, fold_models) for fold_models in models]))

    def _every(self, rows: Rows, plan: Plan) -> FoldedRows:
        """Return all rows as they leave the stateless stages, and those with their folds."""
        stages, tasks = plan.stages, plan.tasks
        for task in tasks:
            check_engine(task.engine, rows)
        whole, (folded, fold) = transformed(stages, rows), self._folded(rows)
        is_read_again = plan.fitted is not None or measure_of(self.getEvaluator(), tasks[0].reading.columns) is None
        if not isinstance(folded, Table) and fold == FOLD and is_read_again:
            folded = fixed(folded)  # not blocks alone are read: folds are drawn once for all
        folded = transformed(stages, folded)  # folds are drawn of the rows as they come, as pyspark.ml does
        _require_column(folded, fold)
        return FoldedRows(whole, folded, fold)

    def _fit_with_features(self, every: FoldedRows, fitted: FoldStages, plan: Plan, dataset: Any) -> Any:
        """Train the models of each fold on the features of the stages that are fitted to its training rows.

        A fold's rows are then read once for all candidates.
        """
        tasks, stages_without = plan.tasks, fitted.fits(every)
        found, metrics = [], Metrics()
        for fold in range(self._held_out):
            features = stages_without(fold)
            own = replace(every, features=features)
            _require_column(own.of(own.folded), own.fold)
            with self._stored(own, tasks) as store:
                (models,), measured = self._models(store, own, tasks, [fold], dataset)
            found.append(([*plan.stages, features], models))
            metrics += measured
        best, features = tasks[self._best(metrics)], stages_without(None)
        ((_, model),) = train(replace(every, features=features).of(every.whole), [best])
        return self._result(self._whole([*plan.stages, features], model), metrics, self._collected(found))

    def _stored(self, every: FoldedRows, tasks: Tasks) -> BlockStore:
        """Write the rows, with their folds."""
        reading = tasks[0].reading
        columns = replace(reading.columns, fold=every.fold, folds=self._held_out)
        rows = every.of(every.folded)
        return BlockStore.write(rows, reading.weighted(columns, every.whole), reading.targets, reading.block_codec)

    def _models(
        self, store: BlockStore, every: FoldedRows, tasks: Tasks, folds: Sequence[int], dataset: Any
    ) -> tuple[list[list[Any]], Metrics]:
        """Train the models of some folds in the same passes, and measure them."""
        self._check_rows(store)
        self._check_folds(store, tasks, folds)
        fits = fits_of(store, [(task, fold) for fold in folds for task in tasks])
        models = []
        for start, fold in zip(range(0, len(fits), len(tasks)), folds, strict=True):
            rows = training_rows(every.of(not_in_fold(every.folded, every.fold, fold)), store.columns)
            pairs = zip(tasks, fits[start : start + len(tasks)], strict=True)
            models.append([task.model(fit, rows) for task, fit in pairs])
        metrics = held_out_metrics(store, models, self.getEvaluator(), folds[0])
        return models, self._measured(every, models, folds, dataset) if metrics is None else metrics

    def _collected(self, found: Sequence[tuple[list[Any], list[Any]]]) -> list[list[Any]] | None:
        """Return the models of each fold after the stages before them, if they are asked for."""
        if not self.getCollectSubModels():
            return None
        return [[self._whole(stages, model) for model in models] for stages, models in found]

    def _best(self, metrics: Metrics) -> int:
        """Return the candidate of the best metric."""
        choose = np.argmax if self.getEvaluator().isLargerBetter() else np.argmin
        return int(choose(self._average(metrics)))

    def _whole(self, stages: list[Transformer], model: Any) -> Any:
        """Return the model of the estimator: that of its last stage, after the others where it is a pipeline."""
        every = [each for stage in stages for each in (stage.stages if type(stage) is PipelineModel else [stage])]
        return PipelineModel([*every, model]) if self._is_pipeline else model

    def _check_folds(self, store: BlockStore, tasks: Tasks, folds: Sequence[int]) -> None:
        """Raise for folds whose models would be of different kinds."""
        for fold in folds:
            moments = store.moments_without(fold)
            for task in tasks:
                if task.trainer(moments).loss != task.trainer(store.moments).loss:
                    raise ApartError(f"without fold {fold} there are fewer classes")
                task.reading.require_weights(moments)

    def _measured(self, every: FoldedRows, models: list[list[Any]], folds: Sequence[int], dataset: Any) -> Metrics:
        """Return the evaluator's metric of each fold's models on the rows that they did not see."""
        if isinstance(every.folded, Table) or every.features is not None:
            return [
                [self._metric(model.transform(rows), dataset) for model in fold_models]
                for fold, fold_models in zip(folds, models, strict=True)
                for rows in [every.of(in_fold(every.folded, every.fold, fold))]
            ]
        pairs = [(number, model) for number in range(len(models)) for model in range(len(models[0]))]
        with (
            HeldOut(every.folded, every.fold, models, self.getEvaluator()) as held_out,
            ThreadPool(min(self.getParallelism(), len(pairs))) as pool,
        ):

            def measure(pair: tuple[int, int]) -> float:
                return held_out.metric(*pair)

            found = pool.map(inheritable_thread_target(dataset.sparkSession)(measure), pairs, chunksize=1)
        return [found[start : start + len(models[0])] for start in range(0, len(found), len(models[0]))]

    def _metric(self, scored: Any, dataset: Any) -> float:
        """Return the evaluator's metric of scored rows, which it is given as the user gave the rows."""
        evaluator = self.getEvaluator()
        if hasattr(evaluator, "in_place_of") or not isinstance(scored, Table):
            return float(evaluator.evaluate(scored))
        batches = [batch for part in scored.partitions for batch in part.batches()]
        return float(evaluator.evaluate(like(dataset, pa.Table.from_batches(batches, scored.schema))))

    def _fit_apart(self, rows: Table, dataset: Any) -> Any:
        """Train and measure the models of one fold after the other."""
        folded, fold = self._folded(rows)
        estimator, maps = self.getEstimator(), self.getEstimatorParamMaps()
        metrics, every = Metrics(), []
        for number in range(self._held_out):
            seen, held_out = not_in_fold(folded, fold, number), in_fold(folded, fold, number)
            models = dict(estimator.fitMultiple(seen, maps))
            every.append([models[candidate] for candidate in range(len(maps))])
            metrics.append([self._metric(rows_of(model.transform(held_out)), dataset) for model in every[-1]])
        best = estimator.fit(rows, maps[self._best(metrics)])
        return self._result(best, metrics, every if self.getCollectSubModels() else None)


def _require_column(rows: Rows, fold: str) -> None:
    if fold not in schema_of(rows).names:
        raise ApartError("a stage before the last leaves out columns that it does not know")


def _named(stage: Any) -> str:
    return f"{type(stage).__module__}.{type(stage).__name__}"
