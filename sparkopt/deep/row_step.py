"""A step of the user's own: what it is given, and what it must give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sparkopt.deep.losses import RowLoss
from sparkopt.deep.mixing import paired
from sparkopt.errors import ParameterError
from sparkopt.values import dataclass

__all__ = ["LossOfRows", "LossOfStep", "StepBatch", "chosen_output"]


@dataclass(frozen=True)
class StepBatch:
    """The rows that a step of the user's own is given.

    Attributes
    ----------
    inputs : tuple of Tensor
        One for each feature column or group of them, (rows, …); a padded column is followed by its mask.
    labels : tuple of Tensor
        One for each of ``labelCols``, or that of ``labelCol``, (rows, …).

    Examples
    --------
    >>> import torch
    >>> batch = StepBatch((torch.zeros(4, 2),), (torch.ones(4),))
    >>> len(batch), batch.label.shape
    (4, torch.Size([4]))
    """

    inputs: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs[0])

    @property
    def label(self) -> torch.Tensor:
        """The first label."""
        return self.labels[0]


class LossOfStep(nn.Module):
    """The network and a step as one: losses of rows from inputs and labels.

    Parameters
    ----------
    module : nn.Module
        The network.
    step : callable
        From the network and a `StepBatch` to the rows' losses.
    autocast : callable
        The precision of the forward pass.
    """

    def __init__(
        self,
        module: nn.Module,
        step: Callable[[nn.Module, StepBatch], torch.Tensor],
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        super().__init__()
        self.module, self._step, self._autocast = module, step, autocast

    def forward(self, inputs: tuple[torch.Tensor, ...], labels: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the losses (rows,)."""
        batch = StepBatch(tuple(inputs), tuple(labels))
        with self._autocast():
            losses = self._step(self.module, batch)
        if not isinstance(losses, torch.Tensor) or losses.shape != (len(batch),):
            gives = tuple(losses.shape) if isinstance(losses, torch.Tensor) else f"a {type(losses).__name__}"
            raise ParameterError(
                f"step gives {gives} for {len(batch)} rows; it must give one loss a row, ({len(batch)},). Leave out "
                "the last mean: a step's loss is the mean over the rows of all processes."
            )
        return losses.float()


def chosen_output(output: Any, key: str | None) -> torch.Tensor:
    """Return the part of a module's output that is the prediction.

    Parameters
    ----------
    output : object
        A tensor, a mapping, a tuple or list, or an object with attributes.
    key : str or None
        Its key, position or attribute; None where the output is one tensor.

    Raises
    ------
    ParameterError
        Where there is no such part, or it is no tensor.
    """
    found = output if key is None else _part(output, key)
    if isinstance(found, torch.Tensor):
        return found
    if key is not None:
        raise ParameterError(f"outputKey={key!r} is a {type(found).__name__} in the module's output; name a tensor.")
    names = ", ".join(repr(name) for name in _names(output))
    hint = f" Set outputKey to the part that is the prediction: {names}." if names else ""
    raise ParameterError(f"the module must return one tensor. It returns a {type(output).__name__}.{hint}")


def _part(output: Any, key: str) -> Any:
    names = _names(output)
    if key not in names:
        has = ", ".join(map(repr, names)) or f"none: it is a {type(output).__name__}"
        raise ParameterError(f"outputKey={key!r} is no part of the module's output, which has {has}.")
    if isinstance(output, Mapping):
        return output[key]
    return output[int(key)] if key.isdigit() else getattr(output, key)


def _names(output: Any) -> list[str]:
    """Return the names of the parts of an output."""
    if isinstance(output, torch.Tensor):
        return []
    if isinstance(output, Mapping):
        return [name for name in output if isinstance(name, str)]
    numbers = [str(number) for number in range(len(output))] if isinstance(output, (list, tuple)) else []
    return [*getattr(output, "_fields", ()), *getattr(output, "__dict__", ()), *numbers]


class LossOfRows(nn.Module):
    """The network and its loss as one: both may have parameters, whose gradients are averaged over the ranks."""

    def __init__(
        self,
        module: nn.Module,
        loss: RowLoss,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
        is_mixed: bool = False,
        key: str | None = None,
    ) -> None:
        super().__init__()
        self.module, self.loss, self._autocast, self._is_mixed, self._key = module, loss, autocast, is_mixed, key

    def forward(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        """Return the losses (rows,); of mixed rows (2 rows,), each row's own and then its partner's."""
        with self._autocast():
            output = chosen_output(self.module(*inputs), self._key)
        if self._is_mixed:
            output = paired(output)
        losses: torch.Tensor = self.loss(output, target)
        return losses
