r"""Score rows with a saved model, linear or deep: write predictions and probabilities next to the rows' columns.

    spark-submit --properties-file conf/local.conf jobs/score.py --model out --parquet rows.parquet --keep id \
        --output out/scored

Vectors are written as arrays, so that any reader can use them. The output also holds ``_manifest.json`` and
``_report.html``, which shows how many rows were scored, how fast, and the predictions.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from pyspark.ml import Model
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType

from sparkopt.blocks.columns import column_type, quoted
from sparkopt.errors import ParameterError
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import prediction_charts
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun
from sparkopt.jobs.metrics import is_classifier
from sparkopt.jobs.models import SavedModel, find_model
from sparkopt.jobs.sources import (
    FEATURES,
    InputRows,
    check_source,
    data_flags,
    fingerprint,
    fingerprint_of_files,
    read,
)
from sparkopt.report.facts import Chart, Facts, Measure

__all__ = ["JOB", "feature_columns", "main", "prepared"]

FORMATS, MODES = ("parquet", "csv", "json", "delta"), ("errorifexists", "overwrite")


def declare(flags: Parser) -> None:
    """Add the flags."""
    flags.add_argument("--model", metavar="PATH", help="a saved model, or the output of a training job")
    data_flags(flags, features=None, label=None)
    flags.add_argument(
        "--keep", metavar="COLUMNS", help="with commas between; default: all input columns but features"
    )
    flags.add_argument("--output", metavar="FOLDER", help="where to write")
    flags.add_argument("--output-format", choices=FORMATS, default="parquet", help="default: %(default)s")
    flags.add_argument("--output-mode", choices=MODES, default="errorifexists", help="default: %(default)s")


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    missing = [f"--{name}" for name in ("model", "output") if not getattr(args, name)]
    if missing:
        raise ParameterError(f"the following arguments are required: {', '.join(missing)}.")
    check_source(args)


def inputs(spark: SparkSession, args: argparse.Namespace) -> dict[str, Any]:
    """Return fingerprints of the model and of the rows."""
    model = fingerprint_of_files(spark, find_model(spark, args.model).uri)
    return {"model": model, "data": fingerprint(spark, args.source)}


def prepared(model: Model, rows: InputRows) -> Model:
    """Return the model, with the feature columns that the flags name."""
    if rows.features is None or isinstance(rows.features, str):
        chosen = model.copy()
        if rows.features is not None:
            chosen.clear(chosen.getParam("featuresCols"))
            chosen.set(chosen.getParam("featuresCol"), rows.features)
        return chosen
    return model.copy({model.getParam("featuresCols"): rows.features})


def feature_columns(model: Model) -> list[str]:
    """Return the model's feature columns."""
    several = model.getParam("featuresCols")
    return list(model.getOrDefault(several)) if model.isSet(several) else [model.getOrDefault("featuresCol")]


def work(run: JobRun) -> JobResult:
    """Read, score, write."""
    args, spark = run.args, run.spark
    saved = find_model(spark, args.model)
    rows = read(spark, args, labels=saved.labels, encoded=saved.is_deep)
    model = prepared(saved.load(), rows)
    for name in feature_columns(model):
        column_type(rows.df.schema, name, FEATURES)
    kept = _kept(rows.df, args.keep, feature_columns(model))
    scored = model.transform(rows.df)
    made = [name for name in scored.columns if name not in rows.df.columns]
    table = scored.select(*[_plain(scored, name, args.output_format) for name in [*kept, *made]])
    options = {"header": "true"} if args.output_format == "csv" else {}
    begin = time.perf_counter()
    table.write.format(args.output_format).options(**options).mode(_mode(args)).save(run.target.uri)
    seconds = time.perf_counter() - begin
    written = spark.read.format(args.output_format).options(**options).load(run.target.uri)
    count, columns = written.count(), [*kept, *made]
    text = f"{count:,} rows scored by a {saved.kind.rpartition('.')[2]}: {mask(args.output)} has {', '.join(columns)}"
    outputs = {".": f"{args.output_format} table of {', '.join(columns)}"}
    return JobResult({"rows": count}, outputs, text, _page(args, saved, model, written, count, seconds))


def _page(
    args: argparse.Namespace, saved: SavedModel, model: Model, written: DataFrame, count: int, seconds: float
) -> Facts:
    """Return what the page shows: how many rows, how fast, and the predictions."""
    column = model.getOrDefault("predictionCol") if model.hasParam("predictionCol") else ""
    charts: tuple[Chart, ...] = ()
    if count and column in written.columns:
        charts = prediction_charts(written, column, saved.labels, is_classifier=is_classifier(model))
    return Facts(
        f"Scores by a {saved.kind.rpartition('.')[2]}",
        f"{mask(args.model)} on {mask(args.source.location)}",
        (
            Measure("rows", count, "count"),
            Measure("time", seconds, "seconds", "reading, scoring and writing"),
            Measure("rows a second", count / seconds, "count"),
        ),
        charts,
    )


def _mode(args: argparse.Namespace) -> str:
    """Return Spark's save mode; only a format that replaces a table atomically overwrites the output directly."""
    return "overwrite" if args.output_mode == "overwrite" or args.force else "errorifexists"


def _kept(df: DataFrame, named: str | None, features: list[str]) -> list[str]:
    if named is None:
        return [name for name in df.columns if name not in features]
    names = [name.strip() for name in named.split(",") if name.strip()]
    for name in names:
        column_type(df.schema, name, "--keep")
    return names


def _plain(df: DataFrame, name: str, form: str) -> Any:
    """Return a column that the format can hold: vectors as arrays, and both as JSON in CSV, which has neither."""
    kind, column = df.schema[name].dataType, F.col(quoted(name))
    is_vector = isinstance(kind, VectorUDT)
    if is_vector:
        column = vector_to_array(column)
    if form == "csv" and (is_vector or isinstance(kind, (ArrayType, MapType, StructType))):
        column = F.to_json(column)
    return column.alias(name)


JOB = Job(
    "score",
    __doc__ or "",
    declare,
    check,
    inputs,
    work,
    lambda args: "direct" if args.output_format == "delta" else "table",
)
main = JOB.main
