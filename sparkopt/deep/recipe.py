"""The recipe of a training: module, loss, optimiser and schedule, as objects of PyTorch or by sparkopt's names.

Losses return one value for each row, so that a step divides by the total weight of all ranks' rows: the gradient is
that of a single process on all rows, even if the last batch of an epoch is padded.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from sparkopt.deep.config import OPTIMIZER_SETTINGS
from sparkopt.errors import DataError, ParameterError
from sparkopt.optim import schedules
from sparkopt.typing import Schedule
from sparkopt.validation import OneOf, check

__all__ = ["LOSSES", "OPTIMIZERS", "TASKS", "Recipe", "RowLoss", "check_recipe", "task_of"]

Build: TypeAlias = "nn.Module | Callable[[], nn.Module]"
Optimise: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]

LOSSES: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "squared_error": nn.MSELoss,
        "absolute_error": nn.L1Loss,
        "huber": nn.HuberLoss,
        "logistic": nn.BCEWithLogitsLoss,
        "multinomial": nn.CrossEntropyLoss,
        "poisson": nn.PoissonNLLLoss,
    }
)
"""sparkopt's names of losses, as PyTorch has them."""

OPTIMIZERS: Mapping[str, tuple[Callable[..., Optimizer], float]] = MappingProxyType(
    {
        name: (partial(getattr(torch.optim, kind), **settings), rate)
        for name, (kind, settings, rate) in OPTIMIZER_SETTINGS.items()
    }
)
"""sparkopt's names of optimisers, as PyTorch has them, and the learning rates that suit networks."""

_FUSED = ("adam", "adamw")
"""Optimisers with a fused implementation: it reads and writes each weight once instead of once per operation."""

TASKS = ("classes", "binary", "values")
"""Meaning of an output: scores of classes, one score of class 1, or the predicted values themselves."""

_CLASS_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_CLASS_FUNCTIONS = (F.cross_entropy, F.nll_loss, F.multi_margin_loss)
_BINARY = (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits)


def task_of(loss: Any) -> str:
    """Return what outputs mean under a loss: one of ``TASKS``."""
    if isinstance(loss, _CLASS_MODULES) or loss in _CLASS_FUNCTIONS:
        return "classes"
    return "binary" if isinstance(loss, nn.BCEWithLogitsLoss) or loss in _BINARY else "values"


class RowLoss(nn.Module):
    """A loss with one value a row.

    Parameters
    ----------
    loss : nn.Module or callable
        PyTorch's losses and functions with a ``reduction``, or any callable of (output, target) that gives one value,
        or one array of values, for each row.
    task : str
        Meaning of the outputs; class labels become whole numbers.
    """

    def __init__(self, loss: Any, task: str) -> None:
        super().__init__()
        self.task = task
        if isinstance(loss, nn.Module):
            loss = copy.deepcopy(loss)
            if hasattr(loss, "reduction"):
                loss.reduction = "none"
        elif "reduction" in inspect.signature(loss).parameters:
            loss = partial(loss, reduction="none")
        self.loss = loss

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the losses (rows,)."""
        output, target = self.aligned(output, target)
        found: torch.Tensor = self.loss(output, target)
        if not found.ndim or len(found) != len(target):
            raise ParameterError(
                f"the loss gives {tuple(found.shape)} for {len(target)} rows; it must give one value a row. Let it "
                "take a 'reduction' argument as PyTorch's losses do, or return the rows' losses without averaging."
            )
        return found if found.ndim == 1 else found.flatten(1).mean(1)

    def aligned(self, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output and target in the types and shapes that losses expect."""
        if not isinstance(output, torch.Tensor):
            raise ParameterError(f"the module must return one tensor. It returns a {type(output).__name__}.")
        output = output.float()
        if self.task == "classes":
            return output, target.long() if target.ndim < output.ndim else target
        if output.ndim == target.ndim + 1 and output.shape[-1] == 1:
            output = output.squeeze(-1)
        if output.shape != target.shape and isinstance(self.loss, nn.Module):
            raise DataError(
                f"the module gives {tuple(output.shape[1:])} a row where the label has {tuple(target.shape[1:])}."
            )
        return output, target.float()


@dataclass(frozen=True)
class Recipe:
    """Module, loss, optimiser, schedule, metrics and loggers.

    Parameters
    ----------
    module : nn.Module or callable
        The network, or a function that builds it (called with PyTorch's generator seeded, on every rank).
    loss : nn.Module, callable or str
        PyTorch's, or a name in ``LOSSES``.
    optimizer : callable or str
        A function from parameters to a ``torch.optim.Optimizer`` (``functools.partial(torch.optim.SGD, lr=0.1)``), or
        a name in ``OPTIMIZERS``.
    scheduler : callable or str, default "constant"
        A function from an optimiser to a scheduler of PyTorch, or the name of a schedule in
        ``sparkopt.optim.schedules``, which sets the rate at every step.
    scheduler_interval : {"step", "epoch"}, default "epoch"
        When a scheduler of PyTorch takes a step.
    step_size : float or None, default None
        Learning rate of an optimiser that was named.
    metrics : dict
        Names of metrics, and the metrics.
    loggers : tuple
        Where rank 0 logs to.
    weights : bytes or None
        A warm start: the state of a module, as safetensors.
    task : str or None
        One of ``TASKS``; by default what the loss suggests.
    """

    module: Build
    loss: Any
    optimizer: Optimise | str = "adam"
    scheduler: Callable[[Optimizer], LRScheduler] | str = "constant"
    scheduler_interval: str = "epoch"
    step_size: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    loggers: tuple[Any, ...] = ()
    weights: bytes | None = field(default=None, repr=False)
    task: str | None = None

    @property
    def task_name(self) -> str:
        """What outputs mean."""
        return self.task or task_of(LOSSES[self.loss]() if isinstance(self.loss, str) else self.loss)

    def build_module(self, seed: int) -> nn.Module:
        """Return the network; every call with the same seed gives the same."""
        if isinstance(self.module, nn.Module):
            return copy.deepcopy(self.module)
        torch.manual_seed(seed)
        built = self.module()
        if not isinstance(built, nn.Module):
            raise ParameterError(f"module must be, or build, an nn.Module. It builds a {type(built).__name__}.")
        return built

    def build_loss(self) -> RowLoss:
        """Return the loss, one value a row."""
        loss = LOSSES[self.loss]() if isinstance(self.loss, str) else self.loss
        return RowLoss(loss, self.task_name)

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimiser of ``parameters``."""
        if not isinstance(self.optimizer, str):
            return self.optimizer(parameters)
        factory, rate = OPTIMIZERS[self.optimizer]
        own = list(parameters)
        if self.optimizer in _FUSED and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in own):
            factory = partial(factory, fused=True)
        return factory(own, lr=self.step_size or rate)

    def build_scheduler(self, optimizer: Optimizer, steps: int) -> tuple[Any, str]:
        """Return the scheduler over a run of ``steps`` steps, and when it takes a step: "step" or "epoch"."""
        if not isinstance(self.scheduler, str):
            return self.scheduler(optimizer), self.scheduler_interval
        rate = optimizer.param_groups[0]["lr"]
        return LambdaLR(optimizer, _Relative(schedules.by_name(self.scheduler, rate, steps), rate)), "step"


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be trained, before any job.

    Raises
    ------
    ParameterError
        Naming the part, and what it may be.
    """
    if not (isinstance(recipe.module, nn.Module) or callable(recipe.module)):
        raise ParameterError(f"module must be an nn.Module, or build one. Got {recipe.module!r} instead.")
    for name, value, known in (("loss", recipe.loss, LOSSES), ("optimizer", recipe.optimizer, OPTIMIZERS)):
        if isinstance(value, str):
            check(name, value, OneOf(known))
        elif not callable(value) or isinstance(value, Optimizer):
            raise ParameterError(f"{name} must be callable, or one of {', '.join(known)}. Got {value!r} instead.")
    if recipe.step_size is not None and not isinstance(recipe.optimizer, str):
        raise ParameterError("stepSize is for optimisers with a name; give an optimiser of PyTorch's its own lr.")
    if not (isinstance(recipe.scheduler, str) or callable(recipe.scheduler)):
        raise ParameterError(f"scheduler must be callable. Got {recipe.scheduler!r} instead.")
    check("schedulerInterval", recipe.scheduler_interval, OneOf(["epoch", "step"]))
    if recipe.task is not None:
        check("task", recipe.task, OneOf(TASKS))


@dataclass(frozen=True)
class _Relative:
    """A schedule as factors of the initial rate, as PyTorch expects it."""

    schedule: Schedule
    initial: float

    def __call__(self, step: int) -> float:
        return self.schedule(step) / self.initial
