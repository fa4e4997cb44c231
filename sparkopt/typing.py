"""Types that all packages use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Floats", "Schedule", "Seed", "State"]

Array: TypeAlias = NDArray[Any]
"""An array of any type."""

Floats: TypeAlias = NDArray[np.float64]
"""An array of float64."""

Schedule: TypeAlias = Callable[[int], float]
"""A function of the step number, from 0, that returns a positive number, such as a step size."""

Seed: TypeAlias = int
"""Seed of a random generator."""

State: TypeAlias = Any
"""Nested tuples, lists and dicts of arrays, numbers, strings and None: plain data, which a checkpoint can hold."""
