"""A graph of ONNX, node by node; and raw columns of tables as its nodes.

Features are never joined to a matrix there: each column adds the coefficients of its entries to the raw prediction, a
category by one look-up, as many as it may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, TypeAlias

import numpy as np

from sparkopt.errors import IncompatibleError, MissingDependencyError
from sparkopt.features import CategoryEncoding, DateEncoding, Encoder, NumberEncoding
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Graph", "contributions"]

OPSET, ML_OPSET, IR = 17, 3, 8
"""Those of onnx 1.12 (2022): runtimes of the last years read them."""
ML = "ai.onnx.ml"

_Entry: TypeAlias = "tuple[str, str | None]"
"""Names of the place of a row's feature, −1 for none, (n,) or (1,); and of its value, None for 1."""


@dataclass
class Graph:
    """Nodes, constants, inputs and outputs; ``model`` joins them.

    Parameters
    ----------
    precision : {"double", "float"}
        Type of the numbers.
    """

    precision: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.onnx = _onnx()
        self.dtype = np.dtype(np.float64 if self.precision == "double" else np.float32)
        kinds = self.onnx.TensorProto
        self.number = kinds.DOUBLE if self.precision == "double" else kinds.FLOAT

    def add(self, kind: str, *names: str, domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, list(names), [output], domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, value: Any) -> str:
        """Return the name of an array of numbers."""
        return self._kept(np.asarray(value, dtype=self.dtype))

    def integers(self, value: Any) -> str:
        """Return the name of an array of int64."""
        return self._kept(np.asarray(value, dtype=np.int64))

    def _kept(self, value: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def input(self, name: str, width: int, text: bool = False) -> str:
        """Add an input of rows × width, of numbers or of text; return its name."""
        kind = self.onnx.TensorProto.STRING if text else self.number
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, ["rows", width]))
        return name

    def output(self, name: str, source: str, width: int | None) -> None:
        """Name a node's output as one of the model's: numbers, or for a width vectors."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [source], [name]))
        shape = ["rows"] if width is None else ["rows", width]
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self.number, shape))

    def number_of(self, name: str) -> str:
        """Cast to the type of numbers."""
        return self.add("Cast", name, to=self.number)

    def model(self, version: str, facts: dict[str, str]) -> Any:
        """Return the checked model."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "sparkopt", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        found = helper.make_model(
            graph, producer_name="sparkopt", producer_version=version, opset_imports=opsets, ir_version=IR
        )
        helper.set_model_props(found, facts)
        self.onnx.checker.check_model(found)
        return found


def _onnx() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingDependencyError.of("toOnnx", "onnx", "onnx") from error
    return onnx


def contributions(graph: Graph, encoder: Encoder, matrix: Floats) -> list[str]:
    """Return what each entry of the raw columns adds to the raw predictions, (n, outputs) each.

    Parameters
    ----------
    graph : Graph
        To which the columns are added as inputs.
    encoder : Encoder
        How columns become features.
    matrix : ndarray of shape (outputs, features)
        The coefficients.
    """
    known = [_entries(graph, encoding) for encoding in encoder.encodings]
    widths = [len(encoding.names) for encoding in encoder.encodings]
    found, start = [], 0
    for term in encoder.terms:
        entries = known[term[0]]
        for number in term[1:]:
            entries = [_product(graph, left, right, widths[number]) for left in entries for right in known[number]]
        width = int(np.prod([widths[number] for number in term]))
        own = matrix[:, start : start + width].T
        found += [_added(graph, entry, own) for entry in entries]
        start += width
    return found


def _product(graph: Graph, left: _Entry, right: _Entry, width: int) -> _Entry:
    places = graph.add("Add", graph.add("Mul", left[0], graph.integers([width])), right[0])
    none = graph.add("Less", graph.add("Min", left[0], right[0]), graph.integers([0]))
    place = graph.add("Where", none, graph.integers([-1]), places)
    values = [value for value in (left[1], right[1]) if value is not None]
    return place, graph.add("Mul", *values) if len(values) == 2 else values[0] if values else None


def _added(graph: Graph, entry: _Entry, own: Floats) -> str:
    """Return value · coefficients at the place; a first row of zeros is for no place."""
    place, value = entry
    table = graph.constant(np.concatenate([np.zeros((1, own.shape[1])), own]))
    rows = graph.add("Gather", table, graph.add("Add", place, graph.integers([1])), axis=0)
    return rows if value is None else graph.add("Mul", rows, graph.add("Unsqueeze", value, graph.integers([1])))


def _entries(graph: Graph, encoding: Any) -> list[_Entry]:
    if isinstance(encoding, NumberEncoding):
        return _number(graph, encoding)
    if isinstance(encoding, CategoryEncoding):
        return [(_category(graph, encoding), None)]
    if isinstance(encoding, DateEncoding):
        return _date(graph, encoding)
    raise IncompatibleError(
        f"column {encoding.column!r} is hashed, which ONNX cannot compute. Raise maxCategories of TableFeatures, so "
        f"that its categories are features, or leave the column out."
    )


def _read(graph: Graph, column: str) -> str:
    return graph.add("Reshape", graph.input(column, 1), graph.integers([-1]))


def _filled(graph: Graph, column: str, fill: float) -> tuple[str, str]:
    """Return a column of numbers with NaN filled, and whether it was NaN."""
    read = _read(graph, column)
    missing = graph.add("IsNaN", read)
    return graph.add("Where", missing, graph.constant([fill]), read), missing


def _indicator(graph: Graph, missing: str, place: int) -> _Entry:
    return graph.add("Where", missing, graph.integers([place]), graph.integers([-1])), None


def _number(graph: Graph, encoding: NumberEncoding) -> list[_Entry]:
    value, missing = _filled(graph, encoding.column, encoding.fill)
    first = graph.integers([0]), value
    return [first, _indicator(graph, missing, 1)] if encoding.indicator else [first]


def _category(graph: Graph, encoding: CategoryEncoding) -> str:
    """Return the place of each row's category; null is the empty text, unless that is a category."""
    places = {category: place for place, category in enumerate(encoding.categories)}
    places |= {category: -1 for category in encoding.reference if category not in places}
    null = len(encoding.categories) + encoding.other if encoding.missing else -1
    places.setdefault("", null)
    text = graph.add("Reshape", graph.input(encoding.column, 1, text=True), graph.integers([-1]))
    return graph.add(
        "LabelEncoder",
        text,
        domain=ML,
        keys_strings=list(places),
        values_int64s=list(places.values()),
        default_int64=len(encoding.categories) if encoding.other else -1,
    )


def _date(graph: Graph, encoding: DateEncoding) -> list[_Entry]:
    """Return the parts of a date, given as days since 1970-01-01."""
    days, missing = _filled(graph, encoding.column, encoding.fill)
    kind = graph.onnx.TensorProto.INT64
    floor = graph.add("Floor", days)
    whole = graph.add("Cast", floor, to=kind)
    year, month, day = _civil(graph, whole)
    start = int(np.floor(encoding.start))
    first_year = int(np.datetime64(start, "D").astype("datetime64[Y]").astype(int)) + 1970
    elapsed = graph.add("Sub", days if encoding.has_time else floor, graph.constant([start]))
    years = graph.number_of(graph.add("Sub", year, graph.integers([first_year])))
    weekday = graph.add("Mod", graph.add("Add", whole, graph.integers([3])), graph.integers([7]))
    found: list[_Entry] = [
        (graph.integers([0]), elapsed),
        (graph.integers([1]), years),
        (graph.integers([2]), graph.number_of(day)),
        (graph.add("Add", month, graph.integers([2])), None),  # 3 + month − 1
        (graph.add("Add", weekday, graph.integers([15])), None),
    ]
    if encoding.has_time:
        hours = graph.add("Mul", graph.add("Sub", days, floor), graph.constant([24.0]))
        hours = graph.add("Floor", graph.add("Add", hours, graph.constant([1e-9])))
        hours = graph.add("Clip", hours, graph.constant(0.0), graph.constant(23.0))
        found.append((graph.add("Add", graph.add("Cast", hours, to=kind), graph.integers([22])), None))
    if encoding.indicator:
        found.append(_indicator(graph, missing, 46 if encoding.has_time else 22))
    return found


def _civil(graph: Graph, days: str) -> tuple[str, str, str]:
    """Return year, month and day of days since 1970 (Hinnant, 2013, *chrono-compatible date algorithms*)."""

    def number(value: int) -> str:
        return graph.integers([value])

    def over(name: str, value: int) -> str:
        return graph.add("Div", name, number(value))

    def times(name: str, value: int) -> str:
        return graph.add("Mul", name, number(value))

    def minus(first: str, *others: str) -> str:
        for other in others:
            first = graph.add("Sub", first, other)
        return first

    shifted = graph.add("Add", days, number(719_468))
    era = over(shifted, 146_097)
    of_era = minus(shifted, times(era, 146_097))
    leap = graph.add("Add", minus(of_era, over(of_era, 1460)), over(of_era, 36_524))
    year = over(minus(leap, over(of_era, 146_096)), 365)
    of_year = minus(of_era, graph.add("Add", minus(times(year, 365), over(year, 100)), over(year, 4)))
    march = over(graph.add("Add", times(of_year, 5), number(2)), 153)
    day = graph.add("Add", minus(of_year, over(graph.add("Add", times(march, 153), number(2)), 5)), number(1))
    late = graph.add("Less", march, number(10))
    month = graph.add("Add", march, graph.add("Where", late, number(3), number(-9)))
    first = graph.add("Where", late, number(0), number(1))
    return graph.add("Add", graph.add("Add", year, times(era, 400)), first), month, day


def joined(graph: Graph, names: Sequence[str]) -> str:
    """Return inputs of one column each, side by side."""
    return names[0] if len(names) == 1 else graph.add("Concat", *names, axis=1)
