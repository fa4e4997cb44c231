"""Losses that PyTorch differentiates: ``torch.func`` row by row, traced to one graph of operations on whole blocks.

The graph is what is left of ``vmap`` and ``grad``, without what they cost at each call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.func import grad, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from sparkopt.losses.expression import RowFunction
from sparkopt.typing import Array

__all__ = ["ERRORS", "HINT", "compiled"]

ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
HINT = "with torch.where in place of if, and torch.gather or cross_entropy in place of an index that is a tensor"
TRACED = 100_003
"""Rows that a graph is traced with: a prime, to be recognised where a graph has it or a multiple."""
GRAIN = 1 << 15
"""Numbers from which PyTorch uses threads, which the other tasks of a machine need."""


class _TorchDerivatives:
    """The graphs of a loss, by what they compute and the type of their numbers."""

    def __init__(self, row: RowFunction) -> None:
        self._row = row
        self._graphs: dict[tuple[str, torch.dtype], Callable[..., Any]] = {}

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        value, gradient = self._call(self._value_gradient, y, raw)
        return value, gradient

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        (product,) = self._call(self._hessian_product, y, raw, direction)
        return product

    def predict(self, raw: Array) -> Array:
        (prediction,) = self._call(self._predict, raw)
        return prediction

    def _call(self, function: Callable[..., Any], *arrays: Array) -> list[Array]:
        given = [torch.from_numpy(array) for array in arrays]
        key = (function.__name__, given[0].dtype)
        with torch.no_grad(), _one_thread(arrays[-1].size):
            if key not in self._graphs:
                self._graphs[key] = _traced(function, given)
            return [found.contiguous().numpy() for found in self._graphs[key](*given)]

    def _value_gradient(self, y: Any, raw: Any) -> tuple[Any, Any]:
        columns = self._row.columns(raw)
        places = tuple(range(1, 1 + len(columns)))
        slopes, value = vmap(grad_and_value(self._row.loss, argnums=places))(y, *columns)
        return value, self._joined(slopes)

    def _hessian_product(self, y: Any, raw: Any, direction: Any) -> tuple[Any]:
        columns, along = self._row.columns(raw), self._row.columns(direction)
        count = len(columns)

        def slope(label: Any, *arguments: Any) -> Any:
            at, to = arguments[:count], arguments[count:]
            slopes = grad(self._row.loss, argnums=tuple(range(1, 1 + count)))(label, *at)
            return sum((one * step).sum() for one, step in zip(slopes, to, strict=True))

        second = vmap(grad(slope, argnums=tuple(range(1, 1 + count))))(y, *columns, *along)
        return (self._joined(second),)

    def _predict(self, raw: Any) -> tuple[Any]:
        return (vmap(self._row.prediction)(raw),)

    def _joined(self, parts: tuple[Any, ...]) -> Any:
        """Return what belongs to the columns of raw predictions, in their shape."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part if part.ndim > 1 else part[:, None] for part in parts], dim=1)


def compiled(row: RowFunction) -> _TorchDerivatives:
    """Return the loss of all rows."""
    return _TorchDerivatives(row)


def _traced(function: Callable[..., Any], given: list[torch.Tensor]) -> Callable[..., Any]:
    """Return the graph of a function of rows, for any number of them."""
    examples = [torch.zeros((TRACED, *one.shape[1:]), dtype=one.dtype) for one in given]

    def of_rows(*arrays: torch.Tensor) -> Any:  # the tracer counts a bound method's self
        return function(*arrays)

    graph = make_fx(of_rows)(*examples)
    if any(size % TRACED == 0 for one in _constants(graph) for size in one.shape if size):
        return of_rows  # an array of rows is written into the graph: without one, each call is ten times the work
    _for_any_rows(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    forward: Callable[..., Any] = graph.forward
    return forward


def _constants(graph: torch.fx.GraphModule) -> list[torch.Tensor]:
    held = [*graph.buffers(), *graph.parameters(), *vars(graph).values()]
    return [one for one in held if isinstance(one, torch.Tensor)]


def _for_any_rows(graph: torch.fx.Graph) -> None:
    """Write the first input's length in place of the number of rows that a graph was traced with.

    The tracer's own symbols for lengths do not do it: ``vmap`` makes numbers of them.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        rows = graph.call_function(torch.ops.aten.sym_size.int, (inputs[0], 0))
    for node in list(graph.nodes):
        if node is rows:
            continue

        def general(value: Any, at: torch.fx.Node = node) -> Any:
            if not isinstance(value, int) or value == 0 or value % TRACED:
                return value
            with graph.inserting_before(at):
                return graph.call_function(operator.mul, (rows, value // TRACED))

        node.args = torch.fx.node.map_aggregate(node.args, general)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, general)


@contextmanager
def _one_thread(size: int) -> Iterator[None]:
    """Use one thread where PyTorch would use several."""
    before = torch.get_num_threads() if size >= GRAIN else 1
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
