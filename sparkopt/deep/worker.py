"""What every rank runs: ``train``. It connects the training loop with its listeners."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from typing import Any

import torch

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.divided_tensors import collected
from sparkopt.deep.events import Event, Listener, Noted
from sparkopt.deep.learner import Learner
from sparkopt.deep.listeners import TimeSpent, logging_to, reporting_to
from sparkopt.deep.local_learner import LocalLearner
from sparkopt.deep.loop import TrainingLoop
from sparkopt.deep.randomness import isolated
from sparkopt.deep.recovery import Recovery
from sparkopt.deep.state import TrainingState
from sparkopt.deep.trainable import LearnerFactory, LearnerRecipe, LocallyTrainable, Trainable
from sparkopt.io.allocator import retain_freed_memory
from sparkopt.io.hadoop import carry
from sparkopt.launch import Communicator
from sparkopt.launch.checkpoints import module_bytes
from sparkopt.launch.devices import choose
from sparkopt.values import dataclass

__all__ = ["RankResult", "train"]


@dataclass(frozen=True)
class RankResult:
    """What a rank returns.

    Attributes
    ----------
    weights : bytes
        State of the module as safetensors; empty but on rank 0.
    history : tuple of dict
        One record for each epoch: ``epoch``, ``loss``, ``validation``, metrics by name, ``rate``, ``seconds``,
        ``waited``, ``rows``.
    losses : tuple of float
        Mean loss of each step, in order.
    output_shape : tuple of int
        Shape of the module's output for one row.
    device, why : str
        Where it ran, and why there.
    peak_memory : int
        Most resident memory of the process, in bytes.
    device_memory : int
        Most memory of a GPU, in bytes; 0 on a CPU.
    stopped : str
        "epochs", "patience" or "callback".
    seconds : dict of str to float
        Where the time went: ``wait`` for batches, ``train``, ``validate``, ``checkpoint``, and ``total``.
    resumed : str or None
        The checkpoint that it began with.
    sent : int
        Bytes of gradients, or of local updates, that it sent to other ranks.
    """

    weights: bytes = field(repr=False)
    history: tuple[dict[str, Any], ...]
    losses: tuple[float, ...] = field(repr=False)
    output_shape: tuple[int, ...]
    device: str
    why: str
    peak_memory: int
    device_memory: int
    stopped: str
    seconds: dict[str, float]
    resumed: str | None
    sent: int = 0


def train(
    communicator: Communicator, config: TrainConfig, recipe: LearnerRecipe, learner_of: LearnerFactory = Learner
) -> RankResult:
    """Train the recipe's module on this rank's share of the store.

    All ranks call it with equal arguments, and end with equal weights.

    Parameters
    ----------
    communicator : Communicator
        The other ranks.
    config : TrainConfig
        Plain settings.
    recipe : LearnerRecipe
        Module, loss, optimiser and schedule.
    learner_of : callable, default Learner
        Makes the learner of the recipe.

    Raises
    ------
    DivergedError
        When a loss is not finite.
    IncompatibleError
        Where a checkpoint belongs to other rows, or to other batches.
    """
    begin = time.perf_counter()
    carry(config.storage)
    device, why = _take_device(communicator, config)
    is_gpu = device.type == "cuda"
    with retain_freed_memory(), isolated(device):
        data = RankDataLoader(config, communicator, device)
        sample, labels = data.sample(recipe.ignored)
        own = learner_of(recipe, config, communicator, device, config.epochs * data.steps, sample, labels)
        data.look = own.look
        learner: Trainable = _local(own, config, communicator, data.steps)
        state, spent = TrainingState(), TimeSpent()
        recovery = Recovery(communicator, config, data.index.fingerprint, learner, state, data.steps)
        resumed = recovery.resume()
        with _listening(communicator, recipe, spent, recovery) as emit:
            for note in learner.notes:
                emit(Noted(note))
            if resumed is not None:
                emit(resumed)
            stopped = TrainingLoop(communicator, config, data, learner, state, emit).run()
        weights = collected(state.best or learner.weights(), communicator.rank)
    seconds = {"train": spent.train, "validate": spent.validate, "checkpoint": recovery.seconds, "wait": data.waited}
    return RankResult(
        module_bytes(weights) if communicator.rank == 0 else b"",
        tuple(state.history),
        tuple(state.losses),
        learner.output_shape,
        str(device),
        why,
        _peak_memory(),
        torch.cuda.max_memory_allocated(device) if is_gpu else 0,
        stopped,
        {**seconds, "total": time.perf_counter() - begin},
        None if resumed is None else resumed.checkpoint,
        learner.sent,
    )


def _local(learner: LocallyTrainable, config: TrainConfig, communicator: Communicator, steps: int) -> Trainable:
    """Return the learner with rounds of local steps, where the settings ask for them."""
    schedule = config.schedule
    return learner if schedule is None else LocalLearner(learner, schedule, config.compression, communicator, steps)


def _take_device(communicator: Communicator, config: TrainConfig) -> tuple[torch.device, str]:
    """Return the device of this rank, and why it is this one."""
    name, why = choose(config.device, communicator.info.accelerators, communicator.info.local_rank)
    device = torch.device(name)
    if device.type == "cuda":
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # memory grows as it is needed
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    return device, why


@contextmanager
def _listening(
    communicator: Communicator, recipe: LearnerRecipe, spent: TimeSpent, recovery: Recovery
) -> Iterator[Callable[[Event], None]]:
    """Give a function that passes events to this rank's listeners; rank 0 also reports and logs."""
    listeners: list[Listener] = [spent, recovery]
    with ExitStack() as stack:
        if communicator.rank == 0:
            listeners += [reporting_to(communicator), stack.enter_context(logging_to(recipe.loggers))]
        stack.enter_context(recovery)

        def emit(event: Event) -> None:
            for listener in listeners:
                listener(event)

        yield emit


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
