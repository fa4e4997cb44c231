"""What fits a network on a DataFrame or a table, of whatever framework it is: store, processes, receipt."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from pyspark.ml import Estimator, Model
from pyspark.ml.base import _FitMultipleIterator
from pyspark.ml.util import MLWritable
from pyspark.sql import SparkSession

from sparkopt.blocks.descriptions import described, of_subject
from sparkopt.blocks.rows import Rows, rows_to_fit
from sparkopt.blocks.session_settings import session_settings
from sparkopt.deep.checks import (
    check_session,
    check_training,
    gpus_per_task,
    process_count,
    rounds_of,
    stream_count,
)
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.launching import trained
from sparkopt.deep.metrics import by_name
from sparkopt.deep.row_store import RowRequest, RowStore, SharedRows, check_request, rows_for, session_of
from sparkopt.deep.setters import TrainingSetters
from sparkopt.deep.summary import receipt_of
from sparkopt.deep.trainable import LearnerRecipe
from sparkopt.deep.worker import RankResult, train
from sparkopt.errors import ParameterError
from sparkopt.io.hadoop import provide, settings_of
from sparkopt.launch.checkpoints import CheckpointFolder
from sparkopt.launch.launching import Launching
from sparkopt.launch.requests import others_of
from sparkopt.report import DeepReceipt
from sparkopt.shards.fields import Fields
from sparkopt.shards.index import Index
from sparkopt.shards.temporary import absolute, check_folder
from sparkopt.solver.callbacks import ProgressBar
from sparkopt.solver.progress import Callback
from sparkopt.validation import instances

__all__ = ["NetworkEstimator"]

M = TypeVar("M", bound=Model)
E = TypeVar("E", bound="NetworkEstimator[Any]")

logger = logging.getLogger(__name__)
provide(session_settings)


class NetworkEstimator(Estimator[M], TrainingSetters, MLWritable):
    """Fits a network: rows go to a store, ranks train from there, and a model comes back with a receipt.

    A subclass gives the recipe of the training, what each rank runs, and the model.
    """

    _input_kwargs: dict[str, Any]  # set by keyword_only
    _function: ClassVar[Callable[..., RankResult]] = staticmethod(train)

    @abstractmethod
    def _recipe(self) -> LearnerRecipe:
        """Return what to train; refuse what cannot be, before any job."""

    @abstractmethod
    def _model(self, result: RankResult, recipe: Any, receipt: DeepReceipt, fields: Fields) -> M:
        """Return the trained model."""

    def _take(self, metrics: Any, task: str | None, callbacks: Any, loggers: Any) -> None:
        """Take what the constructor was given: parameters, and objects that are none."""
        self.metrics: dict[str, Any] = by_name(metrics)
        self.task = task
        self.callbacks, self.loggers = instances("callbacks", callbacks), instances("loggers", loggers)
        self.progress = True
        given = {name: value for name, value in self._input_kwargs.items() if self.hasParam(name)}
        self._set(**{name: value for name, value in given.items() if value is not None})

    def setCallbacks(self: E, value: Sequence[Callback]) -> E:
        """Set the callbacks, which are called for each step."""
        self.callbacks = instances("callbacks", value)
        return self

    def fitMultiple(self, dataset: Any, paramMaps: Sequence[Any]) -> Iterator[tuple[int, M]]:
        """Return an iterator over models and their numbers; candidates that train on the same rows share a store.

        Parameters
        ----------
        dataset : DataFrame, RowStore, or what ``sparkopt.Table.of`` takes
            The rows.
        paramMaps : sequence of dict
            Parameters of each model.
        """
        if isinstance(dataset, RowStore) or len(paramMaps) < 2:
            return super().fitMultiple(dataset, paramMaps)
        shared = SharedRows(rows_to_fit(dataset), [self.copy(one) for one in paramMaps])
        found = _FitMultipleIterator(shared.fit, len(paramMaps))
        shared.deleted_with(found)
        return found

    def _fit(self, dataset: Any) -> M:
        rows = dataset if isinstance(dataset, RowStore) else rows_to_fit(dataset)
        recipe, session, processes = self._checked(rows)
        with (
            of_subject(type(self).__name__),
            described(session, "reading rows") as describe,
            self._rows(rows, recipe.ignored) as index,
        ):
            describe("training")
            results, seconds, restarts = self._launch(session, processes, self._config(index, processes), recipe)
        receipt = receipt_of(self.value("launcher"), index, results, seconds, restarts)
        logger.info("%s", receipt)
        return self._model(results[0], recipe, receipt, index.fields)

    def _checked(self, rows: Rows | RowStore) -> tuple[LearnerRecipe, SparkSession | None, int]:
        """Refuse what cannot work, before any job; return the recipe, whose tasks train, and how many processes."""
        recipe = self._recipe()
        session = rows.session if isinstance(rows, RowStore) else session_of(rows)
        check_session(self, session, self.callbacks)
        processes = process_count(self, session)
        check_training(self, session, processes)
        if not isinstance(rows, RowStore):
            check_folder(self.value("storePath"), session, others_of(self.value("launcher")))
        return recipe, session, processes

    @contextlib.contextmanager
    def _rows(self, rows: Rows | RowStore, ignored: int | None) -> Iterator[Index]:
        """Give the index of the rows, which are written for this fit unless they are a store."""
        if isinstance(rows, RowStore):
            check_request(rows, self, ignored)
            yield rows.index
            return
        with rows_for(rows, self, RowRequest.of(self, ignored)) as store:
            yield store.index

    def _check_held_out(self) -> None:
        """Refuse metrics where no row is held out."""
        if self.metrics and not (self.value("validationFraction") or self.value("validationIndicatorCol")):
            raise ParameterError(
                f"metrics ({', '.join(self.metrics)}) are computed over rows held out, and no row is: set "
                "validationFraction or validationIndicatorCol, or leave metrics out."
            )

    def _config(self, index: Index, processes: int) -> TrainConfig:
        checkpoints = self.value("checkpointDir")
        return TrainConfig(
            store=index.uri,
            epochs=self.value("epochs"),
            batch_size=self.value("batchSize"),
            streams=stream_count(self, processes),
            accumulation=self.value("accumulationSteps"),
            seed=self.getSeed(),
            window_rows=self.value("shuffleRows"),
            prefetch=self.value("prefetch"),
            decode_threads=self.value("loaderThreads"),
            cache_bytes=self.value("cacheBytes"),
            device=self.value("device"),
            precision=self.value("precision"),
            max_norm=self.value("maxGradNorm"),
            strategy=self.value("strategy") or "ddp",
            wrapped=tuple(self.value("wrappedModules") or ()),
            compression=self.value("compression"),
            **rounds_of(self),
            pipeline=self.value("imagePipeline"),
            evaluation_pipeline=self.evaluation_pipeline(),
            mixing=self.value("batchMixing"),
            mask_fill=self.value("maskFill"),
            min_visibility=self.value("minVisibility"),
            checkpoints=absolute(checkpoints) if checkpoints else None,
            checkpoint_steps=self.value("checkpointInterval"),
            patience=self.value("patience"),
            min_delta=self.value("minDelta"),
            storage=settings_of(index.uri, checkpoints),
        )

    def _launch(
        self, session: SparkSession | None, processes: int, config: TrainConfig, recipe: LearnerRecipe
    ) -> tuple[list[RankResult], float, int]:
        """Train; return the ranks' results, the seconds, and how often ranks were lost."""
        if config.checkpoints and not self.value("resume"):
            CheckpointFolder(config.checkpoints).clear()
        kind, losses = self.value("launcher"), self.value("maxRestarts")
        gpus = gpus_per_task(self, session)
        resources = {"gpu": gpus} if gpus else {}
        launching = Launching(kind, session, processes, self.value("minProc"), losses, resources)
        bar = [ProgressBar("train")] if self.progress else []
        return trained(launching, config, recipe, (*self.callbacks, *bar), self._function)
