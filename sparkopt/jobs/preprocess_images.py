"""Preprocess a directory or a table of images into Parquet or Delta, in steps that a second run does not repeat.

    spark-submit --properties-file conf/local.conf jobs/preprocess_images.py --input photos --output out/small

Each row of the output has the columns path, image (encoded bytes; null for a bad image) and error (its reason).
The output also holds ``_manifest.json`` and ``_report.html``: counts, failures, throughput and some images before and
after. Next to a local output, ``<output>-report.json`` and ``<output>-samples.png`` contain the same. A run resumes
one that was stopped: it processes the images that are not in the output yet.

With ``--features`` the columns are path, features (numbers from 0 to 1) and label (the number of the image's folder)
instead. Training jobs read them from the folders ``split=train`` and ``split=test``: ``train`` takes the numbers of
``--form array`` and ``vector``, ``train-deep`` the images of ``--form tensor``, ``image`` and ``bytes``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import sparkopt  # sparkopt.images is loaded where it is used: --help needs no OpenCV
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import shortened
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun
from sparkopt.jobs.invalid_rows import INVALID, invalid_flag, invalid_measures
from sparkopt.jobs.locations import LocalLocation
from sparkopt.jobs.logs import logger
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.jobs.runtimes.images import ImageRows
from sparkopt.jobs.sources import COLORS, DataSource, check_share, no_images
from sparkopt.report.facts import Bars, Chart, Facts, Measure, Picture

__all__ = ["JOB", "main"]

MODES = {"PERMISSIVE": "keep", "DROPMALFORMED": "skip", "FAILFAST": "error"}
"""What images call it, by the words of all commands."""
FORMATS = ("binaryFile", "parquet", "delta", "table")
FORMS = ("bytes", "array", "vector", "tensor", "image")
"""How ``sparkopt.images.udf`` gives results."""


def pipeline_of(options: argparse.Namespace) -> sparkopt.images.Compose:
    """Return the pipeline of the JSON file, or one that fits images into a square."""
    if options.pipeline is None:
        fit = sparkopt.images.Letterbox(options.size, options.size)
        form = form_of(options)
        decode = sparkopt.images.Decode(options.color) if options.features else sparkopt.images.Decode()
        last: list[Any] = [sparkopt.images.Rescale(1 / 255)]
        if form == "bytes":
            last = [sparkopt.images.Encode(options.encoding, options.quality)]
        return sparkopt.images.Compose([decode, fit, *([] if form == "image" else last)])
    try:
        text = Path(options.pipeline).read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"--pipeline {options.pipeline!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"--pipeline {options.pipeline!r} is no text of Compose.to_json: {error}.") from error
    try:
        return sparkopt.images.Compose.from_json(text)
    except ParameterError as error:
        raise ParameterError(f"--pipeline {options.pipeline!r}: {error}") from error


def process(rows: ImageRows) -> dict[str, Any]:
    """Process the images that are missing in the output, part by part, and return the report."""
    names = rows.names() if rows.options.features else []
    skipped = rows.done()
    begin = time.perf_counter()
    with tqdm(rows.steps(), desc="preprocess", unit="part", mininterval=0) as progress:
        for step in progress:
            rows.process(step, names)
    seconds = time.perf_counter() - begin
    found = rows.reasons()
    counts = {reason: count for reason, count, _ in found}
    word = MODES[rows.kernel.mode]
    left_out, first = rows.missing() if word == "skip" else (0, "")
    total = sum(counts.values()) + left_out
    if not total:
        raise DataError(no_images(rows.options.input))
    if total == left_out:
        raise DataError(
            f"--input {mask(rows.options.input)!r}: none of {total:,} images can be decoded, such as {mask(first)}. "
            "--handle-invalid keep writes their reasons."
        )
    failed, good = {reason: path for reason, _, path in found if reason != "ok"}, counts.pop("ok", 0)
    return {
        "images": total,
        "skipped": skipped,
        "processed": total - skipped,
        "good": good,
        "failures": counts,
        "failed_first": failed | ({"left out": first} if left_out else {}),
        **({} if word == "error" else {INVALID: total - good}),
        "seconds": round(seconds, 3),
        "images_per_second": round((total - skipped) / seconds, 1),
        "pipeline": json.loads(rows.kernel.pipeline.to_json()),
    }


def samples(rows: ImageRows, count: int = 6) -> bytes | None:
    """Return a PNG with samples before (above) and after (below); None if there is no good image."""
    from sparkopt.images.contact_sheet import contact_sheet

    pairs = rows.samples(count)
    return sparkopt.images.encode(contact_sheet(pairs), "png") if pairs else None


def declare(flags: Parser) -> None:
    """Add the flags."""
    flags.add_argument("--input", metavar="PATH", help="directory, glob, or table with the columns path and content")
    flags.add_argument(
        "--input-format",
        choices=FORMATS,
        default="binaryFile",
        help="binaryFile: image files; else a table, with the columns path and content (default: %(default)s)",
    )
    flags.add_argument("--output", metavar="FOLDER", help="directory to write to, or to resume")
    flags.add_argument(
        "--output-format", choices=("parquet", "delta"), default="parquet", help="(default: %(default)s)"
    )
    flags.add_argument("--pipeline", help="JSON file as Compose.to_json writes it; ends in Encode, unless --features")
    flags.add_argument("--size", type=int, default=224, help="without --pipeline: side of the square to fit into")
    flags.add_argument("--encoding", choices=("jpeg", "png", "webp"), default="jpeg", help="without --pipeline")
    flags.add_argument("--quality", type=int, default=90, help="without --pipeline: 1 to 100, for jpeg and webp")
    flags.add_argument(
        "--device",
        choices=("cpu", "opencl", "auto"),
        default="cpu",
        help="what resizes and warps: the processor, or OpenCV's OpenCL device (default: %(default)s)",
    )
    meaning = "skip leaves them out, keep writes null and the reason, and counts them"
    invalid_flag(flags, meaning, default="keep", what="images that cannot be decoded")
    flags.add_argument("--mode", choices=tuple(MODES), help="the earlier names of --handle-invalid keep, skip, error")
    rows = flags.add_argument_group("rows to train on")
    rows.add_argument("--features", action="store_true", help="write features and label in place of encoded images")
    rows.add_argument(
        "--form",
        choices=FORMS,
        help="of --features: array or vector (numbers, for train), tensor (shape, dtype and data), image (Spark's "
        "image schema) or bytes (encoded), for train-deep (default: array)",
    )
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
    flags.add_argument(
        "--epoch", type=int, default=0, help="random transforms draw again in each epoch (default: %(default)s)"
    )


def kernel_of(options: argparse.Namespace) -> sparkopt.images.ImageKernel:
    """Return the kernel that processes images."""
    output, pipeline = form_of(options), pipeline_of(options)
    if options.device != "cpu":
        pipeline = sparkopt.images.Compose(pipeline.transforms, options.device)
    return sparkopt.images.ImageKernel(pipeline, output, mode_of(options), options.seed, options.epoch)


def form_of(options: argparse.Namespace) -> str:
    """Return how results are written, one of ``FORMS``."""
    return options.form or ("array" if options.features else "bytes")


def mode_of(options: argparse.Namespace) -> str:
    """Return what becomes of bad images, as ``sparkopt.images`` calls it."""
    if options.mode is not None:
        return str(options.mode)
    return next(mode for mode, word in MODES.items() if word == options.handle_invalid)


def check(options: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    missing = [f"--{name}" for name in ("input", "output") if not getattr(options, name)]
    if missing:
        raise ParameterError(f"the following arguments are required: {', '.join(missing)}.")
    if options.parts < 1:
        raise ParameterError(f"--parts must be at least 1. Got {options.parts} instead.")
    for name in ("seed", "epoch"):
        if getattr(options, name) < 0:
            raise ParameterError(f"--{name} must be >= 0. Got {getattr(options, name)} instead.")
    if options.labels and not options.features:
        raise ParameterError("--labels is for --features, which writes the labels. Give both, or neither.")
    if options.form not in (None, "bytes") and not options.features:
        raise ParameterError(f"--form {options.form} is for --features, without which images are written as bytes.")
    check_share("--test-fraction", options.test_fraction)
    if options.mode is not None and options.handle_invalid not in ("keep", MODES[options.mode]):
        raise ParameterError(
            f"--mode {options.mode} is --handle-invalid {MODES[options.mode]}, and --handle-invalid is "
            f"{options.handle_invalid}: give one of them."
        )
    kernel_of(options)


def inputs(runtime: Runtime, options: argparse.Namespace) -> dict[str, Any]:
    """Return the fingerprint of the images, and their processing."""
    kernel = kernel_of(options)
    runtime.images(options, kernel, runtime.location(options.output)).check()
    kind = "images" if options.input_format == "binaryFile" else options.input_format
    made = {"steps": json.loads(kernel.pipeline.to_json()), "mode": mode_of(options)}
    usual = "array" if options.features else "bytes"  # earlier runs do not name it
    made |= {"form": form_of(options)} if form_of(options) != usual else {}
    drawn = {"seed": options.seed, "epoch": options.epoch} if kernel.pipeline.random else {}
    return {"data": runtime.fingerprint(DataSource(kind, options.input)), "pipeline": made | drawn}


def resumes(name: str, earlier: Any, now: Any) -> bool:
    """Whether an output may be resumed: rows of good images alone, as error and skip leave them, fit every mode."""
    if name == "data" or earlier == now:
        return True
    if not isinstance(earlier, Mapping) or earlier.get("mode") == "PERMISSIVE":
        return False
    return bool({**earlier, "mode": now["mode"]} == now)


def work(run: JobRun) -> JobResult:
    """Process the images; next to a local output, write report and samples."""
    options = run.args
    rows = run.runtime.images(options, kernel_of(options), run.target)
    report = process(rows)
    text = json.dumps(report, indent=2)
    sheet = None if options.features else samples(rows)
    output = run.runtime.location(options.output)
    if isinstance(output, LocalLocation):
        Path(f"{output.path}-report.json").write_text(text + "\n", encoding="utf-8")
        if sheet is not None:
            Path(f"{output.path}-samples.png").write_bytes(sheet)
    columns = "path, features, label and split" if options.features else "path, image and error"
    outputs = {".": f"{options.output_format} table of {columns}"}
    named = ("images", "good", "failures", INVALID, "images_per_second")
    figures = {name: report[name] for name in named if name in report}
    if mode_of(options) == "DROPMALFORMED" and report[INVALID]:
        where, first = mask(options.input), mask(report["failed_first"]["left out"])
        logger.warning("%s: %d images cannot be decoded and are left out, such as %s", where, report[INVALID], first)
    return JobResult(figures, outputs, text, page(options, report, sheet))


def page(options: argparse.Namespace, report: Mapping[str, Any], sheet: bytes | None) -> Facts:
    """Return the page of a report and of samples."""
    failures: dict[str, int] = report["failures"]
    what = "left out" if mode_of(options) == "DROPMALFORMED" else "written as null, with the reason"
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
            *invalid_measures(report.get(INVALID), what, "images"),
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


def needs(options: argparse.Namespace) -> str:
    """Return why the flags need Spark, or "" where they do not."""
    if options.input_format != "binaryFile":
        return f"--input-format {options.input_format} is read by Spark"
    if options.output_format != "parquet":
        return f"--output-format {options.output_format} is written by Spark"
    return ""


# Python workers exchange data through Unix sockets instead of the network (from Spark 4.1).
SETTINGS = {"spark.python.unix.domain.socket.enabled": "true"}
JOB = Job("preprocess-images", __doc__ or "", declare, check, inputs, work, kind, SETTINGS, needs, resumes=resumes)
main = JOB.main
