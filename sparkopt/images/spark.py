"""Images on Spark: files as a DataFrame (:func:`read`), pipelines as an expression (:func:`udf`) or on whole batches.

:func:`udf` and :class:`BatchFunction` run the same kernel. A Python worker holds one batch of input, which
``spark.sql.execution.arrow.maxBytesPerBatch`` bounds (64 MiB by default), one image in work, and one piece of output,
which ``max_bytes`` bounds. In two places Spark counts rows instead of bytes; :func:`bound_batches` corrects both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
from pyspark import TaskContext
from pyspark.ml.image import ImageSchema
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as SF
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    FloatType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from sparkopt.errors import ParameterError, SchemaError
from sparkopt.images.arrow import MAX_BYTES, ImageKernel
from sparkopt.images.opencv import use_cores
from sparkopt.images.pipeline import Compose
from sparkopt.images.sources import IMAGE_FIELDS
from sparkopt.io.worker import spare_modules

__all__ = ["BatchFunction", "bound_batches", "check_image_column", "output_type", "read", "udf"]

_TENSOR = StructType(
    [
        StructField("shape", ArrayType(IntegerType())),
        StructField("dtype", StringType()),
        StructField("data", BinaryType()),
    ]
)


_BOUNDS = {
    # Small batches stay in the processor's cache between the JVM and Python.
    "spark.sql.execution.arrow.maxBytesPerBatch": "4m",
    # The vectorised Parquet reader holds this many rows: 4096 by default, which is 20 GB of 12-megapixel photographs.
    "spark.sql.parquet.columnarReaderBatchSize": "64",
    # From Parquet or a cache, Spark 4.2 and later send such batches to expressions whole, whatever their bytes, and
    # collect 10,000 results on the JVM's heap.
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
}


def read(spark: SparkSession, path: str) -> DataFrame:
    """Read image files, including empty ones, which Spark's own reader leaves out.

    Parameters
    ----------
    spark : SparkSession
        The session.
    path : str
        A directory, read with all its subdirectories, or a glob.

    Returns
    -------
    DataFrame
        With the columns path (string), length (bytes, long), label (string; the name of the file's folder, as in
        ``photos/cat/1.jpg``) and content (binary). Files are opened only where content is used; a filter on length
        excludes files before that.

    Examples
    --------
    >>> from sparkopt import images
    >>> sorted(row.label for row in images.read(spark, "photos").select("label").distinct().collect())
    ['cat', 'dog']
    """
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", str("*" not in path).lower())
    files = reader.load(path).select("path", "length", "content")
    listed = [(unquote(name).replace("file:///", "file:/"),) for name in files.inputFiles()]
    empty = spark.createDataFrame(listed, "path string").join(files.select("path"), "path", "left_anti")
    filled = empty.select("path", SF.lit(0).cast("long").alias("length"), SF.lit(b"").alias("content"))
    label = SF.element_at(SF.split("path", "/"), -2).alias("label")
    return files.unionByName(filled).select("path", "length", label, "content")


def bound_batches(spark: SparkSession) -> None:
    """Limit the session's batches to a few megabytes, so that large images do not exhaust the JVM; it is also faster.

    Use it for :func:`udf` on Parquet or cached data, and for large images in Parquet. A profile may set the same
    properties: ``spark.sql.execution.arrow.maxBytesPerBatch``,
    ``spark.sql.parquet.columnarReaderBatchSize`` and ``spark.sql.execution.arrow.pythonUDF.columnarInput.enabled``.

    Parameters
    ----------
    spark : SparkSession
        The session.

    Examples
    --------
    >>> from sparkopt import images
    >>> images.bound_batches(spark)
    >>> spark.conf.get("spark.sql.execution.arrow.maxBytesPerBatch")
    '4m'
    """
    for name, value in _BOUNDS.items():
        spark.conf.set(name, value)


def output_type(output: str) -> DataType:
    """Return the Spark type for ``output``, one of "vector", "array", "tensor", "bytes" and "image"."""
    if output == "image":
        return ImageSchema.imageSchema["image"].dataType
    return {"vector": VectorUDT(), "array": ArrayType(FloatType()), "tensor": _TENSOR, "bytes": BinaryType()}[output]


def check_image_column(schema: StructType, column: str) -> None:
    """Check, before any job, that a column exists and can hold images.

    Raises
    ------
    SchemaError
        If not; the message names the column, its type and the types it may have.
    """
    if column not in schema.names:
        raise SchemaError(f"there is no column {column!r}. The columns are {', '.join(schema.names)}.")
    kind = schema[column].dataType
    is_image = isinstance(kind, StructType) and set(kind.names) >= set(IMAGE_FIELDS[1:])
    if not (is_image or isinstance(kind, BinaryType | StringType)):
        raise SchemaError(
            f"column {column!r} must hold encoded images (binary), paths (string) or Spark's image schema. "
            f"Got {kind.simpleString()} instead."
        )


def udf(
    pipeline: Compose,
    output: str = "tensor",
    *,
    mode: str = "PERMISSIVE",
    seed: int = 0,
    epoch: int = 0,
    errors: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Callable[..., Column]:
    """Return a pipeline as a function of columns.

    Parameters
    ----------
    pipeline : Compose
        What to do with each image.
    output : {"vector", "array", "tensor", "bytes", "image"}, default "tensor"
        Type of the result: a dense ML vector, array<float>, struct<shape, dtype, data>, an encoded image (binary; the
        pipeline must end in Encode), or Spark's image schema.
    mode : {"PERMISSIVE", "FAILFAST"}, default "PERMISSIVE"
        A bad image becomes null, or fails the job. ImageTransformer and :class:`BatchFunction` can also drop its row.
    seed, epoch : int, default 0
        Random transforms depend on (seed, row key, epoch) only.
    errors : bool, default False
        Return struct<value, error>, with the reason of each null, instead of the value.
    max_bytes : int, default 2**22
        Bound on the bytes of output that a worker collects before it sends them.

    Returns
    -------
    callable
        A function of the column of images (binary, path or image schema) and, optionally, the column of row keys, by
        name or as a Column. Without keys, random transforms depend on the content: equal images are augmented alike.

    Examples
    --------
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
    >>> small = images.udf(pipeline, output="array")
    >>> len(df.select(small("content").alias("features")).first().features)
    64
    """
    if mode == "DROPMALFORMED":
        raise ParameterError("mode DROPMALFORMED cannot drop rows from inside an expression; use ImageTransformer.")
    kernel = ImageKernel(pipeline, output, mode, seed, epoch, max_bytes)
    kind = output_type(output)
    returned = StructType([StructField("value", kind), StructField("error", StringType())]) if errors else kind

    def run_alone(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        yield from _pieces(kernel, ((column, None) for column in columns), errors)

    def run_with_keys(columns: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        yield from _pieces(kernel, ((images, keys) for images, keys in columns), errors)

    def apply(image: Column | str, key: Column | str | None = None) -> Column:
        function = arrow_udf(run_alone if key is None else run_with_keys, returned)  # type: ignore[call-overload]
        result: Column = function(image) if key is None else function(image, key)
        return result

    return apply


def _pieces(
    kernel: ImageKernel, columns: Iterator[tuple[pa.Array, pa.Array | None]], errors: bool
) -> Iterator[pa.Array]:
    _use_the_cores_of_this_task()
    for images, keys in columns:
        for values, reasons in kernel(images, keys):
            yield pa.StructArray.from_arrays([values, reasons], ["value", "error"]) if errors else values


@dataclass(frozen=True)
class BatchFunction:
    """A pipeline as a function for ``DataFrame.mapInArrow`` that keeps the other columns.

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
    """

    kernel: ImageKernel
    input_column: str
    output_column: str
    error_column: str | None = None
    key_column: str | None = None
    drop_input: bool = True

    def schema(self, schema: StructType) -> StructType:
        """Return the schema of the result for a DataFrame of ``schema``.

        Raises
        ------
        SchemaError
            If a column is missing, cannot hold images, or would exist twice.
        """
        check_image_column(schema, self.input_column)
        if self.key_column is not None and self.key_column not in schema.names:
            raise SchemaError(
                f"there is no key column {self.key_column!r}. The columns are {', '.join(schema.names)}."
            )
        kept = [schema[name] for name in self._kept(schema.names)]
        added = [StructField(self.output_column, output_type(self.kernel.output))]
        if self.error_column is not None:
            added.append(StructField(self.error_column, StringType()))
        names = [field.name for field in kept]
        for field in added:
            if field.name in names:
                raise SchemaError(f"column {field.name!r} is there already; choose another name.")
        return StructType([*kept, *added])

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the pipeline on batches of rows."""
        _use_the_cores_of_this_task()
        for batch in batches:
            keys = None if self.key_column is None else batch.column(self.key_column)
            start = 0
            for values, errors in self.kernel(batch.column(self.input_column), keys):
                piece = self._joined(batch.slice(start, len(values)), values, errors)
                start += len(values)
                yield piece.filter(errors.is_null()) if self.kernel.mode == "DROPMALFORMED" else piece

    def _joined(self, rows: pa.RecordBatch, values: pa.Array, errors: pa.Array) -> pa.RecordBatch:
        names = self._kept(rows.schema.names)
        columns = [rows.column(name) for name in names]
        added = [values] if self.error_column is None else [values, errors]
        new_names = [self.output_column] if self.error_column is None else [self.output_column, self.error_column]
        return pa.RecordBatch.from_arrays([*columns, *added], [*names, *new_names])

    def _kept(self, names: list[str]) -> list[str]:
        dropped = {self.input_column} if self.drop_input else set()
        return [name for name in names if name not in dropped]


def _use_the_cores_of_this_task() -> None:
    """Limit OpenCV to the task's cores, since other tasks use the rest."""
    context = TaskContext.get()
    spare_modules()
    use_cores(1 if context is None else max(1, context.cpus()))
