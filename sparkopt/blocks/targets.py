"""Targets that are made of several label columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparkopt.typing import Array
from sparkopt.validation import Interval

__all__ = ["CensoredTimes"]

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
