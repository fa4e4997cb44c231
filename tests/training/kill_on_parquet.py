"""Train on Parquet files with checkpoints, and kill this very process, the driver, after the second checkpoint.

Run by test_resume_parquet.py: ``kill_on_parquet FOLDER FORM``; without a form it makes the call of each form again,
and one that nothing disturbs. With an address in SPARK_REMOTE this process is a client of Spark Connect.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegression
from sparkopt.solver.progress import Progress
from tests import jvm

INTERVAL, STEPS, KILLED_AT = 3, 12, 7
COLUMNS = ["x0", "x1", "x2"]
FORMS: dict[str, dict[str, Any]] = {
    "vector": {"featuresCol": "vector"},
    "array": {"featuresCol": "array"},
    "columns": {"featuresCols": COLUMNS},
}
"""How the files of each form hold the features."""


def started() -> SparkSession:
    if "SPARK_REMOTE" in os.environ:
        return SparkSession.builder.getOrCreate()
    settings = {"spark.master": "local[2]", "spark.driver.memory": "1g", "spark.driver.extraJavaOptions": jvm.OPTIONS}
    return session(Path(__file__).parents[2] / "conf" / "local.conf", settings=settings)


def kill(progress: Progress) -> None:
    if progress.record.step == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


def fit(spark: SparkSession, folder: Path, form: str, **more: Any) -> dict[str, Any]:
    """Fit on the files of a form; what it finds."""
    given = {**FORMS[form], "optimizer": "gd", "maxIter": STEPS, "tol": 0.0, "engine": "driver", **more}
    model = LogisticRegression(**given).fit(spark.read.parquet(str(folder / form)))
    numbers = [*model.coefficients.tolist(), float(model.intercept)]
    return {"numbers": numbers, "resumed": model.summary.receipt.resumed_at}


def main(folder: str, form: str = "") -> None:
    spark = started()
    kept = {"checkpointDir": f"{folder}/checkpoints", "checkpointInterval": INTERVAL}
    if form:
        fit(spark, Path(folder), form, callbacks=[kill], **kept)
    found = {
        form: {"again": fit(spark, Path(folder), form, **kept), "calm": fit(spark, Path(folder), form)}
        for form in FORMS
    }
    print("RESULT " + json.dumps(found), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
