#!/usr/bin/env python
"""Preprocess a directory or a table of images into Parquet or Delta, in steps that a second run does not repeat.

    spark-submit --properties-file conf/local.conf jobs/preprocess_images.py --input photos --output out/small

Each row of the output has the columns path, image (encoded bytes; null for a bad image) and error (its reason).
Beside it, ``<output>-report.json`` holds counts, failures and throughput, and ``<output>-samples.png`` shows
some images before and after. A run that was stopped goes on with the images that are not in the output yet.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as SF
from tqdm import tqdm

from sparkopt import images
from sparkopt.cluster.session import session
from sparkopt.errors import ParameterError, SchemaError
from sparkopt.typing import Array

FORMATS = ("binaryFile", "parquet", "delta", "table")


def pipeline_of(options: argparse.Namespace) -> images.Compose:
    """Read the pipeline from its JSON file, or make one that fits the image into a square."""
    if options.pipeline is None:
        fit = images.Letterbox(options.size, options.size)
        return images.Compose([images.Decode(), fit, images.Encode(options.encoding, options.quality)])
    return images.Compose.from_json(Path(options.pipeline).read_text(encoding="utf-8"))


def read_input(spark: SparkSession, location: str, kind: str) -> DataFrame:
    """Return the columns path, length and content of all images; a table must have path and content."""
    if kind == "binaryFile":
        return images.read(spark, location).drop("label")
    table = spark.read.table(location) if kind == "table" else spark.read.format(kind).load(location)
    missing = {"path", "content"} - set(table.columns)
    if missing:
        raise SchemaError(f"--input: the table has no column {', '.join(sorted(missing))}. It has {table.columns}.")
    return table.select("path", SF.coalesce(SF.octet_length("content"), SF.lit(0)).alias("length"), "content")


def steps(pending: DataFrame, parts: int) -> list[Column]:
    """Conditions that cut ``pending`` into parts of about as many images each; none if nothing is pending.

    They are ranges of the files' length: the one condition that Spark applies before it opens a file, so that no part
    reads the files of another.
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
    begin = time.perf_counter()
    conditions = steps(pending, options.parts)
    with tqdm(conditions, desc="preprocess", unit="part", file=sys.stdout, mininterval=0) as progress:
        for condition in progress:
            rows = pending.where(condition).select("path", "content")
            result = rows.mapInArrow(function, function.schema(rows.schema))
            result.write.format(options.output_format).mode("append").save(options.output)
    seconds = time.perf_counter() - begin
    reason = SF.coalesce(SF.substring_index("error", ":", 1), SF.lit("ok"))
    counted = read_output(spark, options.output, options.output_format)
    grouped = None if counted is None else counted.groupBy(reason.alias("reason"))
    rows = (
        [] if grouped is None else grouped.agg(SF.count("*").alias("count"), SF.min("path").alias("path")).collect()
    )
    counts = {row["reason"]: row["count"] for row in rows}
    total = sum(counts.values())
    return {
        "images": total,
        "skipped": skipped,
        "processed": total - skipped,
        "good": counts.pop("ok", 0),
        "failures": counts,
        "failed_first": {row["reason"]: row["path"] for row in rows if row["reason"] != "ok"},
        "seconds": round(seconds, 3),
        "images_per_second": round((total - skipped) / seconds, 1),
        "pipeline": json.loads(kernel.pipeline.to_json()),
    }


def contact_sheet(spark: SparkSession, options: argparse.Namespace, count: int = 6) -> bytes | None:
    """Return a PNG with samples before (above) and after (below); None if there is no good image."""
    written = read_output(spark, options.output, options.output_format)
    chosen = [] if written is None else written.where("image is not null").orderBy(SF.xxhash64("path")).limit(count)
    after = {row.path: bytes(row.image) for row in chosen.collect()} if written is not None else {}
    source = read_input(spark, options.input, options.input_format).select("path", "content")
    rows = source.where(SF.col("path").isin(list(after))).collect() if after else []
    before = {row.path: bytes(row.content) for row in rows}
    pairs = [(path, before[path], image) for path, image in after.items() if path in before]
    return images.encode(draw_sheet(pairs), "png") if pairs else None


def draw_sheet(pairs: list[tuple[str, bytes, bytes]], side: int = 220, gap: int = 18, caption: int = 26) -> Array:
    """Draw (path, before, after) as columns of two tiles, each over its size; file names stand on top."""
    ground, ink, faint = (250, 250, 248), (40, 40, 44), (130, 130, 136)
    top, left = gap + caption, gap + 66
    height, width = top + 2 * (side + caption + gap), left + len(pairs) * (side + gap)
    sheet = np.full((height, width, 3), ground, np.uint8)

    def write(text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, 0.42, color, 1, cv2.LINE_AA)

    for index, (path, *encoded) in enumerate(pairs):
        x = left + index * (side + gap)
        name = unquote(path).rsplit("/", 1)[-1].encode("ascii", "replace").decode()
        write(name if len(name) <= 26 else f"{name[:23]}...", x, gap + 14, ink)
        for row, data in enumerate(encoded):
            y, (rows, columns) = top + row * (side + caption + gap), images.read_header(data).size
            shown = images.Compose([images.Decode(), images.ResizeLongerSide(side)])(data)
            down, across = y + (side - shown.shape[0]), x  # tiles stand on one line
            sheet[down : down + shown.shape[0], across : across + shown.shape[1]] = shown
            write(f"{columns} x {rows}, {len(data) / 1000:,.0f} kB", x, y + side + 18, faint)
    for row, word in enumerate(("before", "after")):
        write(word, gap, top + row * (side + caption + gap) + side, ink)
    return sheet


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
    # Sockets in the file system rather than the network's carry what Python workers read and write (from Spark 4.1).
    spark = session(None, "sparkopt preprocess images", {"spark.python.unix.domain.socket.enabled": "true"})
    images.bound_batches(spark)
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
