"""Whether labels fit the loss: what was written is compared with what the loss takes, before anything is trained."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from sparkopt.deep.losses import RowLoss
from sparkopt.errors import DataError
from sparkopt.shards.index import LabelFacts

__all__ = ["check_labels"]

_SIGNS = (nn.SoftMarginLoss, nn.HingeEmbeddingLoss)


def check_labels(loss: RowLoss, labels: LabelFacts, output: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Refuse labels that the loss does not take.

    Parameters
    ----------
    loss : RowLoss
        The loss.
    labels : LabelFacts
        The smallest and the largest label that were written, and where.
    output, target : tuple of int
        Shapes of a row's output and label.

    Raises
    ------
    DataError
        Naming the label, its place, and what the loss takes.
    """
    if loss.task == "classes":
        if len(target) < len(output):
            _check_classes(loss, labels, output[0])
        else:
            _check_range(labels, 0, 1, "probabilities of the classes, or, without the lists, whole numbers from 0")
    elif loss.task in ("binary", "probability"):
        _check_range(labels, 0, 1, "labels from 0 to 1")
    elif loss.task == "counts":
        _check_range(labels, 0, None, "counts >= 0")
    elif isinstance(loss.loss, _SIGNS) or loss.loss is F.soft_margin_loss:
        _check_signs(labels)


def _check_classes(loss: RowLoss, labels: LabelFacts, classes: int) -> None:
    takes = f"the loss takes the whole numbers 0 to {classes - 1}, one for each of the module's {classes} outputs"
    if labels.fraction is not None:
        raise DataError(f"{labels.fraction}; {takes}.")
    low, high = labels.least, labels.most
    if high >= classes:
        is_shifted = low == 1 and high == classes
        hint = " The labels begin at 1: subtract 1." if is_shifted else " Give the module more outputs?"
        raise DataError(f"{labels.most_at} is {high:g}; {takes}.{hint}")
    if low < 0:
        hint = " Give labels -1 and 1 as 0 and 1." if (low, high) == (-1, 1) else ""
        raise DataError(f"{labels.least_at} is {low:g}; {takes}.{hint}")


def _check_range(labels: LabelFacts, low: float, high: float | None, takes: str) -> None:
    signs = " Give labels -1 and 1 as 0 and 1." if (labels.least, labels.most) == (-1, 1) and high == 1 else ""
    if labels.least < low:
        raise DataError(f"{labels.least_at} is {labels.least:g}; the loss takes {takes}.{signs}")
    if high is not None and labels.most > high:
        shifted = " The labels begin at 1: subtract 1." if (labels.least, labels.most) == (1, 2) else ""
        raise DataError(f"{labels.most_at} is {labels.most:g}; the loss takes {takes}.{shifted}")


def _check_signs(labels: LabelFacts) -> None:
    odd = labels.zero or labels.fraction
    if labels.least < -1:
        odd = f"{labels.least_at} is {labels.least:g}"
    elif labels.most > 1:
        odd = f"{labels.most_at} is {labels.most:g}"
    if odd is not None:
        raise DataError(f"{odd}; the loss takes -1 and 1.")
