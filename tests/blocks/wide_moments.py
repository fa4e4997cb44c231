"""Write wide rows where Spark lets the driver receive 4 MB, and print their moments. Run by test_summaries.py."""

from __future__ import annotations

import json
import sys

from pyspark.sql import SparkSession

from sparkopt import BlockStore
from sparkopt.blocks import summaries
from sparkopt.validation import Interval
from tests.blocks.test_summaries import COLUMNS


def main() -> None:
    kind, *files = sys.argv[1:]
    builder = (
        SparkSession.builder.remote("local[2]") if kind == "connect" else SparkSession.builder.master("local[2]")
    )
    spark = builder.getOrCreate()
    df = spark.read.parquet(*files)
    found = {}
    summaries.COLLECTED_BYTES = 2 << 20
    with BlockStore.write(df, COLUMNS, Interval()) as store:
        assert store.partitions == len(files)
        found |= {"mean": store.moments.mean.tolist(), "squares": store.moments.squares.tolist()}
        try:
            store._backend.run(lambda handle: b"0" * summaries.INLINE_BYTES * 32)
            found["refused"] = False
        except Exception as error:  # noqa: BLE001  # Spark's, of either kind
            found["refused"] = "maxResultSize" in str(error)
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
