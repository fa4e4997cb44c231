#!/usr/bin/env python
"""Time whole processes from raw rows in Parquet to a saved model and scores: sparkopt, scikit-learn, pyspark.ml.

    python jobs/bench/raw.py --rows 1000000 --runs 3 --sides sparkopt scikit-learn pyspark

Rows have 10 columns of text (2 to 10,000 values), 10 numbers with nulls, a date and a label of two classes. Each side
is a process of its own: it fits imputation, categories and a logistic regression (L2), saves the model, and writes
the probabilities of held-out rows. The penalty is on the coefficients as they are: with standardized ones, rare
categories would hardly be penalised, on Spark and here, and scikit-learn does not do that. Runs are in turn; medians
of wall and processor seconds are compared. The log loss of all sides must agree, else the benchmark fails.
``sparkopt-spark`` is sparkopt on Spark. ``--warm`` compares the two on Spark in a session that has done the same once
before, as in a notebook or on a cluster that is up: without the JVM's start, and with its compiled code.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [2, 3, 5, 10, 30, 100, 300, 1000, 3000, 10_000]
NUMBERS = 10
REG_PARAM = 1e-4
WARM = "warm"
"""Name of the file that asks for a second time."""
LEEWAY = 0.002
"""How much larger than the least log loss one may be."""
NAMES = [f"word{index}" for index in range(len(WORDS))], [f"number{index}" for index in range(NUMBERS)]


def write_rows(folder: Path, rows: int, parts: int = 8) -> None:
    """Write training rows in several files, and a tenth as many to score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    effects = [rng.normal(0, 0.4, size) for size in WORDS]
    slopes = rng.normal(0, 0.3, NUMBERS)
    for name, count in (("train", rows), ("new", rows // 10)):
        (folder / name).mkdir(parents=True)
        for part in range(parts):
            n, columns, raw = count // parts, {}, np.zeros(count // parts)
            for column, size, effect in zip(NAMES[0], WORDS, effects, strict=True):
                place = np.minimum(rng.exponential(size / 4, n).astype(int), size - 1)
                raw += effect[place]
                columns[column] = pa.array(np.array([f"{column} {index}" for index in range(size)])[place])
            for column, slope in zip(NAMES[1], slopes, strict=True):
                values = rng.normal(size=n)
                raw += slope * values
                columns[column] = pa.array(values, mask=rng.random(n) < 0.05)
            columns["date"] = pa.array(rng.integers(18_000, 19_500, n).astype("datetime64[D]"))
            columns["label"] = pa.array((raw + rng.logistic(size=n) > 0).astype(np.int64))
            pq.write_table(pa.table(columns), folder / name / f"part-{part}.parquet")


def sparkopt_machine(folder: Path, out: Path) -> None:
    """Fit and score by sparkopt on this machine."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sparkopt.ml import LogisticRegression, Pipeline, TableFeatures

    pipeline = Pipeline(stages=[TableFeatures(), LogisticRegression(regParam=REG_PARAM, standardization=False)])
    model = pipeline.fit(str(folder / "train"))
    model.save(str(out / "model"))
    scored: Any = model.transform(str(folder / "new"))
    names = ("label", "probability", "prediction")
    schema = pa.schema([scored.schema.field(name) for name in names])
    with pq.ParquetWriter(out / "scores.parquet", schema) as file:
        for part in scored.partitions:
            for batch in part.batches(names):
                file.write_batch(batch)


def spark_session() -> Any:
    """Return a session of this machine's cores."""
    from pyspark.sql import SparkSession

    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4", "spark.driver.memory": "4g"}
    builder = SparkSession.builder.master(f"local[{os.cpu_count()}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def on_spark(pipeline: Any, folder: Path, out: Path) -> None:
    """Fit and score a pipeline on Spark; twice where a file asks for it, which gets the second time's seconds."""
    from pyspark.ml.functions import vector_to_array

    spark, seconds = spark_session(), 0.0
    for _ in range(2 if (out / WARM).exists() else 1):
        begin = time.perf_counter()
        model = pipeline.fit(spark.read.parquet(str(folder / "train")))
        model.write().overwrite().save(str(out / "model"))
        scored = model.transform(spark.read.parquet(str(folder / "new")))
        scored.select("label", vector_to_array("probability").alias("probability"), "prediction").write.mode(
            "overwrite"
        ).parquet(str(out / "scores.parquet"))
        seconds = time.perf_counter() - begin
    if (out / WARM).exists():
        (out / WARM).write_text(str(seconds))
    end(spark)


def end(spark: Any) -> None:
    """Stop the session and wait for its JVM, so that its processor time counts as this process's."""
    gateway = spark.sparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(120)


def sparkopt_spark(folder: Path, out: Path) -> None:
    """Fit and score by sparkopt on Spark."""
    from sparkopt.ml import LogisticRegression, Pipeline, TableFeatures

    spark_session()
    on_spark(
        Pipeline(stages=[TableFeatures(), LogisticRegression(regParam=REG_PARAM, standardization=False)]), folder, out
    )


PARTS = (
    "SELECT *, year(date) AS y, month(date) AS m, dayofmonth(date) AS d, dayofweek(date) AS w, "
    "datediff(date, '2019-01-01') AS n FROM __THIS__"
)


def pyspark(folder: Path, out: Path) -> None:
    """Fit and score by pyspark.ml's own stages."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import Imputer, OneHotEncoder, SQLTransformer, StringIndexer, VectorAssembler

    spark_session()
    words, numbers = NAMES
    indexed, hot, filled = (
        [f"{name}_{end}" for name in which] for which, end in ((words, "i"), (words, "h"), (numbers, "f"))
    )
    stages = [
        SQLTransformer(statement=PARTS),
        StringIndexer(inputCols=words, outputCols=indexed, handleInvalid="keep"),
        OneHotEncoder(inputCols=indexed, outputCols=hot),
        Imputer(inputCols=numbers, outputCols=filled),
        VectorAssembler(inputCols=[*hot, *filled, *"ymdwn"], outputCol="features"),
        LogisticRegression(regParam=REG_PARAM, standardization=False),
    ]
    on_spark(Pipeline(stages=stages), folder, out)


def scikit_learn(folder: Path, out: Path) -> None:
    """Fit and score by a ColumnTransformer in one process."""
    import joblib
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    words, numbers = NAMES
    frame = pd.read_parquet(folder / "train")
    columns = [
        ("words", OneHotEncoder(handle_unknown="ignore"), words),
        ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        ("date", make_pipeline(FunctionTransformer(date_parts), StandardScaler()), ["date"]),
    ]
    last = LogisticRegression(C=1 / (REG_PARAM * len(frame)), max_iter=200)
    model = make_pipeline(ColumnTransformer(columns), last).fit(frame, frame.label)
    joblib.dump(model, out / "model.joblib")
    new = pd.read_parquet(folder / "new")
    probability = model.predict_proba(new)
    pd.DataFrame({"label": new.label, "probability": list(probability)}).to_parquet(out / "scores.parquet")


def date_parts(frame: Any) -> Any:
    """Return the parts of a date as numbers."""
    date = frame["date"].astype("datetime64[ns]").dt
    since = (frame["date"].astype("datetime64[ns]") - datetime.datetime(2019, 1, 1)).dt.days
    return np.column_stack([date.year - 2019, date.month, date.day, date.dayofweek, since]).astype(float)


SIDES = {
    "sparkopt": sparkopt_machine,
    "scikit-learn": scikit_learn,
    "sparkopt-spark": sparkopt_spark,
    "pyspark": pyspark,
}


def log_loss(path: Path) -> float:
    """Return the log loss of scores."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    label = np.array(rows.column("label"))
    share = np.stack(rows.column("probability").to_numpy())[np.arange(len(label)), label]
    return float(-np.log(np.clip(share, 1e-15, 1)).mean())


def timed(side: str, folder: Path, out: Path, warm: bool) -> tuple[float, float, float]:
    """Run a side in a process of its own; return wall and processor seconds, and the log loss."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if warm:
        (out / WARM).touch()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, "--one", side, "--folder", str(folder), "--out", str(out)]
    subprocess.run(command, check=True)  # noqa: S603  # this file
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if warm:
        seconds = float((out / WARM).read_text())
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, log_loss(out / "scores.parquet")


def main() -> None:
    """Compare."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=1_000_000)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    flags.add_argument("--warm", action="store_true", help="compare sparkopt-spark and pyspark, each the second time")
    flags.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.one:
        SIDES[args.one](args.folder, args.out)
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some containers set it: each start would compile all modules
    if args.warm:
        args.sides = ["sparkopt-spark", "pyspark"]
    with tempfile.TemporaryDirectory(prefix="raw-") as folder:
        rows = Path(folder) / "rows"
        write_rows(rows, args.rows)
        found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in args.sides}
        for _ in range(args.runs):
            for side in args.sides:
                found[side].append(timed(side, rows, Path(folder) / "out", args.warm))
        medians = {
            side: [statistics.median(column) for column in zip(*runs, strict=True)] for side, runs in found.items()
        }
        own = medians[args.sides[0]]
        print(f"{'':16} {'seconds':>8} {'CPU':>8} {'log loss':>9}   times {args.sides[0]}")
        for side, (seconds, used, loss) in medians.items():
            print(
                f"{side:16} {seconds:8.1f} {used:8.1f} {loss:9.5f}   {seconds / own[0]:.2f}, CPU {used / own[1]:.2f}"
            )
        losses = [loss for _, _, loss in medians.values()]
        if max(losses) > min(losses) + LEEWAY:
            sys.exit("the log losses differ: the sides do not do the same.")


if __name__ == "__main__":
    main()
