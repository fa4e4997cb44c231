"""Axes: from values to positions in a picture, and the ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from sparkopt.values import dataclass

__all__ = ["Axis"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    low, high : float
        The values at its ends, ``low < high``.
    start, end : float
        The positions of its ends, in the picture's units.
    log : bool
        Whether equal ratios, not equal differences, are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, *, zero: bool = False, log: bool = False
    ) -> Axis:
        """Return an axis that holds ``values``, and zero where asked to; one value gets room around it."""
        low, high = min([*values, 0.0] if zero else values), max(values)
        if low == high:
            room = abs(low) / 2 or 1.0
            low, high = low if zero else low - room, high + room
        return cls(low, high, start, end, log and low > 0)

    def rounded(self) -> Axis:
        """Return the axis with round values at its ends."""
        if self.log:
            return self
        step = self._step(5)
        low, high = math.floor(self.low / step + 1e-9) * step, math.ceil(self.high / step - 1e-9) * step
        return replace(self, low=low, high=high)

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round values."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            digits = (1,) if last - first > count else (1, 2, 5)
            skip = max(1, math.ceil((last - first) / (2 * count)))
            found = [
                digit * 10.0**power
                for power in range(first, last + 1)
                if power % skip == 0
                for digit in digits
                if self.low <= digit * 10.0**power <= self.high
            ]
            if len(found) > 1:
                return found
        step = self._step(count)
        first_tick = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first_tick, math.floor(self.high / step + 1e-9) + 1)]

    def _step(self, count: int) -> float:
        """Return the next of 1, 2, 2.5, 5 times a power of ten, so that there are at most ``count`` steps."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        return next(power * digit for digit in (1.0, 2.0, 2.5, 5.0, 10.0) if power * digit >= rough * (1 - 1e-9))

    def labels(self, ticks: Sequence[float]) -> list[str]:
        """Return the ticks as text, with as many digits as tell them apart."""
        largest = max((abs(tick) for tick in ticks), default=0.0)
        if self.log or largest >= 1e7 or 0 < largest < 1e-4:
            return [f"{tick:g}" for tick in ticks]
        gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
        digits = min(9, max(0, -math.floor(math.log10(gap) + 1e-9)))
        digits += round(gap * 10**digits, 6) % 1 != 0  # a step of 0.25 needs its second digit
        return [f"{tick:,.{digits}f}" for tick in ticks]
