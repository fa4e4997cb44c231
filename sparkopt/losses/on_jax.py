"""Losses that JAX differentiates, on the CPU: ``jit`` of ``vmap`` of ``value_and_grad``.

JAX compiles for each number of rows, so blocks are padded to one of few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.experimental
import numpy as np
from jax import numpy as jnp

from sparkopt.losses.expression import RowFunction
from sparkopt.typing import Array

__all__ = ["ERRORS", "HINT", "compiled"]

ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
HINT = "with jnp.where in place of if"
STEPS = 8
"""Numbers of rows between one power of two and the next, so that padding adds an eighth at most."""


class _JaxDerivatives:
    """The programs of a loss, which JAX keeps by shape and type."""

    def __init__(self, row: RowFunction) -> None:
        self._row = row
        self._value_gradient = jax.jit(self._values_and_slopes)
        self._hessian_product = jax.jit(self._products)
        self._predict = jax.jit(lambda raw: (jax.vmap(row.prediction)(raw),))

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        value, gradient = _call(self._value_gradient, y, raw)
        return value, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        (product,) = _call(self._hessian_product, y, raw, direction)
        return product

    def predict(self, raw: Array) -> Array:
        (prediction,) = _call(self._predict, raw)
        return prediction

    def _values_and_slopes(self, y: Any, raw: Any) -> tuple[Any, Any]:
        columns = self._row.columns(raw)
        places = tuple(range(1, 1 + len(columns)))
        value, slopes = jax.vmap(jax.value_and_grad(self._row.loss, argnums=places))(y, *columns)
        return value, _joined(slopes)

    def _products(self, y: Any, raw: Any, direction: Any) -> tuple[Any]:
        columns, along = self._row.columns(raw), self._row.columns(direction)
        count = len(columns)
        slopes = jax.grad(self._row.loss, argnums=tuple(range(1, 1 + count)))

        def product(label: Any, *arguments: Any) -> Any:
            def at(*point: Any) -> Any:
                return slopes(label, *point)

            return jax.jvp(at, arguments[:count], arguments[count:])[1]

        return (_joined(jax.vmap(product)(y, *columns, *along)),)


def compiled(row: RowFunction) -> _JaxDerivatives:
    """Return the loss of all rows."""
    return _JaxDerivatives(row)


def _joined(parts: tuple[Any, ...]) -> Any:
    """Return what belongs to the columns of raw predictions, in their shape."""
    if len(parts) == 1:
        return parts[0]
    return jnp.concatenate([part if part.ndim > 1 else part[:, None] for part in parts], axis=1)


def _call(program: Callable[..., Any], *arrays: Array) -> list[Array]:
    """Call a program with rows that are repeated up to a number of which there are few."""
    rows = len(arrays[0])
    wanted = _padded(rows)
    padded = arrays if wanted == rows else [_repeated(array, wanted) for array in arrays]
    with _on_cpu():
        return [np.asarray(found)[:rows] for found in program(*padded)]  # views, which may not be written to


def _repeated(array: Array, wanted: int) -> Array:
    """Return so many rows, of which the last ones repeat the last one given."""
    found = np.empty((wanted, *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    found[len(array) :] = array[-1]
    return found


def _padded(rows: int) -> int:
    """Return the number of rows that a program is compiled for."""
    unit = max(1, (1 << max(0, rows - 1).bit_length()) // (2 * STEPS))
    return max(1, -(-rows // unit) * unit)


@contextmanager
def _on_cpu() -> Iterator[None]:
    """Compute on the CPU, with doubles where they are given; the user's own settings stay."""
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # of earlier versions
    with enable(True), jax.default_device(_cpu()):
        yield


@cache
def _cpu() -> Any:
    return jax.devices("cpu")[0]
