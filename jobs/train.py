#!/usr/bin/env python
r"""Train a model on images or on a table, evaluate it on held-out rows, and leave model, receipt and plot behind.

    spark-submit --properties-file conf/local.conf jobs/train.py --images out/digits --output out
    spark-submit --properties-file conf/local.conf jobs/train.py --parquet rows.parquet --features x1,x2 --label y \
        --loss squared_error --reg-param 0.1 --elastic-net-param 0.5 --optimizer fista --output out

The output folder then holds model/ (load it with sparkopt.ml), receipt.json, receipt.txt, metrics.json, and loss.png.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from pyspark.errors import AnalysisException, PySparkException, PythonException
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from sparkopt import images
from sparkopt.blocks.columns import column_type, is_number
from sparkopt.cluster.choose import ENGINES
from sparkopt.cluster.session import session
from sparkopt.errors import DataError, SparkoptError
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.model import LinearModel
from sparkopt.optim import OPTIMIZERS, schedules

ESTIMATORS: Mapping[str, Callable[[], LinearEstimator]] = MappingProxyType(
    {
        "logistic": lambda: LogisticRegression(family="binomial"),
        "multinomial": lambda: LogisticRegression(family="multinomial"),
        "hinge": lambda: LinearSVC(),
        "squared_hinge": lambda: LinearSVC(loss="squaredHinge"),
        "squared_error": lambda: LinearRegression(),
        "huber": lambda: LinearRegression(loss="huber"),
        "quantile": lambda: QuantileRegression(),
        "poisson": lambda: GeneralizedLinearRegression(family="poisson"),
        "gamma": lambda: GeneralizedLinearRegression(family="gamma"),
        "tweedie": lambda: GeneralizedLinearRegression(family="tweedie", variancePower=1.5, linkPower=0.0),
    }
)
"""What each loss trains."""
CLASSIFIERS = ("logistic", "multinomial", "hinge", "squared_hinge")
LABEL, FEATURES = "label", "features"


class Parser(argparse.ArgumentParser):
    """Answers a wrong flag with one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists all flags)\n")


def parser() -> Parser:
    """Return the command line."""
    defaults = LogisticRegression()
    flags = Parser("train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    data = flags.add_argument_group("data: one of --images and --parquet")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="FOLDER", help="image files; the name of each one's folder is its label")
    source.add_argument("--parquet", metavar="PATH", help="a Parquet file or folder with features and label")
    data.add_argument(
        "--features",
        metavar="COLUMNS",
        default=FEATURES,
        help="Vector, array or numeric columns, with commas between them (default: %(default)s)",
    )
    data.add_argument("--label", metavar="COLUMN", default=LABEL, help="target column (default: %(default)s)")
    data.add_argument("--weight", metavar="COLUMN", help="row weights (default: every row weighs 1)")
    data.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        default=32,
        help="width and height that images are resized to (default: %(default)s)",
    )
    data.add_argument("--color", choices=("gray", "rgb"), default="gray", help="default: %(default)s")
    data.add_argument(
        "--test-fraction",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the rows held out for evaluation (default: %(default)s)",
    )

    model = flags.add_argument_group("model")
    model.add_argument(
        "--loss", choices=tuple(ESTIMATORS), help="default: logistic for two classes, else multinomial"
    )
    model.add_argument(
        "--reg-param",
        type=float,
        default=defaults.getRegParam(),
        help="strength of the penalty (default: %(default)s, none)",
    )
    model.add_argument(
        "--elastic-net-param",
        type=float,
        default=defaults.getElasticNetParam(),
        help="share of L1 in the penalty: 0 is L2, 1 is L1 (default: %(default)s)",
    )
    model.add_argument("--no-intercept", action="store_true", help="fit without an intercept")
    model.add_argument(
        "--no-standardization", action="store_true", help="penalise coefficients in the features' own units"
    )

    solver = flags.add_argument_group("solver")
    solver.add_argument(
        "--optimizer",
        choices=("auto", *OPTIMIZERS),
        default=defaults.getOptimizer(),
        help="auto is lbfgs, or fista with an L1 penalty (default: %(default)s)",
    )
    solver.add_argument("--step-size", type=float, help="learning rate (default: the optimiser's own)")
    solver.add_argument(
        "--step-size-schedule",
        choices=schedules.NAMES,
        default=defaults.getStepSizeSchedule(),
        help="default: %(default)s",
    )
    solver.add_argument(
        "--max-iter", type=int, default=defaults.getMaxIter(), help="most steps (default: %(default)s)"
    )
    solver.add_argument(
        "--tol",
        type=float,
        default=defaults.getTol(),
        help="relative change of the objective that ends the fit (default: %(default)s)",
    )
    solver.add_argument(
        "--mini-batch-fraction",
        type=float,
        default=defaults.getMiniBatchFraction(),
        help="share of the rows that a step draws (default: %(default)s)",
    )
    solver.add_argument(
        "--engine",
        choices=ENGINES,
        default=defaults.getEngine(),
        help="where the training loop runs; auto takes the cheapest (default: %(default)s)",
    )
    solver.add_argument(
        "--checkpoint-dir",
        metavar="URI",
        help="keep the state there, so that the same command goes on after it was killed",
    )
    solver.add_argument("--seed", type=int, default=defaults.getSeed(), help="default: %(default)s")

    flags.add_argument("--output", metavar="FOLDER", default="out", help="default: %(default)s")
    return flags


def image_files(spark: SparkSession, folder: str) -> tuple[DataFrame, list[str]]:
    """Return image files as rows of content, label and path, and the names of the labels in their order."""
    files = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", "*.{png,jpg,jpeg,webp,bmp,tif,tiff}")
        .load(folder)
    )
    parent = F.element_at(F.split("path", "/"), -2)
    names = sorted(row[0] for row in files.select(parent).distinct().collect())
    return files.select("content", (F.array_position(F.lit(names), parent) - 1).alias(LABEL), "path"), names


def check_classes(names: list[str], folder: str) -> None:
    """Refuse a folder that a classifier cannot learn from."""
    if len(names) < 2:
        raise DataError(f"{folder!r} has images of {len(names)} classes; a classifier needs two folders or more.")


def read_images(spark: SparkSession, args: argparse.Namespace) -> tuple[DataFrame, list[str]]:
    """Return images as rows of features and label, and the names of the labels in their order."""
    files, names = image_files(spark, args.images)
    if args.loss in (None, *CLASSIFIERS):
        check_classes(names, args.images)
    size = args.image_size
    pipeline = images.Compose([images.Decode(args.color), images.Resize(size, size), images.Rescale(1 / 255)])
    rows = files.select(images.udf(pipeline, output="array")("content").alias(FEATURES), LABEL, "path")
    args.features, args.label, args.weight = FEATURES, LABEL, None
    return rows, names


def read_table(spark: SparkSession, args: argparse.Namespace) -> tuple[DataFrame, list[str]]:
    """Return the table."""
    return spark.read.parquet(args.parquet), []


def split(rows: DataFrame, fraction: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Return training and held-out rows: decided by an image's path or a row's content, so no rerun moves a row."""
    names = ["path"] if "path" in rows.columns else rows.columns
    key = F.pmod(F.xxhash64(F.lit(seed), *[F.col(f"`{name}`") for name in names]), F.lit(1_000_000))
    held_out = key < int(fraction * 1_000_000)
    return rows.where(~held_out), rows.where(held_out)


def estimator(args: argparse.Namespace, schema: StructType | None = None) -> LinearEstimator:
    """Return the estimator that the flags describe; ``schema`` tells one numeric column from one of vectors."""
    chosen = ESTIMATORS[args.loss]() if args.loss else LogisticRegression()
    features = args.features.split(",")
    several = len(features) > 1 or (schema is not None and is_number(column_type(schema, features[0], FEATURES)))
    chosen = chosen.setFeaturesCols(features) if several else chosen.setFeaturesCol(features[0])
    chosen.setLabelCol(args.label).setRegParam(args.reg_param).setElasticNetParam(args.elastic_net_param)
    chosen.setFitIntercept(not args.no_intercept).setStandardization(not args.no_standardization)
    chosen.setOptimizer(args.optimizer).setMaxIter(args.max_iter).setTol(args.tol).setSeed(args.seed)
    chosen.setMiniBatchFraction(args.mini_batch_fraction).setEngine(args.engine)
    chosen.setStepSizeSchedule(args.step_size_schedule)
    if args.weight:
        chosen.setWeightCol(args.weight)
    if args.checkpoint_dir:
        chosen.setCheckpointDir(args.checkpoint_dir)
    if args.step_size is not None:
        chosen.setStepSize(args.step_size)
    return chosen


def evaluate(model: LinearModel, rows: DataFrame, label: str) -> dict[str, float]:
    """Return the metrics of the model on ``rows``."""
    scored = model.transform(rows).select(F.col(f"`{label}`").cast("double").alias(LABEL), "prediction").cache()
    try:
        count = scored.count()
        if count == 0:
            raise DataError("no rows were held out: raise --test-fraction.")
        if model.hasParam("rawPredictionCol"):
            accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored)
            return {"rows": count, "accuracy": accuracy}
        found = {name: RegressionEvaluator(metricName=name).evaluate(scored) for name in ("rmse", "r2")}
        return {"rows": count, **found}
    finally:
        scored.unpersist()


def save(model: LinearModel, metrics: dict[str, float], labels: list[str], output: Path) -> None:
    """Write model, metrics, receipt and plot below ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    model.write().overwrite().save(str(output / "model"))
    receipt = model.summary.receipt
    receipt.save(output / "receipt.json")
    (output / "receipt.txt").write_text(f"{receipt}\n", encoding="utf-8")
    (output / "metrics.json").write_text(json.dumps({"held_out": metrics, "labels": labels}, indent=2) + "\n")
    receipt.plot(output / "loss.png")


def train(spark: SparkSession, args: argparse.Namespace) -> None:
    """Read, train, evaluate, save."""
    rows, labels = (read_images if args.images else read_table)(spark, args)
    learner = estimator(args, rows.schema)
    learner._columns().check(rows.schema)
    training, held_out = split(rows, args.test_fraction, args.seed)
    model = learner.fit(training)
    metrics = evaluate(model, held_out, args.label)
    save(model, metrics, labels, Path(args.output))
    print(model.summary.receipt)
    print("held out  " + "  ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    print(f"saved in {args.output}: model/ metrics.json receipt.json receipt.txt loss.png")


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    flags = parser()
    args = flags.parse_args(argv)
    if not 0 < args.test_fraction < 1:
        flags.error(f"--test-fraction must lie between 0 and 1. Got {args.test_fraction:g} instead.")
    if args.image_size < 1:
        flags.error(f"--image-size must be at least 1. Got {args.image_size} instead.")
    try:
        estimator(args)._check()
    except SparkoptError as error:
        flags.error(str(error))
    return guarded("train", lambda spark: train(spark, args), args.images or args.parquet)


def guarded(job: str, work: Callable[[SparkSession], None], source: str) -> int:
    """Run a job's work in a session of its own; tell a failure in one line. Returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    spark = session(app_name=f"sparkopt {job}")
    try:
        work(spark)
    except SparkoptError as error:
        return fail(job, str(error))
    except AnalysisException as error:
        return fail(job, f"cannot read {source!r}: {essence(error)}")
    except PySparkException as error:
        return fail(job, f"Spark failed: {essence(error)}")
    finally:
        spark.stop()
    return 0


def essence(error: PySparkException) -> str:
    """Return the sentence of a Spark error without its plan and stack; of a Python worker's error, the last line."""
    said = re.sub(r"\s*SQLSTATE: \w+", "", str(error)).strip().splitlines()
    return said[-1].strip() if isinstance(error, PythonException) else said[0]


def fail(job: str, reason: str) -> int:
    """Print one line; return exit code 1."""
    print(f"{job}.py: error: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
