"""What pyspark.ml's own Python tests ask, in a process without any JVM. Run by test_connect_behaviours.py."""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from pyspark.sql import SparkSession

from tests.ml.behaviours import BEHAVIOURS, World, run


def failure(name: str, world: World) -> str:
    """Return the traceback of a behaviour that is missing, and nothing where it is there."""
    began = time.monotonic()
    try:
        run(name, world)
    except Exception:  # noqa: BLE001  # each is reported under its behaviour's name
        return traceback.format_exc()[-3000:]
    finally:
        print(f"{time.monotonic() - began:.1f} s: {name}", file=sys.stderr)
    return ""


def main(remote: str, folder: str) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    world = World(spark, Path(folder))
    print("RESULT " + json.dumps({name: failure(name, world) for name in BEHAVIOURS}))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
