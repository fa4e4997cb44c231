"""Batches of rows through a model of ONNX: from columns to its inputs, and from its outputs to columns."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy  # loads scipy.sparse where it is used
from pyspark import TaskContext

from sparkopt.blocks.columns import feature_matrix
from sparkopt.blocks.invalid import valid_features
from sparkopt.errors import DataError, IncompatibleError, MissingDependencyError, ParameterError
from sparkopt.io.worker import spare_modules
from sparkopt.launch.threads import task_cores
from sparkopt.machine import available_cores
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["OnnxScorer", "Tensor", "described"]

NUMBERS = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
TEXT = "tensor(string)"
MOST_SESSIONS = 4
"""Sessions that a process keeps."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        Its type, as ONNX Runtime names it, such as "tensor(float)".
    shape : tuple of (int or None)
        Its shape with the rows first; None is any number.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]

    @property
    def is_column(self) -> bool:
        """Whether a row has one value."""
        return len(self.shape) <= 1 or (len(self.shape) == 2 and self.shape[1] == 1)

    @property
    def width(self) -> int | None:
        """Values of a row, where that is known."""
        dims = self.shape[1:]
        return None if any(dim is None for dim in dims) else math.prod(dim for dim in dims if dim is not None)

    def of(self, values: Array) -> Array:
        """Return rows of values in its own shape.

        Raises
        ------
        DataError
            Where a row has another number of values.
        """
        rows = len(values)
        flat = values.reshape(rows, -1)
        dims = [-1 if dim is None else dim for dim in self.shape[1:]]
        own = flat.shape[1]
        if self.width is not None and self.width != own:
            raise DataError(f"a row has {own} values; input {self.name!r} takes {self.width}, {self.shape[1:]}.")
        if values.shape[1:] and len(values.shape) == len(self.shape):
            return values
        if dims.count(-1) > 1:
            raise DataError(f"input {self.name!r} has the shape {self.shape}: give tensors, not lists of numbers.")
        known = math.prod(dim for dim in dims if dim != -1)
        if known and own % known:
            raise DataError(f"a row has {own} values, which do not fill the shape {self.shape[1:]} of {self.name!r}.")
        return flat.reshape(rows, *dims)


def described(model: bytes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of a model.

    Raises
    ------
    ParameterError
        For bytes that are no model of ONNX, or one that the runtime cannot run.
    IncompatibleError
        For an output that is no tensor.
    """
    session = _session(model, 1)
    inputs, outputs = (
        tuple(Tensor(one.name, one.type, _dims(one.shape)) for one in found)
        for found in (session.get_inputs(), session.get_outputs())
    )
    for one in (*inputs, *outputs):
        if one.kind not in NUMBERS and one.kind != TEXT:
            raise IncompatibleError(
                f"{one.name!r} of this model is a {one.kind}, and no tensor of numbers or text. Models of "
                f"scikit-learn: convert them with options={{'zipmap': False}}."
            )
    return inputs, outputs


def _dims(shape: Any) -> tuple[int | None, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in shape or [None])


def _session(model: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.of("OnnxModel", "onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # the runtime's own classes have no public base
        raise ParameterError(f"this is no model that ONNX Runtime runs: {str(error).splitlines()[0]}") from None


class _Sessions:
    """The sessions that this process used last: a worker has many tasks, and a pipeline may have several models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], Any] = {}

    def of(self, token: str, model: bytes) -> Any:
        with self._lock:
            key = token, _threads()
            session = self._known.pop(key, None) or _session(model, key[1])
            self._known[key] = session  # the last one used is the last
            while len(self._known) > MOST_SESSIONS:
                del self._known[next(iter(self._known))]
            return session


def _threads() -> int:
    """Return the cores of the task; where there is none, those of this process."""
    if TaskContext.get() is not None:
        return task_cores()
    return int(os.environ.get("OMP_NUM_THREADS") or available_cores())  # a worker of this machine has one


_sessions = _Sessions()


@dataclass(frozen=True)
class OnnxScorer:
    """The function that adds a model's outputs to batches of rows: for ``DataFrame.mapInArrow``, or a table.

    Attributes
    ----------
    model : bytes
        The model.
    token : str
        What processes know its session by.
    feeds : tuple of (Tensor, tuple of str)
        Its inputs, and the columns that each is made of.
    fetches : tuple of (str, Tensor)
        Output columns, and the outputs that they hold.
    batch : int
        Rows that are scored at a time.
    invalid : {"error", "skip", "keep"}
        What becomes of rows with null, NaN or infinity.
    nan : bool
        Whether the model knows missing values: NaN, and "" of text.
    """

    model: bytes = field(repr=False)
    token: str
    feeds: tuple[tuple[Tensor, tuple[str, ...]], ...]
    fetches: tuple[tuple[str, Tensor], ...]
    batch: int
    invalid: str
    nan: bool

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(name for _, names in self.feeds for name in names))

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches with the outputs."""
        spare_modules()
        first = 0
        for batch in batches:
            valid = self._valid(batch, first)
            rows = batch if valid is None else batch.filter(pa.array(valid))
            found = self._scored(rows, first)
            first += batch.num_rows
            if valid is not None and self.invalid == "keep":
                places = pa.array(np.maximum(np.cumsum(valid) - 1, 0), mask=~valid)
                rows, found = batch, [column.take(places) for column in found]
            names = [*batch.schema.names, *(name for name, _ in self.fetches)]
            yield pa.RecordBatch.from_arrays([*rows.columns, *found], names)

    def _valid(self, batch: pa.RecordBatch, first: int) -> Array | None:
        """Return which rows are valid, None where all are; or refuse the first that is not."""
        for name in self.columns:
            valid = _valid_values(batch.column(name), self.nan)
            if not valid.all() and self.invalid == "error":
                row = int(np.flatnonzero(~valid)[0])
                value = batch.column(name)[row].as_py()
                shown = "is null" if value is None else "has null, NaN or infinity"
                raise DataError(
                    f"input column {name!r}, {_place()}row {first + row} {shown}. Set handleInvalid='keep' for null "
                    f"outputs, 'skip' to leave such rows out, or missing=True where the model knows missing values."
                )
        if self.invalid == "error":
            return None
        found = np.all([_valid_values(batch.column(name), self.nan) for name in self.columns], axis=0)
        return None if found.all() else found

    def _scored(self, rows: pa.RecordBatch, first: int) -> list[pa.Array]:
        """Return the output columns of valid rows."""
        if not rows.num_rows:
            return [pa.nulls(0, arrow_type(tensor)) for _, tensor in self.fetches]
        session = _sessions.of(self.token, self.model)
        inputs = {tensor.name: self._input(rows, tensor, names, first) for tensor, names in self.feeds}
        fixed = next((tensor.shape[0] for tensor, _ in self.feeds if tensor.shape and tensor.shape[0]), None)
        step = fixed or self.batch
        wanted = [tensor.name for _, tensor in self.fetches]
        parts = []
        for start in range(0, rows.num_rows, step):
            some = {name: _padded(values[start : start + step], fixed) for name, values in inputs.items()}
            count = min(step, rows.num_rows - start)
            found = _run(session, wanted, some, f"{_place()}rows from {first + start}")
            parts.append([self._taken(one, count, step) for one in found])
        columns = zip(*parts, strict=True)
        return [
            _arrow(np.concatenate(column), tensor) for (_, tensor), column in zip(self.fetches, columns, strict=True)
        ]

    def _taken(self, found: Any, count: int, step: int) -> Array:
        values = np.asarray(found)
        if not values.shape or len(values) not in (count, step):
            raise DataError(
                f"the model gave an output of the shape {values.shape} for {count} rows. Each row must have its own: "
                f"fetch other outputs."
            )
        return values[:count]

    def _input(self, rows: pa.RecordBatch, tensor: Tensor, names: Sequence[str], first: int) -> Array:
        """Return an input of the model: one column, or several of numbers or text side by side."""
        try:
            parts = [_values(rows.column(name), tensor) for name in names]
            values = (
                parts[0] if len(parts) == 1 else np.concatenate([part.reshape(len(part), -1) for part in parts], 1)
            )
            return tensor.of(values) if tensor.kind == TEXT else tensor.of(values).astype(NUMBERS[tensor.kind])
        except (DataError, ValueError) as error:
            raise DataError(f"input column {', '.join(names)!r}, {_place()}rows from {first}: {error}") from None


def _run(session: Any, wanted: Sequence[str], inputs: Mapping[str, Array], where: str) -> list[Any]:
    try:
        found: list[Any] = session.run(wanted, inputs)
    except Exception as error:  # noqa: BLE001  # the runtime's own classes have no public base
        raise DataError(f"{where}: the model failed: {str(error).splitlines()[0]}") from None
    return found


def _place() -> str:
    context = TaskContext.get()
    return "" if context is None else f"partition {context.partitionId()}, "


def _padded(values: Array, rows: int | None) -> Array:
    """Return so many rows where a model takes no other number: the last one is repeated."""
    if rows is None or len(values) == rows:
        return values
    return np.concatenate([values, np.repeat(values[-1:], rows - len(values), axis=0)])


def _valid_values(column: pa.Array, knows_missing: bool) -> Array:
    """Return which rows are there and finite."""
    kind, present = column.type, np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
    is_vector = pa.types.is_struct(kind) and kind.get_field_index("values") >= 0
    if not is_vector and not _is_list(kind):
        if knows_missing and not pa.types.is_struct(kind):
            return np.ones(len(column), bool)
        if not pa.types.is_floating(kind):
            return present
        return np.asarray(present & np.isfinite(column.to_numpy(zero_copy_only=False)))
    if knows_missing or (_is_list(kind) and not _is_number(_innermost(kind))):
        return present
    found = valid_features(column if is_vector else _flat(column))
    return np.ones(len(column), bool) if found is None else found


def _innermost(kind: pa.DataType) -> pa.DataType:
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _values(column: pa.Array, tensor: Tensor) -> Array:
    """Return a column as an array with its rows first."""
    kind = column.type
    if tensor.kind == TEXT:
        if not _is_text(kind):
            raise DataError(f"input {tensor.name!r} takes text, and this is {kind}.")
        return np.array(["" if value is None else value for value in column.to_pylist()], dtype=object)
    if pa.types.is_struct(kind) and kind.get_field_index("shape") >= 0:
        return _tensors(column)
    if pa.types.is_struct(kind) and kind.get_field_index("values") < 0:
        raise DataError(f"input {tensor.name!r} takes numbers, and this is {kind}: decode images to tensors first.")
    if pa.types.is_struct(kind) or _is_list(kind):
        found: Any = feature_matrix(column if pa.types.is_struct(kind) else _flat(column))
        return np.asarray(found.toarray() if scipy.sparse.issparse(found) else found)
    if _is_text(kind) or pa.types.is_binary(kind):
        raise DataError(f"input {tensor.name!r} takes numbers, and this is {kind}.")
    if pa.types.is_integer(kind) and not column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _flat(column: pa.Array) -> pa.Array:
    """Return lists of lists as lists of all their numbers, in order."""
    while _is_list(column.type.value_type):
        inner = _listed(column.flatten())
        lengths = pc.list_value_length(inner).fill_null(0).to_numpy(zero_copy_only=False)
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        outer = np.concatenate([[0], np.cumsum(counts)])
        offsets = pa.array(ends[outer], mask=np.append(~np.asarray(column.is_valid()), False))
        column = pa.ListArray.from_arrays(offsets, inner.flatten())
    return column


def _listed(column: pa.Array) -> pa.Array:
    fixed = pa.types.is_fixed_size_list(column.type)
    return column.cast(pa.list_(column.type.value_type)) if fixed else column


def _tensors(column: pa.Array) -> Array:
    """Return images that `ImageTransformer` made of output="tensor", all of one shape."""
    found = [
        np.frombuffer(one["data"].as_buffer(), one["dtype"].as_py()).reshape(one["shape"].as_py()) for one in column
    ]
    if len({one.shape for one in found}) > 1:
        raise DataError(f"images have the shapes {found[0].shape} and others: resize them to one.")
    return np.stack(found)


def arrow_type(tensor: Tensor) -> pa.DataType:
    """Return the type of the column that holds an output."""
    kind = pa.string() if tensor.kind == TEXT else _column_type(NUMBERS[tensor.kind])
    return kind if tensor.is_column else pa.list_(kind)


def _column_type(dtype: Any) -> pa.DataType:
    """Return a type that Spark has."""
    wider: Mapping[Any, pa.DataType] = {np.float16: pa.float32(), np.uint8: pa.int16(), np.bool_: pa.bool_()}
    return wider.get(dtype) or pa.from_numpy_dtype(dtype)


def _arrow(values: Array, tensor: Tensor) -> pa.Array:
    """Return an output as a column: numbers, or lists of all of a row's in order."""
    kind = arrow_type(tensor)
    if tensor.is_column:
        return pa.array(values.reshape(len(values))).cast(kind)
    flat = values.reshape(len(values), -1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * flat.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.reshape(-1)).cast(kind.value_type))
