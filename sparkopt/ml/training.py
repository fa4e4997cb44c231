"""From tasks to models: the rows are read once for tasks that read the same, and passes shared where they may be.

pyspark.ml's CrossValidator and TrainValidationSplit ask an estimator for many models at once (``fitMultiple``); each
becomes a task, and tasks that agree on what is shared are trained together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.descriptions import of_subject
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.rows import Rows, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.selection import check_engine
from sparkopt.errors import ParameterError
from sparkopt.ml.class_weights import factors, require_all
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import training_rows
from sparkopt.training.coordinates import Initial
from sparkopt.training.selection import with_cheapest_optimizers
from sparkopt.training.smoothing import fit_smoothed
from sparkopt.training.trainer import Fit, Trainer, TrainingPlan, fit_many
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["Reading", "Serial", "TrainingTask", "checked", "fits_of", "stored", "train"]

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True)
class Reading:
    """Which rows are read, and how they are stored.

    Attributes
    ----------
    columns : Columns
        The columns; without factors by class.
    targets : Interval
        What a label may be.
    class_weights : str, list, dict or None
        The parameter classWeights of classifiers.
    block_codec : str
        How blocks are compressed on disk.
    """

    columns: Columns
    targets: Interval
    class_weights: str | list[float] | dict[int, float] | None
    block_codec: str

    def weighted(self, columns: Columns, dataset: Rows) -> Columns:
        """Return ``columns`` with the factors of the class weights, which ``dataset`` may determine."""
        if self.class_weights is None:
            return columns
        return replace(columns, class_weights=factors(self.class_weights, dataset, columns))

    def require_weights(self, moments: Moments) -> None:
        """Refuse a list of class weights that is shorter than the number of classes."""
        if isinstance(self.class_weights, list):
            require_all(self.class_weights, int(moments.target_max) + 1)


@dataclass(frozen=True)
class TrainingTask(Generic[M]):
    """One model to train: all that training knows of an estimator.

    Attributes
    ----------
    reading : Reading
        Which rows.
    engine : str
        Where the loop runs, by name.
    trainer : callable from Moments to Trainer
        How to train on rows with these moments.
    initial : tuple of ndarray or None
        Where to start.
    model : callable from Fit and DataFrame or Table to a model
        The model of a fit; it keeps the rows for its summary.
    shared : dict or None
        Parameters that models which share passes agree on; None for a model that shares none.
    known : callable from Moments to (tuple of ndarray or None)
        The optimum for rows with these moments, where it is known; intercepts may be infinite.
    starting : callable from Trainer to (Trainer or None)
        The trainer whose solution is where the given one starts, where there is no ``initial``.
    chooses : bool, default False
        Whether the trainer's optimiser is replaced by the cheapest one for the rows.
    name : str, default ""
        What Spark's pages call it.
    """

    reading: Reading
    engine: str
    trainer: Callable[[Moments], Trainer] = field(repr=False)
    initial: Initial | None = field(repr=False)
    model: Callable[[Fit, Rows], M] = field(repr=False)
    shared: Mapping[str, Any] | None
    known: Callable[[Moments], Initial | None] = field(repr=False)
    starting: Callable[[Trainer], Trainer | None] = field(repr=False)
    chooses: bool = False
    name: str = ""


def train(dataset: Rows, tasks: Sequence[TrainingTask[M]]) -> Iterator[tuple[int, M]]:
    """Yield (index, model) for every task, in groups that read the same rows."""
    with illegal_arguments():
        for task in tasks:
            check_engine(task.engine, dataset)
        for group in _alike(range(len(tasks)), lambda i: tasks[i].reading):
            yield from _train_readers(dataset, {i: tasks[i] for i in group})


def _train_readers(dataset: Rows, tasks: dict[int, TrainingTask[M]]) -> list[tuple[int, M]]:
    """Train tasks that read the same rows."""
    first = next(iter(tasks.values()))
    subject = first.name if len(tasks) == 1 else f"{len(tasks)} models of {first.name}"
    with of_subject(subject), data_errors():  # whatever job was cancelled
        return _train_alike(dataset, tasks, first.reading)


def _train_alike(dataset: Rows, tasks: dict[int, TrainingTask[M]], reading: Reading) -> list[tuple[int, M]]:
    with stored(dataset, reading) as store:
        rows = training_rows(dataset, store.columns)
        fits = fits_of(store, [(task, None) for task in tasks.values()])
        models = {i: task.model(fit, rows) for (i, task), fit in zip(tasks.items(), fits, strict=True)}
    return sorted(models.items())


@contextmanager
def stored(dataset: Rows, reading: Reading) -> Iterator[BlockStore]:
    """Read the rows into a store, or refuse them; it is released at the end."""
    reading.columns.check(schema_of(dataset))
    columns = reading.weighted(reading.columns, dataset)
    with BlockStore.write(dataset, columns, reading.targets, reading.block_codec) as store:
        reading.require_weights(store.moments)
        yield store


def checked(store: BlockStore, task: TrainingTask[Any]) -> Trainer:
    """Return the trainer of a task on all of a store's rows, if a fit would begin."""
    trainer = _trainer(task, store.moments)
    TrainingPlan.of([trainer], [task.initial], store)
    return trainer


def fits_of(store: BlockStore, wanted: Sequence[tuple[TrainingTask[Any], int | None]]) -> list[Fit]:
    """Train tasks that read the store's rows, each without one fold or with None on all rows.

    Those that may share passes do.
    """
    fits: dict[int, Fit] = {}

    def key(i: int) -> Any:
        shared = wanted[i][0].shared
        return i if shared is None else shared

    for group in _alike(range(len(wanted)), key):
        plans = [_planned(store, *wanted[i]) for i in group]
        may = [wanted[i][0].chooses and plan.known is None for i, plan in zip(group, plans, strict=True)]
        trainers = with_cheapest_optimizers(store, [plan.trainer for plan in plans], may)
        found = fit_smoothed(store, trainers, [plan.initial for plan in plans])
        fits.update({i: plan.completed(fit) for i, plan, fit in zip(group, plans, found, strict=True)})
    return [fits[i] for i in range(len(wanted))]


@dataclass(frozen=True)
class _Plan:
    """How one model is trained: by which trainer, from where, and to what, where that is known."""

    trainer: Trainer
    initial: Initial | None
    known: Initial | None = None

    def completed(self, fit: Fit) -> Fit:
        """Return the fit with the known optimum, whose intercept may be infinite."""
        if self.known is None:
            return fit
        solution = replace(fit.solution, reason="gradient")
        return replace(fit, coefficients=self.known[0], intercept=self.known[1], solution=solution)


SATURATED = 800.0
"""Log-odds beyond which the loss is 0 to the last bit; with infinite ones it would not be a number."""


def _planned(store: BlockStore, task: TrainingTask[Any], fold: int | None) -> _Plan:
    """Return how to train a task without one fold."""
    moments = store.moments_without(fold)
    trainer = replace(_trainer(task, moments), held_out=fold)
    known = task.known(moments)
    if known is not None:
        finite = (known[0], np.clip(known[1], -SATURATED, SATURATED))
        return _Plan(replace(trainer, stop=replace(trainer.stop, max_iter=0)), finite, known)
    starting = task.starting(trainer) if task.initial is None else None
    if starting is None:
        return _Plan(trainer, task.initial)
    (fit,) = fit_many(store, [starting])
    return _Plan(trainer, (fit.coefficients, fit.intercept))


def _trainer(task: TrainingTask[Any], moments: Moments) -> Trainer:
    trainer = task.trainer(moments)
    if moments.features == 0 and not trainer.fit_intercept:
        raise ParameterError("there are neither features nor an intercept to fit. Set fitIntercept=True.")
    return trainer


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
    """An iterator that threads may share: one of them at a time advances it."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __iter__(self) -> Serial[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)
