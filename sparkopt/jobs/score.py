r"""Score rows with a saved model, linear or deep: write predictions and probabilities next to the rows' columns.

    spark-submit --properties-file conf/local.conf jobs/score.py --model out --parquet rows.parquet --keep id \
        --output out/scored

Vectors are written as arrays, so that any reader can use them. The output also holds ``_manifest.json`` and
``_report.html``, which shows how many rows were scored, how fast, and the predictions.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.columns import column_type
from sparkopt.errors import ParameterError, SchemaError
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import prediction_charts
from sparkopt.jobs.choosing import needs_spark
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun, output_mode_flag
from sparkopt.jobs.invalid_rows import (
    INVALID,
    invalid_flag,
    invalid_measures,
    invalid_text,
    last_stage,
    mode_of,
    with_mode,
)
from sparkopt.jobs.metrics import is_classifier
from sparkopt.jobs.models import SavedModel, find_model
from sparkopt.jobs.raw_rows import known_types, raw_columns_of
from sparkopt.jobs.runtimes.base import InputRows, Runtime, Written
from sparkopt.jobs.sources import FEATURES, IMAGES, check_source, data_flags
from sparkopt.report.facts import Chart, Facts, Measure

if TYPE_CHECKING:
    from pyspark.ml import Model
    from pyspark.sql.types import DataType, StructType

__all__ = ["JOB", "check_features", "feature_columns", "main", "prepared", "width_of"]

FORMATS = ("parquet", "csv", "json", "delta")
FORMS = FORMATS[:2]
"""Formats that are written without Spark too."""


def declare(flags: Parser) -> None:
    """Add the flags."""
    flags.add_argument("--model", metavar="PATH", help="a saved model, or the output of a training job")
    data_flags(flags, features=None, label=None)
    flags.add_argument(
        "--keep", metavar="COLUMNS", help="with commas between; default: all input columns but features"
    )
    invalid_flag(flags, "skip leaves them out, keep writes them with a null prediction; both count them")
    flags.add_argument("--output", metavar="FOLDER", help="where to write")
    flags.add_argument("--output-format", choices=FORMATS, default="parquet", help="default: %(default)s")
    output_mode_flag(flags)


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    missing = [f"--{name}" for name in ("model", "output") if not getattr(args, name)]
    if missing:
        raise ParameterError(f"the following arguments are required: {', '.join(missing)}.")
    check_source(args)


def inputs(runtime: Runtime, args: argparse.Namespace) -> dict[str, Any]:
    """Return fingerprints of the model and of the rows."""
    model = runtime.fingerprint_of_files(find_model(runtime, args.model).uri)
    return {"model": model, "data": runtime.fingerprint(args.source)}


def prepared(model: Model, rows: InputRows) -> Model:
    """Return the model, with the feature columns that the flags name.

    Raises
    ------
    ParameterError
        For a pipeline, which knows its columns.
    """
    if not model.hasParam("featuresCol"):
        if rows.features is not None:
            raise ParameterError("--features is for models of features; the model is a pipeline, which has its own.")
        return model.copy()
    if rows.features is None or isinstance(rows.features, str):
        chosen = model.copy()
        if rows.features is not None:
            chosen.clear(chosen.getParam("featuresCols"))
            chosen.set(chosen.getParam("featuresCol"), rows.features)
        return chosen
    return model.copy({model.getParam("featuresCols"): rows.features})


def width_of(model: Model) -> int:
    """Return how many features a model has; 0 where it does not say."""
    return int(getattr(last_stage(model), "numFeatures", 0))


def feature_columns(model: Model) -> list[str]:
    """Return the model's feature columns; of a pipeline, those that it makes features of."""
    if not model.hasParam("featuresCol"):
        return raw_columns_of(model) or []
    if not model.hasParam("featuresCols"):
        return [model.getOrDefault("featuresCol")]
    several = model.getParam("featuresCols")
    return list(model.getOrDefault(several)) if model.isSet(several) else [model.getOrDefault("featuresCol")]


def check_features(model: Model, schema: StructType, args: argparse.Namespace) -> None:
    """Refuse rows without a column that the model reads, and say how to name another one."""
    for name in feature_columns(model):
        try:
            column_type(schema, name, FEATURES)
        except SchemaError as error:
            if args.features is not None or args.source.kind == IMAGES or not model.hasParam("featuresCol"):
                raise
            alike = [one.name for one in schema if _may_hold_images(one.dataType)] if _is_deep(model) else []
            other = f"--features {alike[0]}" if len(alike) == 1 else "--features with the names of others"
            raise SchemaError(f"{error} The model was trained on a column of that name: give {other}.") from None


def _is_deep(model: Model) -> bool:
    return type(model).__module__.startswith("sparkopt.deep.")


def _may_hold_images(kind: DataType) -> bool:
    return kind.typeName() == "binary" or (kind.typeName() == "struct" and "data" in kind.names)  # type: ignore[attr-defined]


def work(run: JobRun) -> JobResult:
    """Read, score, write."""
    args, runtime = run.args, run.runtime
    saved = find_model(runtime, args.model)
    loaded = saved.load(runtime)
    types = known_types(loaded)
    rows = runtime.read(
        args,
        labels=saved.labels,
        encoded=saved.is_deep,
        width=width_of(loaded),
        known=types,
        invalid=args.handle_invalid or mode_of(loaded),
    )
    model = with_mode(prepared(loaded, rows), args.handle_invalid)
    schema = runtime.schema(rows.rows)
    check_features(model, schema, args)
    kept = _kept(schema, args.keep, [] if raw_columns_of(model) else feature_columns(model))
    begin = time.perf_counter()
    made, written = runtime.write_scores(
        model, rows.rows, kept, run.target, form=args.output_format, mode=_mode(args), labels=_names(args, saved)
    )
    seconds = time.perf_counter() - begin
    columns, count = ", ".join([*kept, *made]), written.rows
    text = f"{count:,} rows scored by a {saved.kind.rpartition('.')[2]}: {mask(args.output)} has {columns}"
    text += invalid_text(written.invalid, mode_of(model))
    figures = {"rows": count} if written.invalid is None else {"rows": count, INVALID: written.invalid}
    outputs = {".": f"{args.output_format} table of {columns}"}
    return JobResult(figures, outputs, text, _page(args, saved, model, written, seconds))


def _page(args: argparse.Namespace, saved: SavedModel, model: Model, written: Written, seconds: float) -> Facts:
    """Return what the page shows: how many rows, how fast, and the predictions."""
    charts: tuple[Chart, ...] = ()
    if written.rows and written.values is not None:
        charts = prediction_charts(written.values, saved.labels, is_classifier=is_classifier(model))
    return Facts(
        f"Scores by a {saved.kind.rpartition('.')[2]}",
        f"{mask(args.model)} on {mask(str(args.source))}",
        (
            Measure("rows", written.rows, "count"),
            Measure("time", seconds, "seconds", "reading, scoring and writing"),
            Measure("rows a second", written.rows / seconds, "count"),
            *invalid_measures(written.invalid, "without a prediction" if mode_of(model) == "keep" else "left out"),
        ),
        charts,
    )


def _names(args: argparse.Namespace, saved: SavedModel) -> list[str]:
    """Return the names of the classes where the label had names; those of images are folders, and stay numbers."""
    return [] if args.source.kind == IMAGES or saved.is_deep else saved.labels


def _mode(args: argparse.Namespace) -> str:
    """Return the save mode; only a format that replaces a table atomically overwrites the output directly."""
    return "overwrite" if args.output_mode == "overwrite" or args.force else "errorifexists"


def _kept(schema: StructType, named: str | None, features: list[str]) -> list[str]:
    if named is None:
        return [name for name in schema.names if name not in features]
    names = [name.strip() for name in named.split(",") if name.strip()]
    for name in names:
        column_type(schema, name, "--keep")
    return names


def needs(args: argparse.Namespace) -> str:
    """Return why the flags need Spark, or "" where they do not."""
    if args.output_format not in FORMS:
        return f"--output-format {args.output_format} is written by Spark"
    return needs_spark(args.source)


JOB = Job(
    "score",
    __doc__ or "",
    declare,
    check,
    inputs,
    work,
    lambda args: "direct" if args.output_format == "delta" else "table",
    needs=needs,
)
main = JOB.main
