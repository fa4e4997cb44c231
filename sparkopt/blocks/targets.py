"""Targets that are made of several label columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparkopt.typing import Array
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["CensoredTimes", "LabelBits"]

BIT = Interval(0, 1, whole=True)


@dataclass(frozen=True)
class CensoredTimes:
    """Survival times, negative where they are censored: the further label is 1 where the time was observed, else 0.

    Examples
    --------
    >>> import numpy as np
    >>> CensoredTimes()(np.array([3.0, 5.0]), [np.array([1.0, 0.0])]).tolist()
    [3.0, -5.0]
    """

    @property
    def targets(self) -> tuple[Interval, ...]:
        """0 and 1."""
        return (BIT,)

    def __call__(self, label: Array, more: Sequence[Array]) -> Array:
        """Return the times with their sign."""
        return np.where(more[0] == 1, label, -label)


@dataclass(frozen=True)
class LabelBits:
    """Several labels of 0 and 1 as the bits of one number, the first one last: float64 holds 52 of them exactly.

    Parameters
    ----------
    labels : int
        How many.

    Examples
    --------
    >>> import numpy as np
    >>> LabelBits(2)(np.array([1.0, 0.0, 1.0]), [np.array([0.0, 1.0, 1.0])]).tolist()
    [1.0, 2.0, 3.0]
    """

    labels: int

    @property
    def targets(self) -> tuple[Interval, ...]:
        """0 and 1, for each further label."""
        return (BIT,) * (self.labels - 1)

    def __call__(self, label: Array, more: Sequence[Array]) -> Array:
        """Return the numbers."""
        number = label.astype(np.float64)
        for place, bit in enumerate(more, 1):
            number += bit * 2.0**place
        return number
