"""From raw files to scores by commands alone, in a process without any JVM. Run by test_connect_journeys.py."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from pyspark.sql import SparkSession

from tests.jobs.raw_journeys import JOURNEYS


def failure(name: str, folder: Path) -> str:
    """Return the traceback of a journey that fails, and nothing where it ends well."""
    place = folder / name.replace(" ", "-")
    place.mkdir(parents=True)
    try:
        JOURNEYS[name](place, "spark")
    except Exception:  # noqa: BLE001  # each is reported under its name
        return traceback.format_exc()[-3000:]
    return ""


def main(remote: str, folder: str) -> None:
    os.environ["SPARK_REMOTE"] = remote  # by which commands find the server
    spark = SparkSession.builder.remote(remote).getOrCreate()
    print("RESULT " + json.dumps({name: failure(name, Path(folder)) for name in JOURNEYS}))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
