"""The learner: network, loss, optimiser and schedule on one rank; steps, evaluation, and its state as data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparkopt.deep.batch import Batch
from sparkopt.deep.checkpoint import module_state
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.metrics import build_metrics
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.replica import average_buffers, check_compression, replica
from sparkopt.launch import Communicator

__all__ = ["Learner"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """Network, loss, optimiser and schedule of one rank.

    Parameters
    ----------
    recipe : Recipe
        Module, loss, optimiser, schedule, metrics.
    config : TrainConfig
        Precision, compression, clipping, seed.
    communicator : Communicator
        The other ranks.
    device : torch.device
        Where the module goes.
    steps : int
        Steps of the whole run, for the schedule.
    """

    def __init__(
        self, recipe: Recipe, config: TrainConfig, communicator: Communicator, device: torch.device, steps: int
    ) -> None:
        self._config, self._communicator, self._device, self._recipe = config, communicator, device, recipe
        check_compression(communicator.name, config.compression, config.precision)
        module = recipe.build_module(config.seed)
        if recipe.weights is not None:
            module.load_state_dict(module_state(recipe.weights))
        self.module = module.to(device)
        self.loss = recipe.build_loss().to(device)
        self._replica = replica(self.module, communicator, device, config.compression)
        self._optimizer = recipe.build_optimizer(p for p in self.module.parameters() if p.requires_grad)
        self._scheduler, self._interval = recipe.build_scheduler(self._optimizer, max(1, steps))
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, batches: Sequence[Batch], total: float, seed: int) -> torch.Tensor:
        """Take a step of the optimiser.

        Parameters
        ----------
        batches : sequence of Batch
            This rank's rows; their gradients are added.
        total : float
            Weight of the step's rows on all ranks.
        seed : int
            Of dropout and the like.

        Returns
        -------
        Tensor of shape ()
            This rank's part of the mean loss, on the device: reading it would wait for it.
        """
        if self._device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # looking for accelerators takes 0.1 ms
        else:
            torch.manual_seed(seed)
        self.module.train()
        self._optimizer.zero_grad(set_to_none=True)
        part = torch.zeros((), device=self._device)
        scale = self._communicator.size / total  # the mean over replicas is then the sum over rows, by their weight
        for number, batch in enumerate(batches):
            moved = batch.to(self._device)
            with self._replica.backward(number == len(batches) - 1):
                with self._autocast():
                    output = self._replica(*moved.inputs)
                loss = (self.loss(output, moved.target) * moved.weight).sum()
                self._scaler.scale(loss * scale).backward()
            part += loss.detach() / total
        self._replica.finish()
        self._update()
        return part

    def _update(self) -> None:
        if self._config.max_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self._config.max_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._interval == "step":
            self._scheduler.step()

    def end_epoch(self, watched: float) -> None:
        """Take a step of a schedule by epochs; ``watched`` is the loss for ``ReduceLROnPlateau``."""
        if self._interval == "epoch":
            self._scheduler.step(watched) if isinstance(
                self._scheduler, ReduceLROnPlateau
            ) else self._scheduler.step()

    def settle(self) -> None:
        """Make running statistics equal on all ranks: their mean; a collective."""
        average_buffers(self.module, self._communicator)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return mean loss and metrics over all ranks' batches; a collective."""
        metrics = build_metrics(self._recipe.metrics, self._device)
        sums = np.zeros(2)
        self.module.eval()
        with torch.inference_mode():
            for batch in batches:
                moved = batch.to(self._device)
                with self._autocast():
                    output = self.module(*moved.inputs)
                loss = (self.loss(output, moved.target) * moved.weight).sum()
                sums += [float(loss), float(batch.weight.sum())]
                for metric in metrics.values():
                    metric.update(*self.loss.aligned(output, moved.target), moved.weight)
        loss, weight = self._communicator.all_reduce(sums)
        values = {name: metric.compute(self._communicator) for name, metric in metrics.items()}
        return {"validation": float(loss / weight) if weight > 0 else math.nan, **values}

    def output_shape(self, batch: Batch) -> tuple[int, ...]:
        """Return what the module gives for a row."""
        self.module.eval()
        with torch.inference_mode():
            return tuple(self.module(*batch.to(self._device).inputs).shape[1:])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds in addition to the module's weights; a collective."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "scheduler": _without_functions(self._scheduler.state_dict()),
            "scaler": self._scaler.state_dict(),
            "replica": self._replica.state(),
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore weights and state."""
        self.module.load_state_dict(weights)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self._replica.restore(state["replica"])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, _TYPES[self._config.precision])


def _without_functions(state: dict[str, Any]) -> dict[str, Any]:
    """Remove functions from the state of a scheduler: the recipe has them."""
    plain: dict[str, Any] = {}
    for key, value in state.items():
        if key in ("lr_lambda", "lr_lambdas"):
            plain[key] = [None] * len(value)
        elif key == "_schedulers":
            plain[key] = [_without_functions(inner) for inner in value]
        else:
            plain[key] = value
    return plain
