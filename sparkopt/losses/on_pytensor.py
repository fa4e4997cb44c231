"""Losses that PyTensor, Theano's successor, differentiates: the graph of one row, vectorised and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import vectorize_graph

from sparkopt.losses.expression import RowFunction
from sparkopt.typing import Array

__all__ = ["ERRORS", "HINT", "compiled"]

ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
HINT = "with pt.switch in place of if"


class _PytensorDerivatives:
    """The programs of a loss, by what they compute and the type of their numbers."""

    def __init__(self, row: RowFunction) -> None:
        self._row = row
        self._programs: dict[tuple[str, str], Callable[..., Any]] = {}

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        value, gradient = self._call(self._value_gradient, y, raw)
        return value, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        (product,) = self._call(self._hessian_product, y, raw, direction)
        return product

    def predict(self, raw: Array) -> Array:
        (prediction,) = self._call(self._predict, raw)
        return prediction

    def _call(self, graph: Callable[[str], Any], *arrays: Array) -> list[Array]:
        kind = arrays[0].dtype.name
        key = (graph.__name__, kind)
        if key not in self._programs:
            inputs, outputs = graph(kind)
            casted = [pt.cast(one, kind) for one in outputs]
            self._programs[key] = pytensor.function(inputs, casted, on_unused_input="ignore")
        found: list[Array] = self._programs[key](*arrays)
        return found

    def _value_gradient(self, kind: str) -> tuple[Any, Any]:
        label, arguments = pt.scalar(dtype=kind), self._arguments(kind)
        value = self._loss(label, arguments)
        slopes = pytensor.grad(value, arguments, disconnected_inputs="ignore")
        y, raw = self._rows(kind, 1)
        replaced = {label: y, **dict(zip(arguments, self._row.columns(raw), strict=True))}
        values, *found = vectorize_graph([value, *slopes], replace=replaced)
        return [y, raw], [values, _joined(found)]

    def _hessian_product(self, kind: str) -> tuple[Any, Any]:
        label, arguments, steps = pt.scalar(dtype=kind), self._arguments(kind), self._arguments(kind)
        slopes = pytensor.grad(self._loss(label, arguments), arguments, disconnected_inputs="ignore")
        along = sum((slope * step).sum() for slope, step in zip(slopes, steps, strict=True))
        second = pytensor.grad(along, arguments, disconnected_inputs="ignore")
        y, raw, direction = self._rows(kind, 2)
        replaced = {label: y, **dict(zip(arguments, self._row.columns(raw), strict=True))}
        replaced |= dict(zip(steps, self._row.columns(direction), strict=True))
        return [y, raw, direction], [_joined(vectorize_graph(second, replace=replaced))]

    def _predict(self, kind: str) -> tuple[Any, Any]:
        (output, *_), shape = self._arguments(kind), (None,) * (1 + (self._row.outputs > 1))
        raw = pt.tensor(dtype=kind, shape=shape)
        return [raw], [vectorize_graph(self._row.prediction(output), replace={output: raw})]

    def _arguments(self, kind: str) -> list[Any]:
        """Return the symbols of one row's raw prediction or predictions, and auxiliary parameters."""
        first = pt.scalar(dtype=kind) if self._row.outputs == 1 else pt.tensor(dtype=kind, shape=(self._row.outputs,))
        return [first, *(pt.scalar(dtype=kind) for _ in range(self._row.auxiliary))]

    def _rows(self, kind: str, tables: int) -> list[Any]:
        """Return the symbols of all rows' labels, and of so many arrays of the shape of raw predictions."""
        width = () if self._row.is_single else (self._row.outputs + self._row.auxiliary,)
        return [pt.vector(dtype=kind), *(pt.tensor(dtype=kind, shape=(None, *width)) for _ in range(tables))]

    def _loss(self, label: Any, arguments: Sequence[Any]) -> Any:
        value = pt.as_tensor_variable(self._row.loss(label, *arguments))
        if value.ndim:
            raise TypeError(f"the function returns an array of {value.ndim} dimensions for a row.")
        return value


def compiled(row: RowFunction) -> _PytensorDerivatives:
    """Return the loss of all rows."""
    return _PytensorDerivatives(row)


def _joined(parts: Sequence[Any]) -> Any:
    """Return what belongs to the columns of raw predictions, in their shape."""
    if len(parts) == 1:
        return parts[0]
    return pt.concatenate([part if part.ndim > 1 else part[:, None] for part in parts], axis=1)
