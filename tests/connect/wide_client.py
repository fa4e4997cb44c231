"""A table of 20,000 columns, in a process without any JVM. Run by test_connect_wide.py."""

from __future__ import annotations

import sys
from pathlib import Path

from pyspark.sql import SparkSession

from tests.ml.wide import WIDTH, train_and_score


def main(remote: str, folder: str) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    train_and_score(spark, Path(folder))
    print(f"RESULT {WIDTH}")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
