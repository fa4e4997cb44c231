"""The recipe of a training: module, loss, optimiser and schedule, as objects of PyTorch or by sparkopt's names.

Losses return one value for each row, so that a step divides by the total weight of all ranks' rows: the gradient is
that of a single process on all rows, even if the last batch of an epoch is padded.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from sparkopt.deep.config import OPTIMIZER_SETTINGS
from sparkopt.deep.keras_backends import is_of_keras
from sparkopt.deep.losses import LOSSES, TASKS, RowLoss, loss_of, task_of
from sparkopt.deep.randomness import seeded
from sparkopt.deep.row_step import StepBatch
from sparkopt.errors import ParameterError
from sparkopt.optim import schedules
from sparkopt.typing import Schedule
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

__all__ = ["OPTIMIZERS", "Recipe", "check_recipe"]

Build: TypeAlias = "nn.Module | Callable[[], nn.Module]"
Named: TypeAlias = "Iterable[tuple[str, nn.Parameter]]"
Optimise: TypeAlias = Callable[[Any], Optimizer]

OPTIMIZERS: Mapping[str, tuple[Callable[..., Optimizer], float]] = MappingProxyType(
    {
        name: (partial(getattr(torch.optim, kind), **settings), rate)
        for name, (kind, settings, rate) in OPTIMIZER_SETTINGS.items()
    }
)
"""sparkopt's names of optimisers, as PyTorch has them, and the learning rates that suit networks."""

_FUSED = ("adam", "adamw")
"""Optimisers with a fused implementation: it reads and writes each weight once instead of once per operation."""


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
        A function from a list of parameters to a ``torch.optim.Optimizer``
        (``functools.partial(torch.optim.SGD, lr=0.1)``), or a name in ``OPTIMIZERS``. If its first argument is
        called ``named_parameters``, it is given pairs of name and parameter.
    scheduler : callable or str, default "constant"
        A function from an optimiser to a scheduler of PyTorch, or the name of a schedule in
        ``sparkopt.optim.schedules``, which sets the rate at every step. If the function has an argument ``steps``, it
        is given how many steps the scheduler will take.
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
    step : callable or None
        A function of (module, `StepBatch`) in place of the loss, which gives the loss of each row.
    output : str or None
        Key, position or attribute of the module's output that is the prediction; None where it is one tensor.
    saved : {"all", "trainable"}
        Which weights results and checkpoints hold.
    label_kind : str
        What labels are: one of ``sparkopt.images.label_targets.LABEL_KINDS``.
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
    step: Callable[[nn.Module, StepBatch], torch.Tensor] | None = None
    output: str | None = None
    saved: str = "all"
    label_kind: str = "numbers"

    @property
    def task_name(self) -> str:
        """What outputs mean."""
        return self.task or ("values" if self.step is not None else task_of(loss_of(self.loss)))

    @property
    def ignored(self) -> int | None:
        """The label whose rows do not count, or None."""
        return self.build_loss().ignored

    def build_module(self, seed: int) -> nn.Module:
        """Return the network; every call with the same seed gives the same."""
        if isinstance(self.module, nn.Module):
            return copy.deepcopy(self.module)
        with seeded(seed, torch.device("cpu")):
            built = self.module()
        _refuse_keras(built)
        if not isinstance(built, nn.Module):
            raise ParameterError(f"module must be, or build, an nn.Module. It builds a {type(built).__name__}.")
        return built

    def build_loss(self) -> RowLoss:
        """Return the loss, one value a row; where there is a step, one that has nothing to do."""
        loss = nn.Identity() if self.step is not None else loss_of(self.loss)
        return RowLoss(loss, self.task_name, self.label_kind)

    def build_optimizer(self, named: Named) -> Optimizer:
        """Return the optimiser of these parameters, given with their names.

        Raises
        ------
        ParameterError
            Where the optimiser needs a closure, or is none.
        """
        pairs = list(named)
        own = [parameter for _, parameter in pairs]
        if not isinstance(self.optimizer, str):
            wants_names = _first_argument(self.optimizer) == "named_parameters"
            return _steppable(self.optimizer(pairs if wants_names else own))
        factory, rate = OPTIMIZERS[self.optimizer]
        if self.optimizer in _FUSED and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in own):
            factory = partial(factory, fused=True)
        return factory(own, lr=self.step_size or rate)

    def build_scheduler(self, optimizer: Optimizer, steps: int, epochs: int) -> tuple[Any, str]:
        """Return the scheduler over a run of ``steps`` steps, and when it takes a step: "step" or "epoch"."""
        if not isinstance(self.scheduler, str):
            asked = {"steps": steps if self.scheduler_interval == "step" else epochs}
            found = self.scheduler(optimizer, **(asked if "steps" in _arguments(self.scheduler) else {}))
            if not all(callable(getattr(found, name, None)) for name in ("step", "state_dict", "load_state_dict")):
                raise ParameterError(
                    f"scheduler must give a scheduler of PyTorch. It gives a {type(found).__name__}."
                )
            return found, self.scheduler_interval
        rate = optimizer.param_groups[0]["lr"]
        return LambdaLR(optimizer, _Relative(schedules.by_name(self.scheduler, rate, steps), rate)), "step"


def _arguments(function: Any) -> list[str]:
    """Return the names of a function's arguments that are not given yet."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # what is written in C may not have any
        return []


def _first_argument(function: Any) -> str | None:
    return next(iter(_arguments(function)), None)


def _steppable(optimizer: Any) -> Optimizer:
    """Return an optimiser, unless it cannot take a step on gradients that are there."""
    if not isinstance(optimizer, Optimizer):
        raise ParameterError(f"optimizer must give a torch.optim.Optimizer. It gives a {type(optimizer).__name__}.")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ParameterError(
            f"optimizer {type(optimizer).__name__} evaluates the loss several times in a step, by a closure, which "
            "batches that stream by do not allow. Take one of PyTorch's that needs none, such as AdamW."
        )
    return optimizer


def _refuse_keras(module: Any) -> None:
    """Refuse layers of Keras: they need to be told that they train, which PyTorch's train() does not do."""
    if is_of_keras(module):
        raise ParameterError(
            f"module has a layer of Keras, {type(module).__name__}, whose dropout and batch normalisation would not "
            "be in training. Take sparkopt.deep.KerasEstimator, with what builds the keras.Model."
        )


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be trained, before any job.

    Raises
    ------
    ParameterError
        Naming the part, and what it may be.
    """
    _refuse_keras(recipe.module)
    if not (isinstance(recipe.module, nn.Module) or callable(recipe.module)):
        raise ParameterError(f"module must be an nn.Module, or build one. Got {recipe.module!r} instead.")
    if isinstance(recipe.loss, type):
        name = recipe.loss.__name__
        raise ParameterError(f"loss is the class {name}; give an instance of it, such as {name}().")
    for name, value, known in (("loss", recipe.loss, LOSSES), ("optimizer", recipe.optimizer, OPTIMIZERS)):
        if isinstance(value, str):
            check(name, value, OneOf(known))
        elif isinstance(value, Optimizer):
            made = f"functools.partial(torch.optim.{type(value).__name__}, lr={value.defaults.get('lr')})"
            raise ParameterError(f"optimizer has parameters already; give what makes one for the module's: {made}.")
        elif not callable(value):
            raise ParameterError(f"{name} must be callable, or one of {', '.join(known)}. Got {value!r} instead.")
    if recipe.step_size is not None and not isinstance(recipe.optimizer, str):
        raise ParameterError("stepSize is for optimisers with a name; give an optimiser of PyTorch's its own lr.")
    if not (isinstance(recipe.scheduler, str) or callable(recipe.scheduler)):
        raise ParameterError(f"scheduler must be callable. Got {recipe.scheduler!r} instead.")
    if recipe.step is not None and not callable(recipe.step):
        raise ParameterError(f"step must be a function of (module, batch). Got {recipe.step!r} instead.")
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
