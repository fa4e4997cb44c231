"""Images on Spark: files as a DataFrame (:func:`read_on_spark`), and pipelines as an expression (:func:`udf`).

:func:`udf` and :class:`~sparkopt.images.BatchFunction` run the same kernel. A Python worker holds one batch of input,
which ``spark.sql.execution.arrow.maxBytesPerBatch`` bounds (64 MiB by default), one image in work, and one piece of
output, which ``max_bytes`` bounds. In two places Spark counts rows instead of bytes; :func:`bound_batches` corrects
both.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as SF
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import StringType, StructField, StructType

from sparkopt.errors import ParameterError
from sparkopt.images.arrow import MAX_BYTES, ImageKernel
from sparkopt.images.batches import use_the_cores_of_this_task
from sparkopt.images.files import FilesOmitted
from sparkopt.images.pipeline import Compose
from sparkopt.images.schemas import output_type
from sparkopt.images.sources import read_file
from sparkopt.io.filesystem import local_path
from sparkopt.io.hadoop import CarriesSettings
from sparkopt.io.image_header import ENDINGS, endings_glob
from sparkopt.io.listing import MAGIC, check_text, folder_of_pattern

__all__ = ["bound_batches", "files_of_spark", "read_on_spark", "udf"]

_LOG = logging.getLogger(__name__)

_BOUNDS = {
    # Small batches stay in the processor's cache between the JVM and Python.
    "spark.sql.execution.arrow.maxBytesPerBatch": "4m",
    # The vectorised Parquet reader holds this many rows: 4096 by default, which is 20 GB of 12-megapixel photographs.
    "spark.sql.parquet.columnarReaderBatchSize": "64",
    # From Parquet or a cache, Spark 4.2 and later send such batches to expressions whole, whatever their bytes, and
    # collect 10,000 results on the JVM's heap.
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
}


def read_on_spark(spark: SparkSession, path: str, endings: Sequence[str] = ENDINGS) -> DataFrame:
    """Read image files, including empty ones, which Spark's own reader leaves out; see ``sparkopt.images.read``.

    No name passes through the driver: a task lists what Spark omits when the rows are read.
    """
    files = files_of_spark(spark, path, endings)
    omitted = spark.range(1, numPartitions=1).mapInArrow(
        FilesOmitted(path, tuple(endings)), "path string, length long"
    )
    label = SF.element_at(SF.split("path", "/"), -2).alias("label")
    return files.unionByName(_opened(omitted)).select("path", "length", label, "content")


def files_of_spark(spark: SparkSession, path: str, endings: Sequence[str] = ENDINGS) -> DataFrame:
    """Return the path, length and content of the image files that Spark lists, which are not empty.

    Below the folder that a pattern begins with, hidden files and folders are left out, as they are below a folder.
    """
    check_text(path)
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    if "*" not in endings:
        reader = reader.option("pathGlobFilter", endings_glob(endings))
    local = local_path(path)
    is_name = local is not None and os.path.exists(local)
    files = reader.load(re.sub(r"([*?\[\]{}\\])", r"\\\1", path) if is_name else path)
    if not is_name and MAGIC.search(path):
        files = files.where(~SF.col("path").rlike(_hidden_below(path, local)))
    if local is None:
        return files.select("path", "length", "content")
    # Hadoop's local file system lists names with a colon, but takes them for URIs where it looks for a checksum. The
    # metadata say which, before a file is opened.
    cannot_open = SF.col("_metadata.file_path").startswith("file:") & SF.col("_metadata.file_name").contains(":")
    can = files.where(~cannot_open).select("path", "length", "content")
    return can.unionByName(_opened(files.where(cannot_open).select("path", "length")))


def _hidden_below(pattern: str, local: str | None) -> str:
    """Return a regular expression of Java that finds hidden names below the folder that a pattern begins with."""
    given = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]+:(//[^/]*)?", "", pattern)
    folders = [os.path.normpath("/" + folder_of_pattern(one)) for one in (given, local) if one is not None]
    folders = [re.escape("" if one == "/" else one.replace("//", "/")) for one in folders]
    if not given.startswith("/"):  # of the working directory of whatever file system Spark takes
        folders[0] = f".*{folders[0]}"
    return rf"(?s)^[^/:]+:(//[^/]*)?({'|'.join(folders)})/([^/]*/)*(\.|_[^/=]*(/|$))"


def _opened(files: DataFrame) -> DataFrame:
    """Return files that Spark's reader does not open with their content, which workers read."""
    opens = _Contents()

    def contents(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        yield from opens(columns)

    function = arrow_udf(contents, "binary")  # type: ignore[call-overload]
    path = SF.when(SF.col("length") > 0, SF.col("path"))
    return files.select("path", "length", function(path).alias("content"))


class _Contents(CarriesSettings):
    """The contents of files by their paths, in pieces of bounded size; nothing where there is no path."""

    def __call__(self, columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in columns:
            found, held = list[bytes](), 0
            for path in column.to_pylist():
                if held > MAX_BYTES:
                    yield pa.array(found, pa.binary())
                    found, held = [], 0
                found.append(b"" if path is None else read_file(path))
                held += len(found[-1])
            yield pa.array(found, pa.binary())


def bound_batches(spark: SparkSession) -> None:
    """Limit the session's batches to a few megabytes, so that large images do not exhaust the JVM; it is also faster.

    Where a server refuses these settings, as serverless compute does, its own bounds hold.

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
        try:
            spark.conf.set(name, value)
        except PySparkException as error:  # serverless compute sets its own, for less memory than others have
            reason = str(error).splitlines()[0]
            _LOG.info("%s=%s is not set, so Spark's own bound holds: %s", name, value, reason)


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
    max_bytes : int, default 2**21
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
    use_the_cores_of_this_task()
    for images, keys in columns:
        for values, reasons in kernel(images, keys):
            yield pa.StructArray.from_arrays([values, reasons], ["value", "error"]) if errors else values
