"""Local steps of a network: ranks train by themselves for a round, and an outer optimiser applies their mean update.

That is local SGD, or with Nesterov's momentum as the outer optimiser DiLoCo (Douillard et al., 2023, *DiLoCo:
Distributed low-communication training of language models*, algorithm 1). Within a round ranks send nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from sparkopt.deep.batch import Batch
from sparkopt.deep.trainable import LocallyTrainable
from sparkopt.deep.update_sum import UpdateSum
from sparkopt.launch import Communicator
from sparkopt.launch.checkpoints import gathered
from sparkopt.objective.work import LocalSteps
from sparkopt.typing import Array

__all__ = ["LocalLearner"]


class LocalLearner:
    """A learner whose ranks take local steps.

    At a round's end each rank has w′, and the mean of w − w′ over the ranks, by the weight of the rows that they saw,
    is the gradient of the outer optimiser's step from w, where all began. Each rank keeps its own state of the inner
    optimiser from round to round, as in the paper (§3): checkpoints hold those of all ranks. An epoch ends its round.

    Parameters
    ----------
    learner : LocallyTrainable
        Takes the local steps, on this rank's rows.
    schedule : LocalSteps
        How many steps a round has, and the outer optimiser.
    compression : str
        Codec of the updates; see :class:`sparkopt.deep.update_sum.UpdateSum`.
    communicator : Communicator
        The other ranks.
    steps : int
        Steps of an epoch.
    """

    is_local = True
    is_whole = False

    def __init__(
        self,
        learner: LocallyTrainable,
        schedule: LocalSteps,
        compression: str,
        communicator: Communicator,
        steps: int,
    ) -> None:
        self._learner, self._schedule, self._communicator = learner, schedule, communicator
        self._steps_of_epoch = steps
        self._sum = UpdateSum(compression, communicator)
        self._start = learner.trained()
        self._outer = schedule.outer.transform.init(self._start)
        self._round = self._taken = self._step = 0
        self._weight = 0.0
        self.output_shape, self.is_weighted = learner.output_shape, learner.is_weighted

    @property
    def is_synchronised(self) -> bool:
        """Whether a round has ended, and no step was taken since."""
        return not self._taken

    @property
    def sent(self) -> int:
        """Bytes of local updates that this rank has sent."""
        return self._sum.sent

    @property
    def notes(self) -> list[str]:
        """What the user should know before the first step."""
        return self._learner.notes

    @property
    def rate(self) -> float:
        """The learning rate of the local steps now."""
        return self._learner.rate

    @property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return self._learner.configuration

    def step(self, batches: Sequence[Batch], total: float, seed: int) -> Any:
        """Take a local step, and at the end of a round the outer step; a collective then.

        Parameters
        ----------
        batches : sequence of Batch
            This rank's rows.
        total : float
            Their weight.
        seed : int
            Of dropout and the like.
        """
        loss = self._learner.step(batches, total or 1.0, seed)
        self._weight += total
        self._taken, self._step = self._taken + 1, self._step + 1
        if self._taken >= self._schedule.length(self._round) or self._step >= self._steps_of_epoch:
            self._end_round()
        return loss

    def numbers(self, parts: Sequence[Any]) -> Array:
        """Return what steps have returned as numbers, shape (steps,)."""
        return self._learner.numbers(parts)

    def _end_round(self) -> None:
        """Take the outer step, after which all ranks have the same weights."""
        group = self._communicator
        weights = np.zeros(group.size)
        weights[group.rank] = self._weight
        total = float(group.all_reduce(weights).sum())
        share = np.float32(self._weight / total if total else 0.0)
        mean = self._sum((self._start - self._learner.trained()) * share, self._round)
        change, self._outer = self._schedule.outer.transform.update(mean, self._outer, self._start)
        self._learner.load_trained((self._start + change).astype(np.float32))
        self._start = self._learner.trained()
        self._round, self._taken, self._weight = self._round + 1, 0, 0.0

    def weight(self, batches: Sequence[Batch]) -> float:
        """Return how much the rows of batches count."""
        return self._learner.weight(batches)

    def end_epoch(self, watched: float) -> None:
        """Take a step of a schedule by epochs."""
        self._learner.end_epoch(watched)
        self._step = 0

    def settle(self) -> None:
        """Make running statistics equal on all ranks; a collective."""
        self._learner.settle()

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return mean loss and metrics; a collective."""
        return self._learner.evaluate(batches)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's state."""
        return self._learner.weights()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds in addition to the weights, between two rounds; a collective."""
        own = {"learner": self._learner.state(), "sum": self._sum.state()}
        return {
            "ranks": gathered(own, self._communicator),
            "outer": self._outer,
            "round": self._round,
            "step": self._step,
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore weights and state; further ranks begin with the state of one of those that saved it."""
        ranks, group = state["ranks"], self._communicator
        own = ranks[group.rank % len(ranks)]
        self._learner.restore(weights, own["learner"])
        if len(ranks) == group.size:
            self._sum.restore(own["sum"])
        self._start, self._outer = self._learner.trained(), _as_arrays(state["outer"])
        self._round, self._step, self._taken, self._weight = state["round"], state["step"], 0, 0.0


def _as_arrays(state: Any) -> Any:
    """Return the state of an outer optimiser whose arrays are not those of the checkpoint."""
    if isinstance(state, np.ndarray):
        own: Array = state.copy()
        return own
    if isinstance(state, dict):
        return {name: _as_arrays(part) for name, part in state.items()}
    return type(state)(map(_as_arrays, state)) if isinstance(state, (list, tuple)) else state
