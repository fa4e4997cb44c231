"""BatchFunction: a pipeline on whole batches of rows, of Spark's DataFrames or of tables without Spark."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from sparkopt.errors import SchemaError
from sparkopt.images.arrow import ImageKernel, arrow_type
from sparkopt.images.opencv import use_cores
from sparkopt.images.schemas import (
    check_image_column,
    check_image_field,
    check_key,
    check_mapped_names,
    output_type,
    with_nulls,
)
from sparkopt.io.allocator import keep_freed_memory
from sparkopt.io.arrow import plain_batch, plain_field
from sparkopt.io.worker import spare_modules
from sparkopt.machine import Table
from sparkopt.machine.derived import derived
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

__all__ = ["POINTS", "BatchFunction", "use_the_cores_of_this_task"]

POINTS = pa.list_(pa.list_(pa.float64()))
"""The type of boxes and keypoints."""

T = TypeVar("T")


@dataclass(frozen=True)
class BatchFunction:
    """A pipeline as a function of batches that keeps the other columns: for ``DataFrame.mapInArrow``, or a table.

    Parameters
    ----------
    kernel : ImageKernel
        The pipeline, its output type, its mode and its seed. Mode DROPMALFORMED drops bad rows.
    input_column, output_column : str
        Columns of the images and of the results; the same name replaces the column.
    error_column : str or None, default None
        Column for the reasons of bad images.
    key_column : str or None, default None
        Column that identifies a row for random transforms; by default its content does.
    drop_input : bool, default True
        Whether the column of images is dropped.

    Examples
    --------
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode(), images.Resize(224, 224), images.Encode("jpeg")])
    >>> shrink = images.BatchFunction(images.ImageKernel(pipeline, "bytes"), "content", "small", error_column="error")
    >>> df.mapInArrow(shrink, shrink.schema(df.schema)).columns[-2:]
    ['small', 'error']

    Without Spark:

    >>> shrink.applied(images.read("photos")).names
    ['path', 'length', 'label', 'small', 'error']
    """

    kernel: ImageKernel
    input_column: str
    output_column: str
    error_column: str | None = None
    key_column: str | None = None
    drop_input: bool = True

    def schema(self, schema: StructType, *, any_names: bool = False) -> StructType:
        """Return the schema of the result for a DataFrame of ``schema``.

        Parameters
        ----------
        schema : StructType
            The DataFrame's.
        any_names : bool, default False
            Whether names may have dots, which ``DataFrame.mapInArrow`` does not find: for those who rename them.

        Raises
        ------
        SchemaError
            If a column is missing, of a wrong type, or would exist twice, or a name has a dot.
        """
        from pyspark.sql.types import ArrayType, DoubleType, StringType, StructField, StructType

        check_image_column(schema, self.input_column)
        self._check_names(schema.names)
        self._check_types(lambda name: schema[name].dataType)
        if self.key_column is not None:
            check_key(self.key_column, schema[self.key_column].dataType)
        if not any_names:
            check_mapped_names(schema.names)
        points = ArrayType(ArrayType(DoubleType()))
        changed = self._changed(output_type("tensor"), points, lambda name: schema[name].dataType)
        kept = [
            StructField(name, changed[name]) if name in changed else schema[name] for name in self._kept(schema.names)
        ]
        added = [StructField(self.output_column, output_type(self.kernel.output))]
        if self.error_column is not None:
            added.append(StructField(self.error_column, StringType()))
        return StructType([*kept, *added])

    def applied(self, data: Any) -> Table:
        """Return rows without Spark with the results, which are computed where and when they are read.

        Parameters
        ----------
        data : object
            What ``sparkopt.Table.of`` takes, such as the table of ``images.read("photos")``.

        Raises
        ------
        SchemaError
            If a column is missing, of a wrong type, or would exist twice.
        """
        table = with_nulls(Table.of(data), self.input_column)
        check_image_field(table.schema, self.input_column)
        self._check_names(table.names)
        fields = {field.name: plain_field(field) for field in table.schema}
        self._check_types(lambda name: fields[name].type)
        if self.key_column is not None:
            check_key(self.key_column, fields[self.key_column].type)
        added = [pa.field(self.output_column, arrow_type(self.kernel.output))]
        if self.error_column is not None:
            added.append(pa.field(self.error_column, pa.string()))
        changed = self._changed(arrow_type("tensor"), POINTS, lambda name: fields[name].type)
        kept = [
            pa.field(name, changed[name]) if name in changed else fields[name] for name in self._kept(table.names)
        ]
        read = [self.input_column, *self._targets, *([] if self.key_column is None else [self.key_column])]
        drops = self.kernel.mode == "DROPMALFORMED"
        names = [*self._targets, *(field.name for field in added)]
        return derived(table, self, pa.schema([*kept, *added]), read, names, drops)

    @property
    def _targets(self) -> list[str]:
        """The columns that are replaced with the image's."""
        return []

    def _changed(self, tensor: T, points: T, kinds: Callable[[str], T]) -> dict[str, T]:
        """Return the new types of the targets, which are nullable whatever they were: a bad row's are null."""
        return {}

    def _check_types(self, kinds: Callable[[str], Any]) -> None:
        """Raise SchemaError for a column of targets whose type, of Spark or of Arrow, holds none."""

    def _check_names(self, names: Sequence[str]) -> None:
        for name in (*self._targets, self.key_column):
            if name is not None and name not in names:
                raise SchemaError(f"there is no column {name!r}. The columns are {', '.join(names)}.")
        for name in (self.output_column, self.error_column):
            if name in self._kept(list(names)):
                raise SchemaError(f"column {name!r} is there already; choose another name.")

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the pipeline on batches of rows."""
        use_the_cores_of_this_task()
        for batch in map(plain_batch, batches):
            keys = None if self.key_column is None else batch.column(self.key_column)
            start = 0
            for values, errors, targets in self._pieces(batch, keys):
                piece = self._joined(batch.slice(start, len(values)), values, errors, targets)
                start += len(values)
                yield piece.filter(errors.is_null()) if self.kernel.mode == "DROPMALFORMED" else piece

    def _pieces(self, batch: pa.RecordBatch, keys: pa.Array | None) -> Iterator[tuple[pa.Array, pa.Array, Any]]:
        """Yield results, reasons and what was kept of the targets of some rows at a time; without targets, None."""
        for values, errors in self.kernel(batch.column(self.input_column), keys):
            yield values, errors, None

    def _joined(self, rows: pa.RecordBatch, values: pa.Array, errors: pa.Array, kept: Any) -> pa.RecordBatch:
        columns = {name: rows.column(name) for name in self._kept(rows.schema.names)}
        changed = self._target_columns(rows, kept) | {self.output_column: values}
        if self.error_column is not None:
            changed[self.error_column] = errors
        columns |= changed
        fields = [
            pa.field(name, column.type) if name in changed else rows.schema.field(name)
            for name, column in columns.items()
        ]
        return pa.RecordBatch.from_arrays([*columns.values()], schema=pa.schema(fields))

    def _target_columns(self, rows: pa.RecordBatch, kept: Any) -> dict[str, pa.Array]:
        """Return the new columns of the targets."""
        return {}

    def _kept(self, names: Sequence[str]) -> list[str]:
        dropped = {self.input_column} if self.drop_input else set()
        return [name for name in names if name not in dropped]


def use_the_cores_of_this_task() -> None:
    """Limit OpenCV to the task's cores, since other tasks, or other worker processes, use the rest.

    The process keeps the memory of an image for the next one.
    """
    pyspark = sys.modules.get("pyspark")  # Spark's tasks have imported it
    context = None if pyspark is None else pyspark.TaskContext.get()
    spare_modules()
    keep_freed_memory()
    use_cores(1 if context is None else max(1, context.cpus()))
