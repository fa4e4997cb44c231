#!/usr/bin/env python
"""Preprocess a directory or a table of images into Parquet or Delta, in steps that a second run does not repeat.

    spark-submit --properties-file conf/local.conf jobs/preprocess_images.py --input photos --output out/small

Each row of the output has the columns path, image (encoded bytes; null for a bad image) and error (its reason).
Beside it, ``<output>-report.json`` holds counts, failures and throughput, and ``<output>-samples.png`` shows
some images before and after. A run that was stopped goes on with the images that are not in the output yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as SF

from sparkopt import images
from sparkopt.cluster.session import session
from sparkopt.errors import ParameterError, SchemaError

FORMATS = ("binaryFile", "parquet", "delta", "table")


def pipeline_of(options: argparse.Namespace) -> images.Compose:
    """Read the pipeline from its JSON file, or make one that fits the image into a square."""
    if options.pipeline is None:
        fit = images.Letterbox(options.size, options.size)
        return images.Compose([images.Decode(), fit, images.Encode(options.encoding, options.quality)])
    return images.Compose.from_json(Path(options.pipeline).read_text(encoding="utf-8"))


def read_input(spark: SparkSession, location: str, kind: str) -> DataFrame:
    """Return the columns path and content of all images; a table must have them."""
    if kind == "binaryFile":
        return read_files(spark, location)
    table = spark.read.table(location) if kind == "table" else spark.read.format(kind).load(location)
    missing = {"path", "content"} - set(table.columns)
    if missing:
        raise SchemaError(f"--input: the table has no column {', '.join(sorted(missing))}. It has {table.columns}.")
    return table.select("path", "content")


def read_files(spark: SparkSession, location: str) -> DataFrame:
    """Return path and content of each file; the empty ones too, which Spark leaves out without a word."""
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", str("*" not in location).lower())
    files = reader.load(location)
    listed = [(unquote(name).replace("file:///", "file:/"),) for name in files.inputFiles()]
    empty = spark.createDataFrame(listed, "path string").join(files.select("path"), "path", "left_anti")
    return files.select("path", "content").unionByName(empty.withColumn("content", SF.lit(b"")))


def read_output(spark: SparkSession, location: str, kind: str) -> DataFrame | None:
    """Return what earlier runs have written, or None."""
    try:
        return spark.read.format(kind).load(location)
    except AnalysisException as error:
        if error.getCondition() in ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA", "DELTA_TABLE_NOT_FOUND"):
            return None
        raise


def process(spark: SparkSession, options: argparse.Namespace) -> dict[str, Any]:
    """Process what is missing, part by part, and return the report."""
    kernel = images.ImageKernel(pipeline_of(options), "bytes", options.mode, options.seed, options.epoch)
    function = images.BatchFunction(kernel, "content", "image", error_column="error", key_column="path")
    source = read_input(spark, options.input, options.input_format)
    done = read_output(spark, options.output, options.output_format)
    skipped = 0 if done is None else done.count()
    pending = source if done is None else source.join(done.select("path"), "path", "left_anti")
    part = SF.pmod(SF.xxhash64("path"), SF.lit(options.parts))
    begin = time.perf_counter()
    for index in range(options.parts):
        rows = pending.where(part == index)
        result = rows.mapInArrow(function, function.schema(rows.schema))
        result.write.format(options.output_format).mode("append").save(options.output)
        print(f"part {index + 1} of {options.parts} is written", flush=True)
    seconds = time.perf_counter() - begin
    reason = SF.coalesce(SF.substring_index("error", ":", 1), SF.lit("ok"))
    counted = read_output(spark, options.output, options.output_format)
    rows = [] if counted is None else counted.groupBy(reason.alias("reason")).count().collect()
    counts = {row["reason"]: row["count"] for row in rows}
    total = sum(counts.values())
    return {
        "images": total,
        "skipped": skipped,
        "processed": total - skipped,
        "good": counts.pop("ok", 0),
        "failures": counts,
        "seconds": round(seconds, 3),
        "images_per_second": round((total - skipped) / seconds, 1),
        "pipeline": json.loads(kernel.pipeline.to_json()),
    }


def contact_sheet(spark: SparkSession, options: argparse.Namespace, count: int = 6, side: int = 160) -> bytes | None:
    """Return a PNG with samples before (above) and after (below); None if there is no good image."""
    written = read_output(spark, options.output, options.output_format)
    after = [] if written is None else written.where("image is not null").orderBy("path").limit(count).collect()
    if not after:
        return None
    source = read_input(spark, options.input, options.input_format)
    before = {
        row.path: row.content for row in source.where(SF.col("path").isin([row.path for row in after])).collect()
    }
    tile = images.Compose([images.Decode(), images.Letterbox(side, side, fill=255)])
    columns = [
        np.vstack([tile(bytes(before[row.path])), tile(bytes(row.image))]) for row in after if row.path in before
    ]
    return images.encode(np.hstack(columns), "png") if columns else None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="directory, glob, or table with the columns path and content")
    parser.add_argument("--input-format", choices=FORMATS, default="binaryFile")
    parser.add_argument("--output", required=True, help="directory to write to, or to go on with")
    parser.add_argument("--output-format", choices=("parquet", "delta"), default="parquet")
    parser.add_argument("--pipeline", help="JSON file as Compose.to_json writes it; it must end in Encode")
    parser.add_argument("--size", type=int, default=224, help="without --pipeline: side of the square to fit into")
    parser.add_argument("--encoding", choices=("jpeg", "png", "webp"), default="jpeg", help="without --pipeline")
    parser.add_argument("--quality", type=int, default=90, help="without --pipeline: 1 to 100, for jpeg and webp")
    parser.add_argument("--mode", choices=("PERMISSIVE", "DROPMALFORMED", "FAILFAST"), default="PERMISSIVE")
    parser.add_argument("--parts", type=int, default=8, help="how many steps, each of which is lost or kept whole")
    parser.add_argument("--seed", type=int, default=0, help="for random transforms; a row's key is its path")
    parser.add_argument("--epoch", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.parts < 1:
        parser.error("--parts must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the job; beside a local output, write its report and samples."""
    options = parse(arguments)
    spark = session(None, "sparkopt preprocess images")
    try:
        report = process(spark, options)
    except (ParameterError, SchemaError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    if "://" not in options.output:
        target = options.output.removeprefix("file:").rstrip("/")
        Path(f"{target}-report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        sheet = contact_sheet(spark, options)
        if sheet is not None:
            Path(f"{target}-samples.png").write_bytes(sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
