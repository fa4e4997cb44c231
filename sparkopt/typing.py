"""The few types that everything else is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Floats", "Schedule", "Seed", "State"]

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]

Schedule: TypeAlias = Callable[[int], float]
"""Step number, from 0, to a positive number (a step size, say)."""

Seed: TypeAlias = int

State: TypeAlias = Any
"""Nested tuples, lists and dicts of arrays, numbers, strings and None: data, fit for a checkpoint."""
