"""A pipeline on Arrow columns: the kernel behind `udf`, `BatchFunction` and ImageTransformer.

It knows no Spark. A bad image affects its own row only. Results come in pieces of bounded size, since a thousand
photographs at once would not fit into a worker's memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.images.opencl import check_device
from sparkopt.images.pipeline import Compose, Encode
from sparkopt.images.randomness import row_rng
from sparkopt.images.sample import Sample
from sparkopt.images.schemas import is_key
from sparkopt.images.sources import OPENCV_TYPES, open_column, path_of, rows_are_encoded
from sparkopt.io.arrow import array_of, plain_array
from sparkopt.io.filesystem import brief
from sparkopt.io.hadoop import CarriesSettings
from sparkopt.io.pixel_structs import IMAGE_FIELDS, TENSOR_FIELDS
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = [
    "FAILURES",
    "MAX_BYTES",
    "MODES",
    "OUTPUTS",
    "Gathered",
    "ImageKernel",
    "Targets",
    "arrow_type",
    "reason_of",
    "tensors",
]

MODES = ("PERMISSIVE", "DROPMALFORMED", "FAILFAST")
MAX_BYTES = 2**21
"""Default bound on the bytes of one piece of output; a single larger image is a piece of its own.

It is small so that a piece is still in the processor's cache when it is sent, and its memory is reused.
"""

FAILURES = (CorruptImageError, DataError, MemoryError, ArithmeticError, cv2.error)
"""What makes a row a bad one, and not the job."""


class Targets(Protocol):
    """What belongs to the images of a column."""

    def of(self, index: int, image: Any) -> Sample:
        """Return the sample of a row and its image."""

    def keep(self, sample: Sample | None) -> None:
        """Keep what is needed of the next row's result; None for a bad image."""


@dataclass(frozen=True)
class ImageKernel(CarriesSettings):
    """A pipeline that runs on Arrow arrays.

    Parameters
    ----------
    pipeline : Compose
        The pipeline.
    output : {"vector", "array", "tensor", "bytes", "image"}, default "tensor"
        Type of the result: a dense ML vector, a list of float32, (shape, dtype, data), an encoded image (the pipeline
        must end in Encode), or a row of Spark's image schema (uint8, its colours in the order BGR).
    mode : {"PERMISSIVE", "DROPMALFORMED", "FAILFAST"}, default "PERMISSIVE"
        FAILFAST raises at the first bad image; the others give null and a reason.
    seed, epoch : int, default 0
        Random transforms depend on (seed, row key, epoch) only.
    max_bytes : int, default 2**21
        Bound on the bytes of one piece of output.
    """

    pipeline: Compose
    output: str = "tensor"
    mode: str = "PERMISSIVE"
    seed: int = 0
    epoch: int = 0
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        check("output", self.output, OneOf(OUTPUTS))
        check("mode", self.mode, OneOf(MODES))
        for name in ("seed", "epoch"):
            check(name, getattr(self, name), Interval(-(2**63), 2**63 - 1, whole=True))
        check("max_bytes", self.max_bytes, Interval(1, None, whole=True))
        if not isinstance(self.pipeline, Compose):
            raise ParameterError(f"pipeline must be an images.Compose. Got {self.pipeline!r} instead.")
        encodes = bool(self.pipeline.transforms) and isinstance(self.pipeline.transforms[-1], Encode)
        if encodes != (self.output == "bytes"):
            raise ParameterError(
                f"output is {self.output!r}, but the pipeline {'ends' if encodes else 'does not end'} in Encode: "
                "encoded images are output 'bytes', and nothing else is."
            )

    def __call__(self, images: pa.Array, keys: pa.Array | None = None) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Run the pipeline on a column.

        Parameters
        ----------
        images : pyarrow.Array
            Encoded images (binary), paths (string), rows of Spark's image schema or tensors (struct).
        keys : pyarrow.Array, optional
            Row keys for random transforms (integers, strings or binary); by default the content is the key.

        Yields
        ------
        values, errors : pyarrow.Array
            Of equal length, in the order of the rows. An error is the reason of a missing value, else null.
        """
        yield from self.pieces(images, keys)

    def pieces(
        self, images: pa.Array, keys: pa.Array | None = None, targets: Targets | None = None
    ) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Run the pipeline on a column, as a call does, and with each image's targets.

        Parameters
        ----------
        images, keys : pyarrow.Array
            As of a call.
        targets : Targets, optional
            What makes samples of images, and keeps what is left of them.

        Yields
        ------
        values, errors : pyarrow.Array
            As of a call. The targets have been given these rows' samples, and no others since the last piece.
        """
        check_device(self.pipeline.device)
        images, keys = plain_array(images), None if keys is None else plain_array(keys)
        rows, read = open_column(images)
        if rows_are_encoded(images.type) and not self.pipeline.decodes:
            raise ParameterError("the pipeline must begin with Decode to run on encoded images.")
        if keys is not None and not is_key(keys.type):
            raise SchemaError(f"row keys must be integers, strings or binary. Got {keys.type} instead.")
        kind, convert, to_arrow = _WRITERS[self.output]
        if self.output == "image" and self.pipeline.color == "bgr":
            convert = _in_bgr
        gathered, errors = Gathered(kind, self.max_bytes, len(images)), list[str | None]()
        for index, row in enumerate(rows):
            value, error, sample = None, None, None
            try:
                image = read(row)
                found = image if targets is None else targets.of(index, image)
                sample, value = self._result(found, None if keys is None else keys[index].as_py(), convert)
            except FAILURES as problem:
                if self.mode == "FAILFAST":
                    raise _explained(problem, index, images, keys) from problem
                error = reason_of(problem)
            if not gathered.has_room_for(value):
                yield to_arrow(gathered), pa.array(errors, pa.string())
                gathered, errors = Gathered(kind, self.max_bytes, len(images) - index), []
            gathered.add(value)
            errors.append(error)
            if targets is not None:
                targets.keep(None if value is None else sample)
        if errors or not len(images):
            yield to_arrow(gathered), pa.array(errors, pa.string())

    def _result(
        self, image: Array | bytes | Sample, key: Any, convert: Callable[[Any], Array]
    ) -> tuple[Sample | None, Array]:
        try:
            found = self._run(image, key)
            return (found, convert(found.image)) if isinstance(found, Sample) else (None, convert(found))
        except ParameterError as problem:
            if self.pipeline.decodes and not self.pipeline.keeps_depth:
                raise
            # An image's type, and the channels of one that was decoded before, are its own, not the pipeline's.
            raise DataError(f"unsupported: {problem}") from problem

    def _run(self, image: Array | bytes | Sample, key: Any) -> Any:
        if not self.pipeline.random:
            return self.pipeline(image)
        if key is None:
            content = image.image if isinstance(image, Sample) else image
            key = content if isinstance(content, bytes) else content.tobytes()
        return self.pipeline(image, row_rng(self.seed, key, self.epoch))


def _explained(problem: Exception, index: int, images: pa.Array, keys: pa.Array | None) -> Exception:
    """Return the error of a row that ends the job: the row by its key, or by its place and its image's path."""
    row, path = f"row {index} of its batch", path_of(images, index)
    if keys is not None:
        row = f"the row of key {keys[index].as_py()!r}"
    elif path is not None:
        row = f"{row}, {path!r}"
    kind = type(problem) if isinstance(problem, (CorruptImageError, DataError)) else DataError
    return kind(f"{reason_of(problem)} ({row}). Mode PERMISSIVE gives null for such rows, and the reason.")


def reason_of(problem: Exception) -> str:
    """Return why a row has no value."""
    is_named = isinstance(problem, (CorruptImageError, DataError))
    return str(problem) if is_named else f"failed: {type(problem).__name__}: {brief(problem)}"


# --- output ---------------------------------------------------------------------------------------------------------


class Gathered:
    """Results, copied one after another into one buffer.

    Parameters
    ----------
    kind : dtype or None
        Type that numbers are converted to; None keeps the bytes unchanged.
    limit : int
        Largest number of bytes, except for a single larger value.
    rows : int
        Largest number of values.
    """

    def __init__(self, kind: type[np.floating[Any]] | None, limit: int, rows: int) -> None:
        self._kind = kind
        self._limit = limit
        self._rows = rows
        self._memory = np.empty(0, np.uint8)
        self._ends = [0]
        self.shapes: list[tuple[int, ...] | None] = []
        self.dtypes: list[str | None] = []

    def has_room_for(self, value: Array | None) -> bool:
        """Whether a value can be added within the limit."""
        return value is None or not self._ends[-1] or self._ends[-1] + self._size(value) <= self._limit

    def add(self, value: Array | None) -> None:
        """Copy a value; None is a missing one."""
        start = self._ends[-1]
        stop = start if value is None else start + self._size(value)
        if stop > len(self._memory):
            larger = np.empty(max(start + stop, min(self._limit, (stop - start) * self._rows)), np.uint8)
            larger[:start] = self._memory[:start]
            self._memory = larger
        if value is not None:
            target = self._memory[start:stop].view(value.dtype if self._kind is None else self._kind)
            np.copyto(target.reshape(value.shape), value, casting="unsafe")
        self._ends.append(stop)
        self.shapes.append(None if value is None else value.shape)
        self.dtypes.append(None if value is None else _name(value.dtype))

    def _size(self, value: Array) -> int:
        return value.nbytes if self._kind is None else value.size * np.dtype(self._kind).itemsize

    @property
    def missing(self) -> pa.Array | None:
        """True where there is no value; None where none is missing."""
        if None not in self.shapes:
            return None
        return pa.array([shape is None for shape in self.shapes], pa.bool_())

    def binary(self, *, nullable: bool = True) -> pa.Array:
        """Return a column of bytes; a missing value is null, or empty where the column may have no null."""
        valid = None
        if nullable and None in self.shapes:
            valid = pa.array([shape is not None for shape in self.shapes], pa.bool_()).buffers()[1]
        buffers = [valid, pa.py_buffer(np.array(self._ends, np.int32)), pa.py_buffer(self._filled())]
        return pa.Array.from_buffers(pa.binary(), len(self.shapes), buffers)

    def shape_lists(self) -> pa.Array:
        """Return a column of shapes."""
        first = self.shapes[0] if self.shapes else None
        if not first or self.shapes.count(first) != len(self.shapes):
            return pa.array(self.shapes, pa.list_(pa.int32()))
        ends = np.arange(0, len(first) * len(self.shapes) + 1, len(first), dtype=np.int32)
        return pa.ListArray.from_arrays(array_of(ends), array_of(np.array(first * len(self.shapes), np.int32)))

    def lists(self) -> pa.Array:
        """Return a column of lists of numbers."""
        kind = np.dtype(self._kind)
        offsets = (np.array(self._ends) // kind.itemsize).astype(np.int32)
        missing = np.array([*(shape is None for shape in self.shapes), False])
        return pa.ListArray.from_arrays(pa.array(offsets, mask=missing), pa.array(self._filled().view(kind)))

    def _filled(self) -> Array:
        return self._memory[: self._ends[-1]]


@functools.cache  # NumPy composes the name on each access
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def _vectors(values: Gathered) -> pa.Array:
    """Return rows of pyspark.ml's VectorUDT: type 1 is dense."""
    count = len(values.shapes)
    ones = pa.array(np.ones(count, np.int8))
    columns = [ones, pa.nulls(count, pa.int32()), pa.nulls(count, pa.list_(pa.int32())), values.lists()]
    return pa.StructArray.from_arrays(columns, ["type", "size", "indices", "values"], mask=values.missing)


def tensors(values: Gathered) -> pa.Array:
    """Return arrays as a column of struct<shape, dtype, data>."""
    columns = [values.shape_lists(), pa.array(values.dtypes, pa.string()), values.binary()]
    return pa.StructArray.from_arrays(columns, TENSOR_FIELDS, mask=values.missing)


def _in_bgr(image: Array) -> Array:
    """Return an image whose order is that of Spark's schema already."""
    _check_image(image)
    return image


def _to_bgr(image: Array) -> Array:
    _check_image(image)
    if image.shape[2] == 4:
        return np.ascontiguousarray(image[..., [2, 1, 0, 3]])
    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def _check_image(image: Array) -> None:
    """Raise ParameterError for what no row of Spark's image schema holds."""
    if image.dtype != np.uint8:
        raise ParameterError(
            f"output 'image' holds uint8 values, but the pipeline gives {image.dtype}. Take output 'tensor'."
        )
    if image.ndim != 3 or image.shape[2] not in OPENCV_TYPES:
        raise ParameterError(
            "output 'image' holds images of shape (height, width, 1, 3 or 4), but the pipeline gives "
            f"{image.shape}. Take output 'tensor'."
        )


def _image_rows(values: Gathered) -> pa.Array:
    heights, widths, channels = (
        [0 if shape is None else shape[axis] for shape in values.shapes] for axis in range(3)
    )
    columns = [
        pa.array(["" if shape is not None else None for shape in values.shapes], pa.string()),
        *(pa.array(numbers, pa.int32()) for numbers in (heights, widths, channels)),
        pa.array([OPENCV_TYPES.get(count, 0) for count in channels], pa.int32()),
        values.binary(nullable=False),
    ]
    # Nested in another column, the type must equal Spark's exactly: only the origin is nullable.
    fields = [
        pa.field(name, column.type, nullable=name == "origin")
        for name, column in zip(IMAGE_FIELDS, columns, strict=True)
    ]
    return pa.StructArray.from_arrays(columns, fields=fields, mask=values.missing)


def _as_is(image: Array) -> Array:
    return image


def _encoded_bytes(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


_WRITERS: dict[str, tuple[type[np.floating[Any]] | None, Callable[[Any], Array], Callable[[Gathered], pa.Array]]] = {
    "vector": (np.float64, _as_is, _vectors),
    "array": (np.float32, _as_is, Gathered.lists),
    "tensor": (None, _as_is, tensors),
    "bytes": (None, _encoded_bytes, Gathered.binary),
    "image": (None, _to_bgr, _image_rows),
}
OUTPUTS = tuple(_WRITERS)


def arrow_type(output: str) -> pa.DataType:
    """Return the type of Arrow for ``output``, one of ``OUTPUTS``."""
    kind, _, to_arrow = _WRITERS[output]
    return to_arrow(Gathered(kind, 1, 0)).type
