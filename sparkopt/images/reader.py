"""Files of images as a DataFrame: nothing lost, and labelled by their folders."""

from __future__ import annotations

from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as SF

__all__ = ["read"]


def read(spark: SparkSession, path: str) -> DataFrame:
    """Read image files, the empty ones too, which Spark's own reader leaves out without a word.

    Parameters
    ----------
    spark : SparkSession
        The session.
    path : str
        A directory, which is searched with all its subdirectories, or a glob.

    Returns
    -------
    DataFrame
        Of path (string), length (bytes, long), label (string; the name of the file's folder, as in
        ``photos/cat/1.jpg``) and content (binary). Nothing is opened before content is used, and a filter on length
        spares files from being opened.

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
