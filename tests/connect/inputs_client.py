"""The table of inputs in a process without a JVM: every cell, or how it fails. Run by test_connect_inputs.py."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from tests.inputs import CELLS, cell


def outcome(spark: SparkSession, folder: Path, source: str, kind: str) -> dict[str, Any] | str:
    """Return what a cell gives, or its error."""
    try:
        return cell(spark, folder, source, kind)
    except Exception:  # noqa: BLE001  # each is reported under its cell's name
        return traceback.format_exc()[-3000:]


def main(remote: str, folder: str) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    found = {f"{source}, {kind}": outcome(spark, Path(folder), source, kind) for source, kind in CELLS}
    print("RESULT " + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
