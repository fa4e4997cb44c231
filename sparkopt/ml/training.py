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

from sparkopt.blocks.columns import quoted
from sparkopt.blocks.store import BlockStore
from sparkopt.cluster.choose import check_engine
from sparkopt.continuation import fit_rounded
from sparkopt.ml.class_weights import factors, require_all

if TYPE_CHECKING:
    from sparkopt.ml.estimator import LinearEstimator

__all__ = ["PER_MODEL", "Serial", "train"]

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
    for readers in _alike(range(len(estimators)), lambda i: _reading(estimators[i])):
        yield from _train_readers(dataset, {i: estimators[i] for i in readers})


def _train_readers(dataset: DataFrame, estimators: dict[int, LinearEstimator[Any]]) -> list[tuple[int, Any]]:
    """Train estimators that read the same rows."""
    first = next(iter(estimators.values()))
    columns = first._columns()
    columns.check(dataset.schema)
    if first._class_weights is not None:
        columns = replace(columns, class_weights=factors(first._class_weights, dataset, columns))
    training = dataset if columns.validation is None else dataset.where(~F.col(quoted(columns.validation)))
    models = {}
    with BlockStore.write(dataset, columns, first._targets, first.getBlockCodec()) as store:
        if isinstance(first._class_weights, list):
            require_all(first._class_weights, int(store.moments.target_max) + 1)
        for sharers in _alike(list(estimators), lambda i: _sharing(estimators[i])):
            group = [estimators[i] for i in sharers]
            trainers = [estimator._trainer(store.moments) for estimator in group]
            fits = fit_rounded(store, trainers, [estimator._initial() for estimator in group])
            for i, estimator, fit in zip(sharers, group, fits, strict=True):
                models[i] = estimator._copyValues(estimator._model(fit))
                models[i]._summarise(training, fit)
    return sorted(models.items())


def _reading(estimator: LinearEstimator[Any]) -> Any:
    """What decides which rows are read, and how."""
    return estimator._columns(), estimator._targets, estimator._class_weights, estimator.getBlockCodec()


def _sharing(estimator: LinearEstimator[Any]) -> Any:
    """What models that share passes must agree on.

    One with local steps goes its own ways, and what a lossy sum left out must come back to its own model alone.
    """
    if estimator._rounds() is not None or not estimator._codec().lossless:
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
