"""Forms of transforms' parameters that are more than one number: ranges, values of channels, positions."""

from __future__ import annotations

from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.typing import Array
from sparkopt.validation import Constraint, Interval, check
from sparkopt.values import dataclass

__all__ = ["FILL", "Channels", "Fill", "Form", "Numbers", "Range", "as_values", "fill_values", "filled", "plain"]

Fill: TypeAlias = "float | tuple[float, ...]"
"""Value of pixels outside an image: one for all channels, or one for each."""


class Form:
    """What a parameter may look like, and what is kept of it."""

    def read(self, name: str, value: Any) -> Any:
        """Return the value as it is kept; ParameterError with a hint where it cannot be one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Range(Form):
    """Two numbers, (low, high), between which a parameter is drawn.

    Parameters
    ----------
    domain : Constraint
        What each number may be.
    symmetric : bool, default False
        Whether one number n stands for (−n, n), as in torchvision.
    single : bool, default False
        Whether one number is a value that is not drawn.
    """

    domain: Constraint
    symmetric: bool = False
    single: bool = False

    def read(self, name: str, value: Any) -> Any:
        """Return (low, high), or one number where that is a value."""
        if self.single and not isinstance(value, tuple):
            return check(name, value, self.domain)
        if self.symmetric and isinstance(value, Real) and not isinstance(value, bool):
            check(name, value, Interval(0, None))
            value = (-value, value)
        if not isinstance(value, tuple) or len(value) != 2:
            hint = "one number n stands for (-n, n)" if self.symmetric else "write one value twice for no choice"
            raise ParameterError(f"{name} must be a range (low, high); {hint}. Got {value!r} instead.")
        for number in value:
            check(name, number, self.domain)
        if value[0] > value[1]:
            raise ParameterError(
                f"{name} must be a range (low, high) with low <= high. Got {value!r} instead; did you mean "
                f"({value[1]!r}, {value[0]!r})?"
            )
        return value


@dataclass(frozen=True)
class Numbers(Form):
    """A fixed number of values, such as x and y."""

    domain: Constraint
    names: tuple[str, ...] = ("x", "y")

    def read(self, name: str, value: Any) -> Any:
        """Return the numbers."""
        if not isinstance(value, tuple) or len(value) != len(self.names):
            raise ParameterError(f"{name} must be numbers ({', '.join(self.names)}). Got {value!r} instead.")
        for number in value:
            check(name, number, self.domain)
        return value


@dataclass(frozen=True)
class Channels(Form):
    """One number for all channels, or 1, 3 or 4: one for each."""

    domain: Constraint

    def read(self, name: str, value: Any) -> Any:
        """Return the number or the numbers."""
        numbers = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and len(value) not in (1, 3, 4):
            raise ParameterError(f"{name} must be one number or 1, 3 or 4, one a channel. Got {value!r} instead.")
        for number in numbers:
            check(name, number, self.domain)
        return value


FILL = Channels(Interval())


def fill_values(fill: Fill, channels: int) -> tuple[float, ...]:
    """Return a fill value for each channel.

    Raises
    ------
    ParameterError
        Where there are several values, but not one for each channel.
    """
    if not isinstance(fill, tuple):
        return (fill,) * channels
    if len(fill) == 1:
        return fill * channels
    if len(fill) != channels:
        raise ParameterError(f"fill has {len(fill)} values, but the image has {channels} channels.")
    return fill


def plain(value: Any) -> Any:
    """Return lists and arrays as tuples, and NumPy's scalars as Python's: values that can be compared and written."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        return value.item()
    return tuple(plain(item) for item in value) if isinstance(value, list | tuple) else value


def filled(shape: tuple[int, ...], fill: Fill | None, dtype: Any) -> Array:
    """Return an image of one colour, of shape (height, width, channels)."""
    output: Array = np.empty(shape, dtype)
    output[...] = as_values(fill or 0.0, shape[2], np.dtype(dtype))
    return output


def as_values(fill: Fill, channels: int, dtype: Any) -> Array:
    """Return a fill value for each channel, clipped to what a type of whole numbers holds, as OpenCV does."""
    values: Array = np.array(fill_values(fill, channels))
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        values = np.clip(values, limits.min, limits.max)
    return values.astype(dtype)
