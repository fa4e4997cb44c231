"""Preprocess a directory or a table of images into Parquet or Delta, in steps that a second run does not repeat.

    spark-submit --properties-file conf/local.conf jobs/preprocess_images.py --input photos --output out/small

Each row of the output has the columns path, image (encoded bytes; null for a bad image) and error (its reason).
The output also holds ``_manifest.json`` and ``_report.html``: counts, failures, throughput and some images before and
after. Next to a local output, ``<output>-report.json`` and ``<output>-samples.png`` contain the same. A run resumes
one that was stopped: it processes the images that are not in the output yet.

With ``--features`` the columns are path, features (numbers from 0 to 1) and label (the number of the image's folder)
instead. Training jobs read them from the folders ``split=train`` and ``split=test``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as SF
from tqdm import tqdm

import sparkopt  # sparkopt.images is loaded where it is used: --help needs no OpenCV
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import shortened
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun
from sparkopt.jobs.locations import LocalLocation
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.jobs.runtimes.spark import session_of
from sparkopt.jobs.sources import COLORS, FEATURES, LABEL, DataSource, check_share
from sparkopt.report.facts import Bars, Chart, Facts, Measure, Picture

__all__ = ["JOB", "main"]

FORMATS = ("binaryFile", "parquet", "delta", "table")
SPLIT = "split"


def pipeline_of(options: argparse.Namespace) -> sparkopt.images.Compose:
    """Return the pipeline of the JSON file, or one that fits images into a square."""
    if options.pipeline is None:
        fit = sparkopt.images.Letterbox(options.size, options.size)
        if options.features:
            return sparkopt.images.Compose(
                [sparkopt.images.Decode(options.color), fit, sparkopt.images.Rescale(1 / 255)]
            )
        return sparkopt.images.Compose(
            [sparkopt.images.Decode(), fit, sparkopt.images.Encode(options.encoding, options.quality)]
        )
    try:
        return sparkopt.images.Compose.from_json(Path(options.pipeline).read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"--pipeline {options.pipeline!r} cannot be read: {error.strerror}.") from error


def read_input(spark: SparkSession, location: str, kind: str) -> DataFrame:
    """Return the columns path, length and content of all images; a table must have path and content."""
    if kind == "binaryFile":
        return sparkopt.images.read(spark, location).drop("label")
    table = spark.read.table(location) if kind == "table" else spark.read.format(kind).load(location)
    missing = {"path", "content"} - set(table.columns)
    if missing:
        raise SchemaError(f"--input: the table has no column {', '.join(sorted(missing))}. It has {table.columns}.")
    return table.select("path", SF.coalesce(SF.octet_length("content"), SF.lit(0)).alias("length"), "content")


def steps(pending: DataFrame, parts: int) -> list[Column]:
    """Return conditions that split ``pending`` into parts of about equal size; none if nothing is pending.

    They are ranges of the files' length: Spark applies such a condition before it opens a file, so no part reads the
    files of another.
    """
    if pending.isEmpty():
        return []
    bounds = pending.approxQuantile("length", [index / parts for index in range(1, parts)], 0.01) if parts > 1 else []
    edges: list[int | None] = [None, *sorted({int(bound) for bound in bounds}), None]
    length, found = SF.col("length"), []
    for low, high in itertools.pairwise(edges):
        above = SF.lit(True) if low is None else length > low
        found.append(above if high is None else above & (length <= high))
    return found


def read_output(spark: SparkSession, location: str, kind: str) -> DataFrame | None:
    """Return the rows of earlier runs, or None."""
    try:
        return spark.read.format(kind).load(location)
    except AnalysisException as error:
        if error.getCondition() in ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA", "DELTA_TABLE_NOT_FOUND"):
            return None
        raise


def process(spark: SparkSession, options: argparse.Namespace, location: str) -> dict[str, Any]:
    """Process the images that are missing at ``location``, part by part, and return the report."""
    kernel = kernel_of(options)
    function = sparkopt.images.BatchFunction(
        kernel, "content", FEATURES if options.features else "image", error_column="error", key_column="path"
    )
    source = read_input(spark, options.input, options.input_format)
    names = label_names(source, options.labels) if options.features else []
    done = read_output(spark, location, options.output_format)
    skipped = 0 if done is None else done.count()
    pending = source if done is None else source.join(done.select("path"), "path", "left_anti")
    begin = time.perf_counter()
    conditions = steps(pending, options.parts)
    with tqdm(conditions, desc="preprocess", unit="part", file=sys.stdout, mininterval=0) as progress:
        for condition in progress:
            rows = pending.where(condition).select("path", "content")
            result = rows.mapInArrow(function, function.schema(rows.schema))
            if options.features:
                result = labelled(result, names, options.test_fraction)
            writer = result.write.format(options.output_format).mode("append")
            writer.partitionBy(*[SPLIT] if options.features else []).save(location)
    seconds = time.perf_counter() - begin
    reason = SF.coalesce(SF.substring_index("error", ":", 1), SF.lit("ok"))
    written = read_output(spark, location, options.output_format)
    found = []
    if written is not None:
        grouped = written.groupBy(reason.alias("reason"))
        found = grouped.agg(SF.count("*").alias("count"), SF.min("path").alias("path")).collect()
    counts = {row["reason"]: row["count"] for row in found}
    total = sum(counts.values())
    return {
        "images": total,
        "skipped": skipped,
        "processed": total - skipped,
        "good": counts.pop("ok", 0),
        "failures": counts,
        "failed_first": {row["reason"]: row["path"] for row in found if row["reason"] != "ok"},
        "seconds": round(seconds, 3),
        "images_per_second": round((total - skipped) / seconds, 1),
        "pipeline": json.loads(kernel.pipeline.to_json()),
    }


def folder() -> Column:
    """Return the name of an image's folder."""
    return SF.element_at(SF.split("path", "/"), -2)


def label_names(source: DataFrame, named: str) -> list[str]:
    """Return the labels' names in order: the given names, or those of all folders.

    Raises
    ------
    DataError
        For a folder that is not among the given names.
    """
    found = sorted(row[0] for row in source.select(folder()).distinct().collect())
    names = [name.strip() for name in named.split(",")] if named else found
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"--input has images of {unknown[0]!r}; --labels are {', '.join(names)}.")
    return names


def labelled(rows: DataFrame, names: list[str], fraction: float) -> DataFrame:
    """Add each image's label and split; both depend on folder and file name only, so every run agrees."""
    key = SF.pmod(SF.xxhash64(folder(), SF.element_at(SF.split("path", "/"), -1)), SF.lit(1_000_000))
    label = (SF.array_position(SF.lit(names), folder()) - 1).cast("double")
    split = SF.when(key < int(fraction * 1_000_000), "test").otherwise("train")
    return rows.withColumn(LABEL, label).withColumn(SPLIT, split)


def samples(spark: SparkSession, options: argparse.Namespace, location: str, count: int = 6) -> bytes | None:
    """Return a PNG with samples before (above) and after (below); None if there is no good image."""
    from sparkopt.images.contact_sheet import contact_sheet

    written = read_output(spark, location, options.output_format)
    if written is None:
        return None
    chosen = written.where("image is not null").orderBy(SF.xxhash64("path")).limit(count)
    after = {row.path: bytes(row.image) for row in chosen.collect()}
    before = {row.path: bytes(row.content) for row in _chosen(spark, options, list(after))} if after else {}
    pairs = [(path, before[path], image) for path, image in after.items() if path in before]
    return sparkopt.images.encode(contact_sheet(pairs), "png") if pairs else None


def _chosen(spark: SparkSession, options: argparse.Namespace, paths: list[str]) -> list[Row]:
    """Return path and content of some images; no other file is opened."""
    if options.input_format == "binaryFile":
        escaped = [re.sub(r"([\[\]{}*?\\])", r"\\\1", path) for path in paths]
        return spark.read.format("binaryFile").load(escaped).select("path", "content").collect()
    source = read_input(spark, options.input, options.input_format).select("path", "content")
    return source.where(SF.col("path").isin(paths)).collect()


def declare(flags: Parser) -> None:
    """Add the flags."""
    flags.add_argument("--input", metavar="PATH", help="directory, glob, or table with the columns path and content")
    flags.add_argument("--input-format", choices=FORMATS, default="binaryFile")
    flags.add_argument("--output", metavar="FOLDER", help="directory to write to, or to resume")
    flags.add_argument("--output-format", choices=("parquet", "delta"), default="parquet")
    flags.add_argument("--pipeline", help="JSON file as Compose.to_json writes it; ends in Encode, unless --features")
    flags.add_argument("--size", type=int, default=224, help="without --pipeline: side of the square to fit into")
    flags.add_argument("--encoding", choices=("jpeg", "png", "webp"), default="jpeg", help="without --pipeline")
    flags.add_argument("--quality", type=int, default=90, help="without --pipeline: 1 to 100, for jpeg and webp")
    flags.add_argument("--mode", choices=("PERMISSIVE", "DROPMALFORMED", "FAILFAST"), default="PERMISSIVE")
    rows = flags.add_argument_group("rows to train on")
    rows.add_argument("--features", action="store_true", help="write features and label in place of encoded images")
    rows.add_argument("--color", choices=COLORS, default="gray", help="without --pipeline (default: %(default)s)")
    rows.add_argument(
        "--labels",
        metavar="NAMES",
        default="",
        help="folders in the order of the labels 0, 1, …, with commas between (default: the alphabet's order)",
    )
    rows.add_argument(
        "--test-fraction",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the images that goes to split=test (default: %(default)s)",
    )
    flags.add_argument("--parts", type=int, default=8, help="number of steps; a step is kept whole or lost")
    flags.add_argument("--seed", type=int, default=0, help="for random transforms; a row's key is its path")
    flags.add_argument("--epoch", type=int, default=0)


def kernel_of(options: argparse.Namespace) -> sparkopt.images.ImageKernel:
    """Return the kernel that processes images."""
    output = "array" if options.features else "bytes"
    return sparkopt.images.ImageKernel(pipeline_of(options), output, options.mode, options.seed, options.epoch)


def check(options: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    missing = [f"--{name}" for name in ("input", "output") if not getattr(options, name)]
    if missing:
        raise ParameterError(f"the following arguments are required: {', '.join(missing)}.")
    if options.parts < 1:
        raise ParameterError(f"--parts must be at least 1. Got {options.parts} instead.")
    check_share("--test-fraction", options.test_fraction)
    kernel_of(options)


def inputs(runtime: Runtime, options: argparse.Namespace) -> dict[str, Any]:
    """Return the fingerprint of the images, and their processing."""
    read_output(session_of(runtime), options.output, options.output_format)  # an unknown format fails before the work
    kind = "images" if options.input_format == "binaryFile" else options.input_format
    kernel = kernel_of(options)
    made = {"steps": json.loads(kernel.pipeline.to_json()), "mode": options.mode}
    drawn = {"seed": options.seed, "epoch": options.epoch} if kernel.pipeline.random else {}
    return {"data": runtime.fingerprint(DataSource(kind, options.input)), "pipeline": made | drawn}


def work(run: JobRun) -> JobResult:
    """Process the images; next to a local output, write report and samples."""
    options, spark = run.args, session_of(run.runtime)
    sparkopt.images.bound_batches(spark)
    report = process(spark, options, run.target.uri)
    text = json.dumps(report, indent=2)
    sheet = None if options.features else samples(spark, options, run.target.uri)
    output = run.runtime.location(options.output)
    if isinstance(output, LocalLocation):
        Path(f"{output.path}-report.json").write_text(text + "\n", encoding="utf-8")
        if sheet is not None:
            Path(f"{output.path}-samples.png").write_bytes(sheet)
    columns = "path, features, label and split" if options.features else "path, image and error"
    outputs = {".": f"{options.output_format} table of {columns}"}
    figures = {name: report[name] for name in ("images", "good", "failures", "images_per_second")}
    return JobResult(figures, outputs, text, page(options, report, sheet))


def page(options: argparse.Namespace, report: Mapping[str, Any], sheet: bytes | None) -> Facts:
    """Return the page of a report and of samples."""
    failures: dict[str, int] = report["failures"]
    charts: list[Chart] = []
    if failures:
        labels = tuple(shortened(name) for name in failures)
        charts.append(Bars("Failures by reason", "count", labels, (("", tuple(map(float, failures.values()))),)))
    if sheet is not None:
        charts.append(Picture("Some images", "some images before (above) and after (below)", sheet))
    return Facts(
        "Preprocessed images",
        f"{mask(options.input)} to {mask(options.output)}",
        (
            Measure("good images", report["good"], "count", f"of {report['images']:,}"),
            Measure("failures", sum(failures.values()), "count", is_cost=True),
            Measure("images a second", report["images_per_second"], "number"),
            Measure("time", report["seconds"], "seconds", is_cost=True),
            Measure("processed", report["processed"], "count", "by this run"),
            Measure("of earlier runs", report["skipped"], "count", "not repeated"),
        ),
        tuple(charts),
        tuple(f"First {name}: {path}" for name, path in report["failed_first"].items()),
    )


def kind(options: argparse.Namespace) -> str:
    """Append to an existing output; with --force, replace it once the new one is complete."""
    return "table" if options.force else "resumed"


# Python workers exchange data through Unix sockets instead of the network (from Spark 4.1).
SETTINGS = {"spark.python.unix.domain.socket.enabled": "true"}
JOB = Job("preprocess-images", __doc__ or "", declare, check, inputs, work, kind, SETTINGS)
main = JOB.main
