"""What every rank runs: ``train``. It knows a communicator, and nothing of what started it."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sparkopt.deep.allocator import retain_freed_memory
from sparkopt.deep.batch import Batch
from sparkopt.deep.checkpoint import Checkpoint, module_bytes
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.learner import Learner
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.recovery import Keeper
from sparkopt.deep.sampler import EpochSampler
from sparkopt.errors import DivergedError, IncompatibleError
from sparkopt.launch import Communicator
from sparkopt.launch.devices import choose

__all__ = ["RankResult", "train"]


@dataclass(frozen=True)
class RankResult:
    """What a rank brings home.

    Attributes
    ----------
    weights : bytes
        State of the module as safetensors; empty but on rank 0.
    history : tuple of dict
        One record an epoch: ``epoch``, ``loss``, ``validation``, metrics by name, ``rate``, ``seconds``, ``waited``,
        ``rows``.
    losses : tuple of float
        Mean loss of each step, in order.
    output_shape : tuple of int
        What the module gives for a row.
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


def train(communicator: Communicator, config: TrainConfig, recipe: Recipe) -> RankResult:
    """Train the recipe's module on this rank's share of the store.

    All ranks call it with equal arguments, and end with equal weights.

    Parameters
    ----------
    communicator : Communicator
        The other ranks.
    config : TrainConfig
        How.
    recipe : Recipe
        What.

    Raises
    ------
    DivergedError
        When a loss is not finite.
    IncompatibleError
        Where a checkpoint belongs to other rows, or to other batches.
    """
    begin = time.perf_counter()
    name, why = choose(config.device, communicator.info.accelerators, communicator.info.local_rank)
    device = torch.device(name)
    is_gpu = device.type == "cuda"
    if is_gpu:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # memory grows as it is needed
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    with retain_freed_memory(), torch.random.fork_rng(devices=[device] if is_gpu else []):
        rows = RankDataLoader(config, communicator, device)
        learner = Learner(recipe, config, communicator, device, config.epochs * rows.steps)
        run = _Run(communicator, config, recipe, rows, learner)
        run.resume()
        stopped = run.epochs()
        shape = learner.output_shape(rows.sample())
    weights = module_bytes(run.best or learner.module.state_dict()) if communicator.rank == 0 else b""
    return RankResult(
        weights,
        tuple(run.history),
        tuple(run.losses),
        shape,
        name,
        why,
        _peak_memory(),
        torch.cuda.max_memory_allocated(device) if is_gpu else 0,
        stopped,
        {**run.seconds, "wait": rows.waited, "total": time.perf_counter() - begin},
        run.resumed,
    )


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Run:
    """A training under way: where it stands, what it reports, when it saves and when it ends."""

    def __init__(
        self, communicator: Communicator, config: TrainConfig, recipe: Recipe, rows: RankDataLoader, learner: Learner
    ) -> None:
        self.communicator, self.config, self.recipe = communicator, config, recipe
        self.rows, self.learner = rows, learner
        self.keeper = Keeper(communicator, config.checkpoints)
        self.epoch = self.step = 0
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.best_value, self.stale = math.inf, 0
        self.seconds = dict.fromkeys(("train", "validate", "checkpoint"), 0.0)
        self.resumed: str | None = None
        self._pending: list[torch.Tensor] = []
        self._asked = False
        self._opened: tuple[tuple[Any, Any], ...] = ()

    def epochs(self) -> str:
        """Train until the end; return why it ended."""
        with self._logging(), self.keeper.marking(lambda: self.epoch * self.rows.steps + self.step):
            while self.epoch < self.config.epochs:
                self.communicator.admit()
                if self._is_stale():
                    return "patience"
                if not self._train():
                    return "callback"
        return "patience" if self._is_stale() else "epochs"

    def _train(self) -> bool:
        """Train to the epoch's end; return False where the driver asked to stop."""
        begin, waited = time.perf_counter(), self.rows.waited
        sampler, steps = self.rows.sampler(self.epoch), self.rows.steps
        with self.rows.training(self.epoch, self.step) as batches:
            while self.step < steps:
                self._advance(sampler, list(islice(batches, self.config.accumulation)))
                if self._is_due(self.config.checkpoint_steps):
                    self._report(sampler)
                    self._save()
                if self._is_due(self.config.report_steps):
                    stop = self._report(sampler)
                    self._save(lasting=stop)
                    if stop:
                        return False
                    self.communicator.admit()
        self._report(sampler)
        seconds, waited = time.perf_counter() - begin, self.rows.waited - waited
        self.seconds["train"] += seconds - waited
        self._end_epoch(sampler, {"seconds": seconds, "waited": waited, "rows": sampler.rows})
        return not self._agreed()

    def _agreed(self) -> bool:
        """Whether the driver asked to stop; a collective."""
        asked = self.communicator.all_reduce(np.array([float(self.communicator.stopping())]))
        self._asked = self._asked or bool(asked[0] > 0)
        return self._asked

    def _advance(self, sampler: EpochSampler, batches: list[Batch]) -> None:
        seed = self.config.step_seed(self.epoch, self.step, self.communicator.rank)
        self._pending.append(self.learner.step(batches, self._total(sampler, batches), seed))
        self.step += 1

    def _total(self, sampler: EpochSampler, batches: list[Batch]) -> float:
        """Return the weight of a step's rows on all ranks: known from the sampler, but for rows with weights."""
        if self.rows.index.fields.weight is None:
            return float(self.rows.counted(sampler, self.step))
        own = sum(float(batch.weight.sum()) for batch in batches)
        return float(self.communicator.all_reduce(np.array([own]))[0]) or 1.0

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0 and self.step < self.rows.steps

    def _end_epoch(self, sampler: EpochSampler, cost: dict[str, Any]) -> None:
        self.learner.settle()
        begin, waited = time.perf_counter(), self.rows.waited
        found = {}
        if self.rows.has_validation:
            with self.rows.validation() as batches:
                found = self.learner.evaluate(batches)
        self.seconds["validate"] += time.perf_counter() - begin - (self.rows.waited - waited)
        counts = [self.rows.counted(sampler, step) for step in range(self.rows.steps)]
        loss = float(np.average(self.losses[-len(counts) :], weights=counts))
        record = {"epoch": self.epoch, "loss": loss, **found, "rate": self.learner.rate, **cost}
        self.history.append(record)
        watched = record.get("validation", loss)
        self.learner.end_epoch(watched)
        self._compare(watched)
        self._tell({"event": "epoch", **record}, {"loss": loss, **found, "rate": record["rate"]})
        self.epoch, self.step = self.epoch + 1, 0
        self._save()

    def _compare(self, value: float) -> None:
        """Keep the best state, where training is to end once it grows no better."""
        if not self.config.patience:
            return
        if value < self.best_value - self.config.min_delta:
            self.best_value, self.stale = value, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.learner.module.state_dict().items()}
        else:
            self.stale += 1

    def _is_stale(self) -> bool:
        return 0 < self.config.patience <= self.stale

    def _report(self, sampler: EpochSampler) -> bool:
        """Make the last steps' losses known to all; return whether the driver asked to stop. A collective.

        Raises
        ------
        DivergedError
            Where a loss is not finite.
        """
        count, first = len(self._pending), self.step - len(self._pending)
        parts = torch.stack(self._pending).double().cpu().numpy() if count else np.zeros(0)
        *losses, asked = self.communicator.all_reduce(np.append(parts, float(self.communicator.stopping()))).tolist()
        self._pending.clear()
        self._asked = self._asked or asked > 0
        if not count:
            return self._asked
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise DivergedError(
                f"the loss is {losses[bad[0]]} at step {first + int(bad[0])} of epoch {self.epoch}. Lower the "
                "learning rate (stepSize), clip the gradient (maxGradNorm), or look for features of very unlike size."
            )
        self.losses += losses
        rows = [self.rows.counted(sampler, step) for step in range(first, self.step)]
        steps = self.rows.steps
        progress = {"epoch": self.epoch, "step": self.step, "steps": steps, "losses": losses, "rows": rows}
        self._tell({"event": "steps", **progress}, {"step_loss": losses[-1]})
        return self._asked

    def _tell(self, progress: dict[str, Any], values: Mapping[str, float] = MappingProxyType({})) -> None:
        """Tell the driver and the loggers."""
        if self.communicator.rank == 0:
            self.communicator.report(progress)
            for logger, opened in self._opened:
                logger.log(opened, values, self.epoch * self.rows.steps + self.step)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        loggers = self.recipe.loggers if self.communicator.rank == 0 else ()
        self._opened = tuple((logger, logger.open()) for logger in loggers)
        try:
            yield
        finally:
            for logger, opened in self._opened:
                logger.close(opened)

    def _course(self) -> dict[str, Any]:
        """What must not change when a run is resumed."""
        return {**self.config.course, "rows": self.rows.index.fingerprint}

    def _save(self, lasting: bool = True) -> None:
        """Keep where training stands, in a checkpoint or (not lasting) for a next group only. A collective."""
        if not self.keeper.keeps(lasting):
            return
        begin = time.perf_counter()
        self.learner.settle()
        learned = self.learner.state()
        state = learned | {
            "best": (self.best, self.best_value if math.isfinite(self.best_value) else None, self.stale),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }
        facts = {"course": self._course(), "history": self.history, "processes": self.communicator.size}
        self.keeper.keep(Checkpoint(self.epoch, self.step, self.learner.module.state_dict(), state, facts), lasting)
        self.seconds["checkpoint"] += time.perf_counter() - begin

    def resume(self) -> None:
        """Go on from the latest checkpoint, if there is one. A collective.

        Raises
        ------
        IncompatibleError
            Where it belongs to other rows or batches.
        """
        found = self.keeper.latest()
        if found is None:
            return
        now, then = self._course(), found.facts["course"]
        other = sorted(key for key in now if now[key] != then.get(key))
        if other:
            raise IncompatibleError(
                f"checkpoint {found.name} in {self.config.checkpoints!r} belongs to another run: {', '.join(other)} "
                "differ. Set another checkpointDir, or resume=False to begin anew."
            )
        self.learner.restore(found.model, found.state)
        best, value, self.stale = found.state["best"]
        self.best, self.best_value = best, math.inf if value is None else value
        self.losses, self.history = found.state["losses"].tolist(), list(found.facts["history"])
        self.epoch, self.step, self.resumed = found.epoch, found.step, found.name
        again = self.keeper.reached - (found.epoch * self.rows.steps + found.step)
        self._tell({"event": "resumed", "epoch": found.epoch, "step": found.step, "again": max(0, again)})
