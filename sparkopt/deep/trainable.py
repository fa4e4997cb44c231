"""What the training loop trains: a network with its loss and optimiser on one rank, of whatever framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import torch

from sparkopt.deep.batch import Batch
from sparkopt.deep.loggers import Logger
from sparkopt.typing import Array

__all__ = ["LearnerFactory", "LearnerRecipe", "LocallyTrainable", "Trainable"]


class LearnerRecipe(Protocol):
    """What a learner is made of, and who is told how it goes."""

    @property
    def loggers(self) -> Sequence[Logger]:
        """They run in the process of rank 0."""
        ...

    @property
    def task_name(self) -> str:
        """What outputs mean."""
        ...

    @property
    def ignored(self) -> int | None:
        """The label whose rows do not count."""
        ...


class Trainable(Protocol):
    """The learner of a rank."""

    output_shape: tuple[int, ...]
    is_weighted: bool
    is_local: bool  # whether a step is of this rank's rows alone

    @property
    def is_synchronised(self) -> bool:
        """Whether all ranks have the same weights now, so that training can be saved, or stop."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether each rank has the whole state whenever no step is being taken, without asking others for it."""
        ...

    @property
    def sent(self) -> int:
        """Bytes of gradients, or of local updates, that this rank has sent to others."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the user should know before the first step."""
        ...

    @property
    def rate(self) -> float:
        """The learning rate now."""
        ...

    @property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        ...

    def step(self, batches: Sequence[Batch], total: float, seed: int) -> Any:
        """Take a step; return this rank's part of the mean loss, which may still be being computed."""
        ...

    def numbers(self, parts: Sequence[Any]) -> Array:
        """Return what steps have returned as numbers, (steps,); this waits for them."""
        ...

    def weight(self, batches: Sequence[Batch]) -> float:
        """Return how much the rows of batches count."""
        ...

    def end_epoch(self, watched: float) -> None:
        """Take a step of a schedule by epochs."""
        ...

    def settle(self) -> None:
        """Make running statistics equal on all ranks; a collective."""
        ...

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return mean loss and metrics; a collective."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's state; it may share memory with what is trained."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds in addition to the weights; a collective."""
        ...

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore weights and state."""
        ...


class LocallyTrainable(Trainable, Protocol):
    """A learner that can take steps by itself, between which its weights are set."""

    @property
    def look(self) -> Callable[[Array, str], None] | None:
        """What refuses masks that the loss does not take, given each with its place; None where nothing does."""
        ...

    def trained(self) -> Array:
        """Return a copy of what is trained: all its real numbers in one vector, float32."""
        ...

    def load_trained(self, values: Array) -> None:
        """Set what is trained to such a vector."""
        ...


LearnerFactory: TypeAlias = Callable[..., LocallyTrainable]
"""From recipe, settings, communicator, device, steps, sample and facts of the labels."""
