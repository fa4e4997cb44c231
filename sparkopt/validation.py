"""Constraints on parameters, and the check that raises the same wording everywhere.

Examples
--------
>>> from sparkopt.validation import Interval, OneOf, check
>>> check("stepSize", 0.1, Interval(0, None, closed="neither"))
0.1
>>> check("stepSize", -1, Interval(0, None, closed="neither"))
Traceback (most recent call last):
    ...
sparkopt.errors.ParameterError: stepSize must be > 0. Got -1 instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sparkopt.errors import ParameterError
from sparkopt.values import dataclass

__all__ = ["Constraint", "Interval", "OneOf", "check", "instances"]

T = TypeVar("T")


@runtime_checkable
class Constraint(Protocol):
    """A condition on a value. ``str()`` of it completes the sentence "the parameter must be ..."."""

    def accepts(self, value: object) -> bool:
        """Whether ``value`` satisfies the condition."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Interval:
    """Real or whole numbers between two bounds.

    Parameters
    ----------
    low, high : float or None
        The bounds; None is no bound. NaN is never accepted, an infinite value only where ``finite`` is False.
    closed : {"both", "left", "right", "neither"}, default "both"
        Which bounds belong to the interval.
    whole : bool, default False
        Accept whole numbers only.
    finite : bool, default True
        Refuse infinity.
    """

    low: float | None = None
    high: float | None = None
    closed: str = "both"
    whole: bool = False
    finite: bool = True

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is a number inside the interval."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond of what a float holds
            return False
        if math.isnan(number) or (self.finite and math.isinf(number)):
            return False
        above = self.low is None or number > self.low or (number == self.low and self._includes_low)
        below = self.high is None or number < self.high or (number == self.high and self._includes_high)
        return above and below

    def contains(self, values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """For each element of ``values`` (floating, any shape), whether it is inside the interval."""
        inside: NDArray[np.bool_] = np.isfinite(values) if self.finite else ~np.isnan(values)
        if self.low is not None:
            inside &= values >= self.low if self._includes_low else values > self.low
        if self.high is not None:
            inside &= values <= self.high if self._includes_high else values < self.high
        if self.whole:
            inside &= values == np.floor(values)
        return inside

    @property
    def _includes_low(self) -> bool:
        return self.closed in ("both", "left")

    @property
    def _includes_high(self) -> bool:
        return self.closed in ("both", "right")

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else ""
        if self.low is None and self.high is None:
            return kind or "a finite number"
        if self.high is None:
            bound = f"{'>=' if self._includes_low else '>'} {self.low:g}"
        elif self.low is None:
            bound = f"{'<=' if self._includes_high else '<'} {self.high:g}"
        else:
            left, right = "[" if self._includes_low else "(", "]" if self._includes_high else ")"
            bound = f"in {left}{self.low:g}, {self.high:g}{right}"
        return f"{kind} {bound}".strip()


@dataclass(frozen=True)
class OneOf:
    """One of a few options.

    Parameters
    ----------
    options : iterable
        The values that are accepted; an equal value of another type is not.
    """

    options: tuple[object, ...]

    def __init__(self, options: Iterable[object]) -> None:
        object.__setattr__(self, "options", tuple(options))

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is one of the options."""
        try:
            if value not in self.options:  # of fifty optimisers this takes a tenth of a loop's time
                return False
        except ValueError:  # an array, which is compared element by element
            return False
        if type(value) is type(self.options[self.options.index(value)]):
            return True
        return any(value == option and type(value) is type(option) for option in self.options)  # True is 1

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(option) for option in self.options)


def check(name: str, value: T, constraint: Constraint) -> T:
    """Return ``value`` if the constraint accepts it.

    Raises
    ------
    ParameterError
        The message names the parameter, its domain and the value.
    """
    if not constraint.accepts(value):
        raise ParameterError(f"{name} must be {constraint}. Got {value!r} instead.")
    return value


def instances(name: str, given: Any) -> tuple[Any, ...]:
    """Return callbacks, loggers and the like, of which a list is given.

    Raises
    ------
    ParameterError
        For one alone, and for a class.
    """
    if not isinstance(given, (list, tuple)):
        raise ParameterError(f"{name} must be a list. Got {given!r} instead; a single one is a list of one.")
    for one in given:
        if isinstance(one, type):
            raise ParameterError(
                f"{name} has the class {one.__name__}; give an instance of it, such as {one.__name__}()."
            )
    return tuple(given)
