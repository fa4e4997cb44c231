"""Losses that PyTensor, Theano's successor, differentiates: the graph of one row, vectorised.

Where it has operations by elements only, NumPy's are called one after the other: they take several numbers at once,
where compiled loops take each exponential and logarithm by itself, and there is nothing to compile in each process.
Other graphs are compiled as PyTensor does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.basic import Join
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.subtensor import Subtensor

from sparkopt.losses.expression import RowFunction
from sparkopt.typing import Array

__all__ = ["ERRORS", "HINT", "compiled"]

ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
HINT = "with pt.switch in place of if"

BY_ELEMENTS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Abs": np.abs,
        "Add": lambda *terms: _folded(np.add, terms),
        "Exp": np.exp,
        "Expm1": np.expm1,
        "GE": np.greater_equal,
        "GT": np.greater,
        "LE": np.less_equal,
        "LT": np.less,
        "Log": np.log,
        "Log1p": np.log1p,
        "Maximum": np.maximum,
        "Minimum": np.minimum,
        "Mul": lambda *factors: _folded(np.multiply, factors),
        "Neg": np.negative,
        "Pow": np.power,
        "Reciprocal": np.reciprocal,
        "Sigmoid": lambda x: np.reciprocal(1 + np.exp(-x)),
        "Sign": np.sign,
        "Softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        "Sqr": np.square,
        "Sqrt": np.sqrt,
        "Sub": np.subtract,
        "Switch": np.where,
        "Tanh": np.tanh,
        "TrueDiv": np.true_divide,
    }
)
"""PyTensor's operations by elements, and NumPy's of floats."""


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
            self._programs[key] = _program(inputs, [pt.cast(one, kind) for one in outputs])
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


def _program(inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """Return what computes the outputs."""
    mode = Mode(linker="py", optimizer="fast_run").excluding("fusion", "inplace")
    graph = pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore").maker.fgraph
    functions = [_on_arrays(node) for node in graph.toposort()]
    own = [function for function in functions if function is not None]
    is_whole = len(own) == len(functions) and all(one.owner for one in graph.outputs)
    if is_whole and len(graph.inputs) == len(inputs):  # more are variables that the function shares
        return _in_turn(graph, own)
    compiled: Callable[..., Any] = pytensor.function(inputs, outputs, on_unused_input="ignore")
    return compiled


def _in_turn(graph: Any, functions: Sequence[Callable[..., Any]]) -> Callable[..., list[Array]]:
    """Return a function that calls those of a graph's steps one after the other."""
    nodes = graph.toposort()
    constants = {one: one.data for node in nodes for one in node.inputs if isinstance(one, Constant)}
    steps = [(node.outputs[0], function, node.inputs) for node, function in zip(nodes, functions, strict=True)]

    def run(*arrays: Array) -> list[Array]:
        values = {**constants, **dict(zip(graph.inputs, arrays, strict=True))}
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            for found, function, given in steps:
                values[found] = function(*[values[one] for one in given])
        return [values[one] for one in graph.outputs]

    return run


def _on_arrays(node: Any) -> Callable[..., Any] | None:
    """Return NumPy's function for a step, or None."""
    op = node.op
    if len(node.outputs) > 1:
        return None
    if isinstance(op, (DimShuffle, Subtensor, Join)):
        return _performed(node)
    if not isinstance(op, Elemwise):
        return None
    name = type(op.scalar_op).__name__
    if name == "Cast":
        kind = np.dtype(node.outputs[0].dtype)
        return lambda values: values.astype(kind)
    is_float = node.outputs[0].dtype.startswith("float") or name in ("GE", "GT", "LE", "LT")
    return BY_ELEMENTS.get(name) if is_float else None


def _performed(node: Any) -> Callable[..., Any]:
    """Return the step as PyTensor takes it in Python."""

    def perform(*given: Any) -> Any:
        found: list[list[Any]] = [[None] for _ in node.outputs]
        node.op.perform(node, list(given), found)
        return found[0][0]

    return perform


def _folded(function: Any, values: Sequence[Any]) -> Any:
    first, *others = values
    for other in others:
        first = function(first, other)
    return first


def _joined(parts: Sequence[Any]) -> Any:
    """Return what belongs to the columns of raw predictions, in their shape."""
    if len(parts) == 1:
        return parts[0]
    return pt.concatenate([part if part.ndim > 1 else part[:, None] for part in parts], axis=1)
