"""Frames of animated GIFs and WebPs: one of them as pixels, or all as rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, SchemaError
from sparkopt.images.batches import use_the_cores_of_this_task
from sparkopt.images.decoding import decode_frames
from sparkopt.images.opencv import cv2
from sparkopt.images.schemas import check_image_column, check_image_field, check_mapped_names, with_nulls
from sparkopt.io.arrow import plain_batch, plain_field
from sparkopt.io.image_frames import count_frames
from sparkopt.io.image_header import MAX_PIXELS, read_header
from sparkopt.machine import Table
from sparkopt.machine.derived import derived
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

__all__ = ["FrameFunction"]

_LOG = logging.getLogger(__name__)
BYTES = 4 << 20
"""About most bytes of a batch."""


@dataclass(frozen=True)
class FrameFunction:
    """The frames of animated GIFs and WebPs as rows: for ``DataFrame.mapInArrow``, or a table.

    Each frame becomes a PNG in a row of its own, after the file's other columns. A file of one frame, of another
    format, or whose header is damaged stays one row as it is: the pipeline after it tells why. An animation with a
    damaged frame becomes one row of null.

    Parameters
    ----------
    input_column : str, default "content"
        Column of encoded images (binary).
    frame_column : str, default "frame"
        Column for the number of the frame in its file, from 0 (int).
    every : int, default 1
        Take each frame whose number is a multiple of it.
    max_frames : int or None, default None
        Most frames of a file; None takes all.
    max_pixels : int, default 2**26
        Most pixels of an animation, all of its frames that are decoded together; a larger one becomes a row of null.

    Examples
    --------
    >>> from sparkopt import images
    >>> images.FrameFunction().applied(images.read("photos")).names
    ['path', 'length', 'label', 'content', 'frame']
    >>> frames = images.FrameFunction(every=5)
    >>> files = images.read(spark, "photos")
    >>> files.mapInArrow(frames, frames.schema(files.schema)).columns[-1]
    'frame'
    """

    input_column: str = "content"
    frame_column: str = "frame"
    every: int = 1
    max_frames: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        check("every", self.every, Interval(1, None, whole=True))
        check("max_pixels", self.max_pixels, Interval(1, None, whole=True))
        if self.max_frames is not None:
            check("max_frames", self.max_frames, Interval(1, None, whole=True))

    def schema(self, schema: StructType) -> StructType:
        """Return the schema of the result for a DataFrame of ``schema``.

        Raises
        ------
        SchemaError
            If the column of images is missing or not binary, the frames' column exists, or a name has a dot.
        """
        from pyspark.sql.types import BinaryType, IntegerType, NullType, StructField, StructType

        check_image_column(schema, self.input_column)
        self._check(schema.names, isinstance(schema[self.input_column].dataType, BinaryType | NullType))
        check_mapped_names(schema.names)
        others = [field for field in schema if field.name != self.input_column]
        # A damaged animation is null, whatever the column was.
        added = [StructField(self.input_column, BinaryType()), StructField(self.frame_column, IntegerType())]
        return StructType([*others, *added])

    def applied(self, data: Any) -> Table:
        """Return rows without Spark, a row a frame; files are opened where the rows are read.

        Parameters
        ----------
        data : object
            What ``sparkopt.Table.of`` takes, such as the table of ``images.read("photos")``.

        Raises
        ------
        SchemaError
            If the column of images is missing or not binary, or the frames' column exists.
        """
        table = with_nulls(Table.of(data), self.input_column)
        check_image_field(table.schema, self.input_column)
        kind = plain_field(table.schema.field(self.input_column)).type
        kind = pa.binary() if pa.types.is_null(kind) else kind
        self._check(table.names, pa.types.is_binary(kind))
        others = [plain_field(field) for field in table.schema if field.name != self.input_column]
        added = [pa.field(self.input_column, kind), pa.field(self.frame_column, pa.int32())]
        schema, names = pa.schema([*others, *added]), [field.name for field in added]
        return derived(table, self, schema, [self.input_column], names, drops=True)

    def _check(self, names: list[str], is_binary: bool) -> None:
        if not is_binary:
            raise SchemaError(f"column {self.input_column!r} must hold encoded images (binary) to be divided.")
        if self.frame_column in names:
            raise SchemaError(f"column {self.frame_column!r} is there already; choose another name.")

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield a row for each frame."""
        use_the_cores_of_this_task()
        for batch in map(plain_batch, batches):
            rows, frames, contents, held = list[int](), list[int](), list[bytes | None](), 0
            for row, content in enumerate(batch.column(self.input_column)):
                for number, frame in self._frames(content.as_py()):
                    rows.append(row)
                    frames.append(number)
                    contents.append(frame)
                    held += 0 if frame is None else len(frame)
                    if held > BYTES:
                        yield self._batch(batch, rows, frames, contents)
                        rows, frames, contents, held = [], [], [], 0
            yield self._batch(batch, rows, frames, contents)

    def _batch(
        self, batch: pa.RecordBatch, rows: list[int], frames: list[int], contents: list[bytes | None]
    ) -> pa.RecordBatch:
        others = [name for name in batch.schema.names if name != self.input_column]
        taken = batch.select(others).take(pa.array(rows, pa.int64()))
        found = pa.array(contents, pa.binary())
        columns = [*taken.columns, found, pa.array(frames, pa.int32())]
        added = [pa.field(self.input_column, found.type), pa.field(self.frame_column, pa.int32())]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*taken.schema, *added]))

    def _frames(self, content: bytes | None) -> Iterator[tuple[int, bytes | None]]:
        """Yield number and PNG of each frame that is wanted; the content itself where there is one frame."""
        try:
            header = read_header(content or b"", self.max_pixels)
        except CorruptImageError:
            yield 0, content
            return
        try:
            count = count_frames(content or b"", header.format)
            if content is None or count == 1:
                yield 0, content
                return
            wanted = range(0, count, self.every)[: self.max_frames]
            images = decode_frames(content, header, wanted[-1] + 1, max_pixels=self.max_pixels)
        except CorruptImageError as error:
            _LOG.warning("an animation becomes a row of null: %s", error)
            yield 0, None
            return
        yield from ((number, _png(images[number])) for number in wanted)


def _png(image: np.ndarray[Any, Any]) -> bytes:
    encoded: bytes = cv2.imencode(".png", image)[1].tobytes()
    return encoded
