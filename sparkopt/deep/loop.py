"""The training loop of a rank: epochs, steps, evaluation and when to stop. It makes events and knows no listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from sparkopt.deep.batch import Batch
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.events import EpochEnded, Event, StateReady, StepsDone
from sparkopt.deep.state import TrainingState
from sparkopt.deep.trainable import Trainable
from sparkopt.errors import DivergedError
from sparkopt.launch import Communicator
from sparkopt.shards.sampler import EpochSampler
from sparkopt.typing import Array

__all__ = ["TrainingLoop"]


class TrainingLoop:
    """Trains a learner from where ``state`` is until the end.

    Parameters
    ----------
    communicator : Communicator
        The other ranks.
    config : TrainConfig
        Number of epochs, when to report and save, when to stop.
    data : RankDataLoader
        This rank's batches.
    learner : Trainable
        Network, loss and optimiser.
    state : TrainingState
        Where training is; the loop changes it.
    emit : callable
        Called with each event, in the same order on all ranks.
    """

    def __init__(
        self,
        communicator: Communicator,
        config: TrainConfig,
        data: RankDataLoader,
        learner: Trainable,
        state: TrainingState,
        emit: Callable[[Event], None],
    ) -> None:
        self._communicator, self._config, self._data = communicator, config, data
        self._learner, self._state, self._emit = learner, state, emit
        self._pending: list[Any] = []
        self._weights: list[float] = []
        self._synchronised = 0
        self._stop = False

    def run(self) -> str:
        """Train; return why training ended: "epochs", "patience" or "callback"."""
        try:
            self._report_missed()
            return self._run()
        except Exception:
            self._estimate_losses()
            raise

    def _run(self) -> str:
        while self._state.epoch < self._config.epochs:
            self._communicator.admit()
            if self._is_stale():
                return "patience"
            self._run_epoch()
            if self._stop:
                return "callback"
        return "patience" if self._is_stale() else "epochs"

    def _report_missed(self) -> None:
        """Report the steps of an earlier group that were not, since a rank was lost; a collective."""
        state, count = self._state, self._state.unreported
        if count:
            means = self._communicator.all_reduce(np.array(state.losses[-count:])) / self._communicator.size
            state.losses[-count:] = means.tolist()
            sampler, first = self._data.sampler(state.epoch), state.step - count
            rows = tuple(self._data.counted(sampler, step) for step in range(first, state.step))
            self._emit(StepsDone(state.epoch, state.step, self._data.steps, tuple(state.losses[-count:]), rows))
            state.unreported = 0

    def _estimate_losses(self) -> None:
        """Take this rank's share of steps that cannot be summed any more for that of all ranks."""
        if self._learner.is_whole:
            size = self._communicator.size
            self._state.losses += [size * float(part) for part in self._pending]
            self._state.unreported = len(self._pending)
            self._pending.clear()

    def _is_stale(self) -> bool:
        return 0 < self._config.patience <= self._state.stale

    def _run_epoch(self) -> None:
        """Train to the end of the epoch and evaluate, or until the driver asks to stop."""
        state, begin, waited = self._state, time.perf_counter(), self._data.waited
        sampler = self._data.sampler(state.epoch)
        self._synchronised = state.step
        with self._data.training(state.epoch, state.step) as batches:
            while state.step < self._data.steps:
                self._take_step(sampler, list(islice(batches, self._config.accumulation)))
                if not self._learner.is_synchronised:
                    continue
                if self._is_due(self._config.checkpoint_steps):
                    self._report(sampler)
                    self._emit(StateReady(lasting=True))
                if self._is_due(self._config.report_steps):
                    self._report(sampler)
                    self._emit(StateReady(lasting=self._stop))
                    if self._stop:
                        return
                    self._communicator.admit()
                self._synchronised = state.step
        self._report(sampler)
        self._end_epoch(sampler, time.perf_counter() - begin, self._data.waited - waited)
        self._vote(np.zeros(0))

    def _is_due(self, every: int) -> bool:
        """Whether it is time for what is done every so many steps, or at the next end of a round of local steps."""
        step = self._state.step
        return every > 0 and step // every > self._synchronised // every and step < self._data.steps

    def _take_step(self, sampler: EpochSampler, batches: list[Batch]) -> None:
        state = self._state
        seed = self._config.step_seed(state.epoch, state.step, self._communicator.rank)
        self._weights.append(self._weight(sampler, batches))
        self._pending.append(self._learner.step(batches, self._weights[-1], seed))
        state.step += 1

    def _weight(self, sampler: EpochSampler, batches: list[Batch]) -> float:
        """Return the weight of a step's rows: of a local step's on this rank, else on all ranks.

        Without a weight column, the sampler knows it.
        """
        if self._learner.is_local:
            return self._learner.weight(batches)
        if self._data.index.fields.weight is None and not self._learner.is_weighted:
            return float(self._data.counted(sampler, self._state.step))
        own = self._learner.weight(batches)
        return float(self._communicator.all_reduce(np.array([own]))[0]) or 1.0

    def _report(self, sampler: EpochSampler) -> None:
        """Sum the losses of the steps since the last report over all ranks, and the stop votes; a collective.

        Raises
        ------
        DivergedError
            Where a loss is not finite.
        """
        state, count = self._state, len(self._pending)
        first = state.step - count
        losses = self._losses()
        if not count:
            return
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise DivergedError(
                f"the loss is {losses[bad[0]]} at step {first + int(bad[0])} of epoch {state.epoch}. Lower the "
                "learning rate (stepSize), clip the gradient (maxGradNorm), or look for features of very unlike size."
            )
        state.losses += losses.tolist()
        rows = tuple(self._data.counted(sampler, step) for step in range(first, state.step))
        self._emit(StepsDone(state.epoch, state.step, self._data.steps, tuple(losses.tolist()), rows))

    def _losses(self) -> Array:
        """Return the mean losses of the pending steps over all ranks."""
        own = self._learner.numbers(self._pending) if self._pending else np.zeros(0)
        weights = np.array(self._weights)
        if self._learner.is_local:
            sums = np.array(self._vote(np.concatenate([own * weights, weights]))).reshape(2, -1)
            found: Array = sums[0] / np.where(sums[1] > 0, sums[1], 1.0)
        else:
            found = np.array(self._vote(own))
        self._pending.clear()  # once they are summed: a rank may be lost before
        self._weights.clear()
        return found

    def _vote(self, parts: Array) -> list[float]:
        """Return the sums of ``parts`` over all ranks, and note whether the driver asked any of them to stop."""
        total = self._communicator.all_reduce(np.append(parts, float(self._communicator.stopping())))
        self._stop = self._stop or bool(total[-1] > 0)
        return [float(value) for value in total[:-1]]

    def _end_epoch(self, sampler: EpochSampler, seconds: float, waited: float) -> None:
        """Evaluate, move the schedule and report; a collective."""
        state, learner, steps = self._state, self._learner, self._data.steps
        learner.settle()
        metrics, validation_seconds = self._evaluate()
        counts = [self._data.counted(sampler, step) for step in range(steps)]
        loss = float(np.average(state.losses[-steps:], weights=counts))
        costs = (seconds, waited, sampler.rows, validation_seconds)
        ended = EpochEnded(state.epoch, steps, loss, metrics, learner.rate, *costs)
        state.history.append(ended.record())
        watched = loss if ended.validation is None else ended.validation
        learner.end_epoch(watched)
        if self._config.patience:
            state.compare(watched, learner.weights(), self._config.min_delta)
        self._emit(ended)
        state.epoch, state.step = state.epoch + 1, 0
        self._emit(StateReady(lasting=True))

    def _evaluate(self) -> tuple[dict[str, float], float]:
        """Return loss and metrics over the rows held out, and the seconds it took apart from waiting."""
        if not self._data.has_validation:
            return {}, 0.0
        begin, waited = time.perf_counter(), self._data.waited
        with self._data.validation() as batches:
            metrics = self._learner.evaluate(batches)
        return metrics, time.perf_counter() - begin - (self._data.waited - waited)
