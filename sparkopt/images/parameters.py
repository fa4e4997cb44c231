"""Forms of transforms' parameters that are more than one number: ranges, values of channels, positions."""

from __future__ import annotations

from contextlib import suppress
from numbers import Real
from typing import Any, TypeAlias, TypeVar

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.other_names import OTHER_VALUES
from sparkopt.typing import Array
from sparkopt.validation import Constraint, Interval, OneOf
from sparkopt.values import dataclass

__all__ = [
    "AS_OTHER",
    "FILL",
    "Channels",
    "Each",
    "Fill",
    "Form",
    "Numbers",
    "Odd",
    "Range",
    "as_values",
    "checked",
    "fill_values",
    "filled",
    "plain",
    "shown",
]

Fill: TypeAlias = "float | tuple[float, ...]"
"""Value of pixels outside an image: one for all channels, or one for each."""

AS_OTHER: Any = None
"""Default of a field of which ``ImageTransform.same`` names the one that it is equal to."""

T = TypeVar("T")


def checked(name: str, value: T, domain: Constraint) -> T:
    """Return ``value`` if the domain accepts it.

    Raises
    ------
    ParameterError
        The message names the parameter, its domain and the value, and what to write where that is known.
    """
    if domain.accepts(value):
        return value
    hint = _hint(value, domain)
    raise ParameterError(f"{name} must be {domain}. Got {shown(value)} instead{hint and f'; {hint}'}.")


def _hint(value: Any, domain: Constraint) -> str:
    if isinstance(value, tuple):
        return "it is one value, not several"
    if isinstance(domain, Interval):
        return "a number, not its text" if isinstance(value, str) else ""
    text = getattr(value, "value", value)  # an enumeration of names, such as torchvision's
    text = text.lower().strip(".") if isinstance(text, str) else ""
    options = domain.options if isinstance(domain, OneOf) else ()
    ours = next((one for one in (text, OTHER_VALUES.get(text)) if one in options), None)
    return f"take {ours!r}" if ours else ""


def shown(value: Any) -> str:
    """Return a value as errors show it: on one line, and its type where that is too long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a number of thousands of digits
        return f"a large {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … of type {type(value).__name__}"


_SHOWN = 200


@dataclass(frozen=True)
class Odd:
    """Odd numbers between two bounds, and maybe 0."""

    low: int
    high: int
    or_zero: bool = False

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is such a number."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return (self.or_zero and value == 0) or (value % 2 == 1 and self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{'0 or ' if self.or_zero else ''}an odd number in [{self.low}, {self.high}]"


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
            return checked(name, value, self.domain)
        if self.symmetric and isinstance(value, Real) and not isinstance(value, bool):
            checked(name, value, Interval(0, None))
            value = (-value, value)
        if not isinstance(value, tuple) or len(value) != 2:
            hint = "one number n stands for (-n, n)" if self.symmetric else "write one value twice for no choice"
            raise ParameterError(f"{name} must be a range (low, high); {hint}. Got {shown(value)} instead.")
        for number in value:
            checked(name, number, self.domain)
        if value[0] > value[1]:
            raise ParameterError(
                f"{name} must be a range (low, high) with low <= high. Got {shown(value)} instead; did you mean "
                f"({value[1]!r}, {value[0]!r})?"
            )
        return value


@dataclass(frozen=True)
class Numbers(Form):
    """A fixed number of values, such as x and y; ``hint`` is what to write where one of them cannot be."""

    domain: Constraint
    names: tuple[str, ...] = ("x", "y")
    hint: str = ""

    def read(self, name: str, value: Any) -> Any:
        """Return the numbers."""
        if not isinstance(value, tuple) or len(value) != len(self.names):
            twice = isinstance(value, Real) and not isinstance(value, bool)
            hint = f"; for all alike, {shown((value,) * len(self.names))}" if twice else ""
            raise ParameterError(
                f"{name} must be numbers ({', '.join(self.names)}). Got {shown(value)} instead{hint}."
            )
        for number in value:
            if self.hint and isinstance(number, Real) and not self.domain.accepts(number):
                raise ParameterError(f"{name} must be {self.domain}. Got {shown(value)} instead; {self.hint}.")
            checked(name, number, self.domain)
        return value


@dataclass(frozen=True)
class Each(Form):
    """Numbers, as many as there are others that they belong to."""

    domain: Constraint
    of: str

    def read(self, name: str, value: Any) -> Any:
        """Return the numbers."""
        if not isinstance(value, tuple):
            raise ParameterError(f"{name} must be a list of numbers, one {self.of}. Got {shown(value)} instead.")
        for number in value:
            checked(name, number, self.domain)
        return value


@dataclass(frozen=True)
class Channels(Form):
    """One number for all channels, or 1, 3 or 4: one for each."""

    domain: Constraint

    def read(self, name: str, value: Any) -> Any:
        """Return the number or the numbers."""
        numbers = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and len(value) not in (1, 3, 4):
            raise ParameterError(
                f"{name} must be one number or 1, 3 or 4, one a channel. Got {shown(value)} instead."
            )
        for number in numbers:
            checked(name, number, self.domain)
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


_PLAIN = frozenset({bool, int, float, str})


def plain(value: Any) -> Any:
    """Return lists and arrays as tuples, and NumPy's scalars as Python's: values that can be compared and written."""
    if type(value) in _PLAIN:  # most are; policies make transforms for each image
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        return value.item()
    elif isinstance(value, Real) and not isinstance(value, int | float):
        with suppress(OverflowError):  # a fraction, say, which JSON does not have
            return float(value)
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
