"""Losses of rows: PyTorch's by name or as they are, with what their averages, weights and labels mean in PyTorch.

A step's loss is one mean over the rows of all ranks, whatever rank has which, so a loss gives two things for each
row: its value, and how much it counts in the mean. The latter is 1, but for class weights and ``ignore_index``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sparkopt.errors import DataError, ParameterError
from sparkopt.values import dataclass

__all__ = ["LOSSES", "TASKS", "RowLoss", "loss_of", "task_of"]

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

TASKS = ("classes", "binary", "probability", "counts", "values")
"""Meaning of an output: scores of classes; the logit, or the probability, of class 1 (of each label, where there are
several); the logarithm of a count; or the predicted values themselves."""

_REDUCTIONS = ("none", "mean", "sum", "batchmean")


@dataclass(frozen=True)
class _Family:
    """What losses of PyTorch with one meaning have in common."""

    task: str
    modules: tuple[type[nn.Module], ...]
    functions: tuple[Any, ...]


_FAMILIES = (
    _Family(
        "classes",
        (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss),
        (F.cross_entropy, F.nll_loss, F.multi_margin_loss),
    ),
    _Family(
        "binary",
        (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss),
        (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss),
    ),
    _Family("probability", (nn.BCELoss,), (F.binary_cross_entropy,)),
    _Family("counts", (nn.PoissonNLLLoss,), (F.poisson_nll_loss,)),
)
_AVERAGED_BY_WEIGHT = (nn.CrossEntropyLoss, nn.NLLLoss, F.cross_entropy, F.nll_loss)
"""Losses whose mean is over the classes' weights instead of the rows."""


def loss_of(loss: Any) -> Any:
    """Return a loss that was named as PyTorch's, and any other as it is."""
    return LOSSES[loss]() if isinstance(loss, str) else loss


def task_of(loss: Any) -> str:
    """Return what outputs mean under a loss: one of ``TASKS``."""
    function, _ = _unwrapped(loss)
    for family in _FAMILIES:
        if isinstance(loss, family.modules) or function in family.functions:
            is_log = family.task != "counts" or _setting(loss, "log_input", True)
            return family.task if is_log else "values"
    return "values"


def _unwrapped(loss: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return the function of a ``functools.partial``, and its arguments by name."""
    return (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})


def _setting(loss: Any, name: str, default: Any) -> Any:
    """Return a setting of a loss: an attribute of a module, an argument of a function."""
    return getattr(loss, name, default) if isinstance(loss, nn.Module) else _unwrapped(loss)[1].get(name, default)


class RowLoss(nn.Module):
    """A loss with one value a row.

    Parameters
    ----------
    loss : nn.Module or callable
        PyTorch's losses and functions with a ``reduction``, or any callable of (output, target) that gives one value,
        or one array of values, for each row.
    task : str
        Meaning of the outputs; class labels become whole numbers.
    label_kind : str, default "numbers"
        What labels are. A loss of the user's own is given masks as they are: int64, where they hold whole numbers.

    Attributes
    ----------
    reduction : {"mean", "sum", "batchmean"}
        How the loss was to be reduced over a batch: a step's gradient is that of the mean over all rows, or of their
        sum. With "sum" and "batchmean", the values of a row are added, otherwise averaged.
    classes : Tensor or None
        Weights of the classes, where the mean is over these.
    ignored : int or None
        The label whose rows do not count.
    is_of_torch : bool
        Whether it is one of PyTorch's, of which is known what labels it takes.
    """

    classes: torch.Tensor | None

    def __init__(self, loss: Any, task: str, label_kind: str = "numbers") -> None:
        super().__init__()
        self.task, self.is_of_torch = task, _is_of_torch(loss)
        self._of_mask = label_kind == "mask"
        self.reduction = _reduction(loss)
        by_weight = isinstance(loss, _AVERAGED_BY_WEIGHT[:2]) or _unwrapped(loss)[0] in _AVERAGED_BY_WEIGHT[2:]
        self.ignored: int | None = _setting(loss, "ignore_index", -100) if by_weight else None
        weight = _setting(loss, "weight", None) if by_weight else None
        self.register_buffer("classes", None if weight is None else weight.detach().clone(), persistent=False)
        if isinstance(loss, nn.Module):
            loss = copy.deepcopy(loss)
            if hasattr(loss, "reduction"):
                loss.reduction = "none"
        elif _takes_reduction(loss):
            loss = partial(loss, reduction="none")
        self.loss = loss

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the losses (rows,)."""
        output, target = self.aligned(output, target)
        try:
            found: torch.Tensor = self.loss(output, target)
        except IndexError as error:  # of a class that is none
            raise _no_class(target, output, error) from error
        if not isinstance(found, torch.Tensor) or not found.ndim or len(found) != len(target):
            gives = tuple(found.shape) if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
            raise ParameterError(
                f"the loss gives {gives} for {len(target)} rows; it must give one value a row. Let it "
                "take a 'reduction' argument as PyTorch's losses do, or return the rows' losses without averaging."
            )
        if found.ndim == 1:
            return found
        each = found.flatten(1)
        return each.mean(1) if self.reduction == "mean" else each.sum(1)

    def counts(self, target: torch.Tensor, output: Sequence[int]) -> torch.Tensor:
        """Return how much each row counts in a mean, (rows,): what PyTorch divides by.

        Parameters
        ----------
        target : Tensor of shape (rows, …)
            The labels.
        output : sequence of int
            Shape of a row's output; labels of as many dimensions are probabilities of classes.
        """
        target = _without_lists_of_one(target, output)
        if self.ignored is None or target.ndim > len(output):
            return torch.ones(len(target), device=target.device)
        target = target.long()
        kept = target != self.ignored
        share = kept.float() if self.classes is None else self.classes[torch.where(kept, target, 0)].float() * kept
        if share.ndim == 1:
            return share
        each = share.flatten(1)
        return each.mean(1) if self.reduction == "mean" else each.sum(1)

    def aligned(self, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output and target in the types and shapes that losses expect."""
        if not isinstance(output, torch.Tensor):
            raise ParameterError(f"the module must return one tensor. It returns a {type(output).__name__}.")
        output = output.float()
        if self.task == "classes":
            target = _without_lists_of_one(target, output.shape[1:])
            return output, target.long() if target.ndim < output.ndim else target.to(output.dtype)
        if self._of_mask and self.task == "values" and not self.is_of_torch:
            return output, target
        if self._of_mask and output.ndim == target.ndim + 1 and output.shape[1] == 1:
            output = output.squeeze(1)  # the one channel of a network of pixels
        if output.ndim == target.ndim + 1 and output.shape[-1] == 1:
            output = output.squeeze(-1)
        if target.ndim == output.ndim + 1 and target.shape[-1] == 1:
            target = target.squeeze(-1)
        if output.shape != target.shape and self.is_of_torch and isinstance(self.loss, nn.Module):
            raise DataError(
                f"the module gives {tuple(output.shape[1:])} a row where the label has {tuple(target.shape[1:])}."
            )
        return output, target.float()


def _no_class(target: torch.Tensor, output: torch.Tensor, error: IndexError) -> DataError:
    """Return what to say of a loss that finds no output for a label."""
    labels = f"{target.min():g} to {target.max():g}" if target.numel() else "none"
    return DataError(
        f"the loss fails on labels ({labels}), where the module gives {tuple(output.shape[1:])} a row: {error} Give "
        "the module an output for each class, or let the loss leave labels out by ignore_index."
    )


def _without_lists_of_one(target: torch.Tensor, output: Sequence[int]) -> torch.Tensor:
    """Return labels as one class a row, where they are lists of one and there are several classes."""
    is_list = target.ndim == 2 and target.shape[1] == 1 and len(output) == 1 and output[0] > 1
    return target[:, 0] if is_list else target


def _is_of_torch(loss: Any) -> bool:
    """Whether a loss is a class or a function of PyTorch's."""
    function, _ = _unwrapped(loss)
    found = type(loss) if isinstance(loss, nn.Module) else function
    return str(getattr(found, "__module__", "") or "").partition(".")[0] == "torch"


def _takes_reduction(function: Any) -> bool:
    try:
        return "reduction" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # what is written in C may not have one
        return False


def _reduction(loss: Any) -> str:
    """Return how a loss is reduced over a batch; one that is not is averaged."""
    found = _setting(loss, "reduction", "mean") or "mean"
    if not isinstance(found, str) or found not in _REDUCTIONS:
        raise ParameterError(f"the loss has reduction={found!r}; it must be one of {', '.join(_REDUCTIONS)}.")
    return "mean" if found == "none" else found
