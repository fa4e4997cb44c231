"""Preprocessing of images on Spark."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from sparkopt import images
from sparkopt.errors import SchemaError
from sparkopt.jobs.locations import JobLocation
from sparkopt.jobs.runtimes.hadoop import path_on
from sparkopt.jobs.runtimes.images import SPLIT, ImageRows, ordered_names
from sparkopt.jobs.sources import FEATURES, LABEL

if TYPE_CHECKING:
    from sparkopt.images import ImageKernel

__all__ = ["SparkImages", "steps"]


class SparkImages(ImageRows):
    """The images of a job on Spark.

    Parameters
    ----------
    spark : SparkSession
        The session.
    options, kernel, output : Namespace, ImageKernel, JobLocation
        As of ``ImageRows``.
    """

    def __init__(
        self, spark: SparkSession, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation
    ) -> None:
        super().__init__(options, kernel, output)
        self.spark = spark
        images.bound_batches(spark)

    def check(self) -> None:
        self._written()  # an unknown format fails before the work

    def names(self) -> list[str]:
        found = [row[0] for row in self._source().select(_folder()).distinct().collect()]
        return ordered_names(found, self.options.labels)

    def done(self) -> int:
        written = self._written()
        return 0 if written is None else written.count()

    def steps(self) -> Sequence[Column]:
        return steps(self._pending(), self.options.parts)

    def process(self, step: Column, names: Sequence[str]) -> None:
        features = self.options.features
        function = images.BatchFunction(
            self.kernel, "content", FEATURES if features else "image", error_column="error", key_column="path"
        )
        rows = self._pending().where(step).select("path", "content")
        result = rows.mapInArrow(function, function.schema(rows.schema))
        if features:
            result = _labelled(result, names, self.options.test_fraction)
        writer = result.write.format(self.options.output_format).mode("append")
        writer.partitionBy(*[SPLIT] if features else []).save(self.output.uri)

    def reasons(self) -> list[tuple[str, int, str]]:
        written = self._written()
        if written is None:
            return []
        reason = F.coalesce(F.substring_index("error", ":", 1), F.lit("ok"))
        grouped = written.groupBy(reason.alias("reason"))
        found = grouped.agg(F.count("*").alias("count"), F.min("path").alias("path")).collect()
        return [(row["reason"], row["count"], row["path"]) for row in found]

    def missing(self) -> tuple[int, str]:
        row = self._pending().agg(F.count("*"), F.min("path")).collect()[0]
        return row[0], row[1] or ""

    def samples(self, count: int) -> list[tuple[str, bytes, bytes]]:
        written = self._written()
        if written is None:
            return []
        chosen = written.where("image is not null").orderBy(F.xxhash64("path")).limit(count)
        after = {row.path: bytes(row.image) for row in chosen.collect()}
        before = {row.path: bytes(row.content) for row in self._chosen(list(after))} if after else {}
        return [(path, before[path], image) for path, image in after.items() if path in before]

    def _source(self) -> DataFrame:
        """Return the columns path, length and content of all images; a table must have path and content."""
        kind, location = self.options.input_format, self.options.input
        location = location if kind == "table" else path_on(self.spark, location)
        if kind == "binaryFile":
            return images.read(self.spark, location).drop("label")
        table = self.spark.read.table(location) if kind == "table" else self.spark.read.format(kind).load(location)
        missing = {"path", "content"} - set(table.columns)
        if missing:
            raise SchemaError(
                f"--input: the table has no column {', '.join(sorted(missing))}. It has {table.columns}."
            )
        return table.select("path", F.coalesce(F.octet_length("content"), F.lit(0)).alias("length"), "content")

    def _pending(self) -> DataFrame:
        source, done = self._source(), self._written()
        return source if done is None else source.join(done.select("path"), "path", "left_anti")

    def _written(self) -> DataFrame | None:
        """Return the rows of earlier runs and steps, or None."""
        try:
            found = self.spark.read.format(self.options.output_format).load(self.output.uri)
            found.schema  # noqa: B018  # Connect resolves it no earlier
            return found
        except AnalysisException as error:
            if error.getCondition() in ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA", "DELTA_TABLE_NOT_FOUND"):
                return None
            raise

    def _chosen(self, paths: list[str]) -> list[Row]:
        """Return path and content of some images; no other file is opened."""
        if self.options.input_format == "binaryFile":
            escaped = [re.sub(r"([\[\]{}*?\\])", r"\\\1", path) for path in paths]
            return self.spark.read.format("binaryFile").load(escaped).select("path", "content").collect()
        return self._source().select("path", "content").where(F.col("path").isin(paths)).collect()


def steps(pending: DataFrame, parts: int) -> list[Column]:
    """Return conditions that split ``pending`` into parts of about equal size; none if nothing is pending.

    They are ranges of the files' length: Spark applies such a condition before it opens a file, so no part reads the
    files of another.
    """
    if pending.isEmpty():
        return []
    bounds = pending.approxQuantile("length", [index / parts for index in range(1, parts)], 0.01) if parts > 1 else []
    edges: list[int | None] = [None, *sorted({int(bound) for bound in bounds}), None]
    length, found = F.col("length"), []
    for low, high in itertools.pairwise(edges):
        above = F.lit(True) if low is None else length > low
        found.append(above if high is None else above & (length <= high))
    return found


def _folder() -> Column:
    """Return the name of an image's folder."""
    return F.element_at(F.split("path", "/"), -2)


def _labelled(rows: DataFrame, names: Sequence[str], fraction: float) -> DataFrame:
    """Add each image's label and split; both depend on folder and file name only, so every run agrees."""
    key = F.pmod(F.xxhash64(_folder(), F.element_at(F.split("path", "/"), -1)), F.lit(1_000_000))
    label = (F.array_position(F.lit(list(names)), _folder()) - 1).cast("double")
    split = F.when(key < int(fraction * 1_000_000), "test").otherwise("train")
    return rows.withColumn(LABEL, label).withColumn(SPLIT, split)
