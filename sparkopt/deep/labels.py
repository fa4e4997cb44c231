"""Whether labels fit the loss: what was written is compared with what the loss takes, before anything is trained.

Masks are not decoded before: the few rows on which a training is tried are looked at then, and others as they come.
"""

from __future__ import annotations

from dataclasses import field

import numpy as np
from torch import nn
from torch.nn import functional as F

from sparkopt.deep.losses import RowLoss
from sparkopt.errors import DataError
from sparkopt.shards.index import LabelFacts
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["MaskCheck", "check_labels", "mask_facts"]

_SIGNS = (nn.SoftMarginLoss, nn.HingeEmbeddingLoss)


def _takes_any_mask(loss: RowLoss) -> bool:
    """Whether a loss is of values, or one of the user's own, which may leave labels out by itself."""
    return not loss.is_of_torch or (loss.task == "values" and not _takes_signs(loss))


def _takes_signs(loss: RowLoss) -> bool:
    return isinstance(loss.loss, _SIGNS) or loss.loss is F.soft_margin_loss


def mask_facts(mask: Array, place: str, ignored: int | None, fill: float) -> LabelFacts:
    """Return what labels a mask has, apart from the one that is ignored; ``fill`` is that of pixels outside."""
    kept = mask.reshape(-1) if ignored is None else mask[mask != ignored]
    if not kept.size:
        return LabelFacts(fill=fill)
    at, odd = f"{place}: a pixel", kept[kept != np.floor(kept)][:1] if mask.dtype.kind == "f" else kept[:0]
    fraction = f"{at} is {odd[0]:g}" if odd.size else None
    zero = f"{at} is 0" if (kept == 0).any() else None
    return LabelFacts(float(kept.min()), float(kept.max()), at, at, fraction, zero, fill=fill)


@dataclass(frozen=True)
class MaskCheck:
    """Refuses masks that a loss does not take, as ``check_labels`` does; a function for `Decoder`.

    Parameters
    ----------
    loss : RowLoss
        The loss.
    output : tuple of int
        Shape of a row's output.
    fill : float
        Label of pixels outside of the image.
    """

    loss: RowLoss
    output: tuple[int, ...]
    fill: float = 0.0
    _most: int | None = field(init=False, default=None)

    @classmethod
    def of(cls, loss: RowLoss, output: tuple[int, ...], fill: float) -> MaskCheck | None:
        """Return what looks at the masks of a loss; None where it takes any, or is the user's own."""
        return None if _takes_any_mask(loss) else cls(loss, output, fill)

    def __post_init__(self) -> None:
        limits = {"classes": self.output[0] - 1 if self.output else 0, "binary": 1, "probability": 1}
        object.__setattr__(self, "_most", limits.get(self.loss.task))

    def __call__(self, mask: Array, place: str) -> None:
        """Look at a mask (height, width), of any type of numbers.

        Raises
        ------
        DataError
            Naming its place, the label, and what the loss takes.
        """
        if self._most is not None and mask.dtype.kind in "iu":  # nearly all are, and most are bytes
            odd = mask.view(f"u{mask.itemsize}") > self._most  # as what is below 0 is too, without its sign
            if self.loss.ignored is not None:
                odd &= mask != self.loss.ignored
            if not odd.any():
                return
        check_labels(self.loss, mask_facts(mask, place, self.loss.ignored, self.fill), self.output, mask.shape)


def check_labels(loss: RowLoss, labels: LabelFacts, output: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Refuse labels that the loss does not take.

    Parameters
    ----------
    loss : RowLoss
        The loss.
    labels : LabelFacts
        The smallest and the largest label, and where.
    output, target : tuple of int
        Shapes of a row's output and label.

    Raises
    ------
    DataError
        Naming the label, its place, and what the loss takes.
    """
    if labels.fill is not None and _takes_any_mask(loss):
        return
    if loss.task == "classes":
        if len(target) < len(output):
            _check_classes(loss, labels, output[0])
        else:
            _check_range(labels, 0, 1, "probabilities of the classes, or, without the lists, whole numbers from 0")
    elif loss.task in ("binary", "probability"):
        _check_range(labels, 0, 1, "labels from 0 to 1")
    elif loss.task == "counts":
        _check_range(labels, 0, None, "counts >= 0")
    elif _takes_signs(loss):
        _check_signs(labels)


def _check_classes(loss: RowLoss, labels: LabelFacts, classes: int) -> None:
    takes = f"the loss takes the whole numbers 0 to {classes - 1}, one for each of the module's {classes} outputs"
    if labels.fraction is not None:
        raise DataError(f"{labels.fraction}; {takes}.")
    low, high = labels.least, labels.most
    if high >= classes:
        is_shifted = low == 1 and high == classes
        hint = " The labels begin at 1: subtract 1." if is_shifted else " Give the module more outputs?"
        hint = hint if labels.fill is None else _left_out(high, labels.fill)
        raise DataError(f"{labels.most_at} is {high:g}; {takes}.{hint}")
    if low < 0:
        hint = " Give labels -1 and 1 as 0 and 1." if (low, high) == (-1, 1) else ""
        hint = hint if labels.fill is None else _left_out(low, labels.fill)
        raise DataError(f"{labels.least_at} is {low:g}; {takes}.{hint}")


def _left_out(found: float, fill: float) -> str:
    """Return what to do about a label of pixels that is no class."""
    if found == fill:
        return (
            f" That is maskFill, the label of pixels outside of the image: let the loss leave it out by "
            f"ignore_index={found:g}, or set maskFill to a class."
        )
    more = " Give the module more outputs, or let" if found > 0 else " Let"
    return f"{more} the loss leave such pixels out by ignore_index={found:g}."


def _check_range(labels: LabelFacts, low: float, high: float | None, takes: str) -> None:
    signs = " Give labels -1 and 1 as 0 and 1." if (labels.least, labels.most) == (-1, 1) and high == 1 else ""
    if labels.least < low:
        raise DataError(f"{labels.least_at} is {labels.least:g}; the loss takes {takes}.{signs}")
    if high is not None and labels.most > high:
        shifted = " The labels begin at 1: subtract 1." if (labels.least, labels.most) == (1, 2) else ""
        shifted = shifted if labels.fill is None else " Divide a mask of 0 and 255 by 255."
        raise DataError(f"{labels.most_at} is {labels.most:g}; the loss takes {takes}.{shifted}")


def _check_signs(labels: LabelFacts) -> None:
    odd = labels.zero or labels.fraction
    if labels.least < -1:
        odd = f"{labels.least_at} is {labels.least:g}"
    elif labels.most > 1:
        odd = f"{labels.most_at} is {labels.most:g}"
    if odd is not None:
        raise DataError(f"{odd}; the loss takes -1 and 1.")
