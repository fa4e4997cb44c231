"""From estimators to models: one ingest for those that read the same rows, shared passes for those that may share.

pyspark.ml's CrossValidator and TrainValidationSplit ask an estimator for many models at once (``fitMultiple``); those
that differ in ``PER_MODEL`` parameters only are trained together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import Columns, quoted
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.selection import check_engine
from sparkopt.ml.class_weights import factors, require_all
from sparkopt.training.smoothing import fit_smoothed
from sparkopt.training.trainer import Fit

if TYPE_CHECKING:
    from sparkopt.ml.estimator import LinearEstimator

__all__ = ["PER_MODEL", "Serial", "fits_of", "goes_alone", "model_of", "reading", "train", "training_rows"]

T = TypeVar("T")
Estimators = Sequence["LinearEstimator[Any]"]

PER_MODEL = frozenset(
    {
        "regParam",
        "elasticNetParam",
        "stepSize",
        "stepSizeSchedule",
        "optimizer",
        "maxIter",
        "tol",
        "patience",
        "minDelta",
        "predictionCol",
        "rawPredictionCol",
        "probabilityCol",
        "linkPredictionCol",
        "threshold",
        "thresholds",
    }
)
"""Parameters in which models that are trained together may differ."""


def train(dataset: DataFrame, estimators: Estimators) -> Iterator[tuple[int, Any]]:
    """Yield (index, model) for every estimator, in groups; all of them are of one class, and checked."""
    for estimator in estimators:
        check_engine(estimator.getEngine(), dataset)
    for readers in _alike(range(len(estimators)), lambda i: reading(estimators[i])):
        yield from _train_readers(dataset, {i: estimators[i] for i in readers})


def _train_readers(dataset: DataFrame, estimators: dict[int, LinearEstimator[Any]]) -> list[tuple[int, Any]]:
    """Train estimators that read the same rows."""
    first = next(iter(estimators.values()))
    columns = first._columns()
    columns.check(dataset.schema)
    if first._class_weights is not None:
        columns = replace(columns, class_weights=factors(first._class_weights, dataset, columns))
    training = training_rows(dataset, columns)
    models = {}
    with BlockStore.write(dataset, columns, first._targets, first.getBlockCodec()) as store:
        if isinstance(first._class_weights, list):
            require_all(first._class_weights, int(store.moments.target_max) + 1)
        fits = fits_of(store, [(estimator, None) for estimator in estimators.values()])
        for (i, estimator), fit in zip(estimators.items(), fits, strict=True):
            models[i] = model_of(estimator, fit, training)
    return sorted(models.items())


def fits_of(store: BlockStore, wanted: Sequence[tuple[LinearEstimator[Any], int | None]]) -> list[Fit]:
    """Train estimators that read the store's rows, each without one fold or with None on all rows.

    Those that may share passes do.
    """
    fits: dict[int, Fit] = {}
    for sharers in _alike(range(len(wanted)), lambda i: _sharing(wanted[i][0])):
        group = [wanted[i] for i in sharers]
        trainers = [replace(one._trainer(store.moments_without(fold)), held_out=fold) for one, fold in group]
        fits.update(zip(sharers, fit_smoothed(store, trainers, [one._initial() for one, _ in group]), strict=True))
    return [fits[i] for i in range(len(wanted))]


def model_of(estimator: LinearEstimator[Any], fit: Fit, training: DataFrame) -> Any:
    """Return the estimator's model, which remembers the rows it was trained on."""
    model = estimator._copyValues(estimator._model(fit))
    model._summarise(training, fit)
    return model


def training_rows(dataset: DataFrame, columns: Columns) -> DataFrame:
    """Return the rows that are not for validation alone."""
    return dataset if columns.validation is None else dataset.where(~F.col(quoted(columns.validation)))


def reading(estimator: LinearEstimator[Any]) -> Any:
    """What decides which rows are read, and how."""
    return estimator._columns(), estimator._targets, estimator._class_weights, estimator.getBlockCodec()


def goes_alone(estimator: LinearEstimator[Any]) -> bool:
    """Whether a model shares no passes.

    One with local steps goes its own ways, and what a lossy sum left out must come back to its own model alone.
    """
    return estimator._local_steps() is not None or not estimator._codec().lossless


def _sharing(estimator: LinearEstimator[Any]) -> Any:
    """What models that share passes must agree on."""
    if goes_alone(estimator):
        return id(estimator)
    return {param.name: value for param, value in estimator.extractParamMap().items() if param.name not in PER_MODEL}


def _alike(items: Sequence[int], key: Callable[[int], Any]) -> list[list[int]]:
    """Group items by equal keys, in the order of each group's first; keys need no hash."""
    groups: list[tuple[Any, list[int]]] = []
    for item in items:
        found = key(item)
        for known, members in groups:
            if known == found:
                members.append(item)
                break
        else:
            groups.append((found, [item]))
    return [members for _, members in groups]


class Serial(Generic[T]):
    """An iterator that threads may share: one of them at a time makes it go on."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __iter__(self) -> Serial[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)
