"""Import all of sparkopt where pyspark is what clients of Spark Connect have: without py4j and the classic parts.

Run by test_client_only.py, alone or with a server's address; prints what could not be imported, and a fit's numbers.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import pkgutil
import sys
from typing import Any

HIDDEN = ("py4j", "pyspark.core")


class Hide(importlib.abc.MetaPathFinder):
    """Finds no module of ``HIDDEN``."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in HIDDEN or name.startswith(tuple(f"{hidden}." for hidden in HIDDEN)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(remote: str | None = None, folder: str = "") -> None:
    sys.meta_path.insert(0, Hide())
    import sparkopt

    failed = {}
    for module in pkgutil.walk_packages(sparkopt.__path__, "sparkopt."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            failed[module.name] = str(error)
    found: dict[str, Any] = {"failed": failed, "hidden": sorted(set(HIDDEN) & sys.modules.keys())}
    from pyspark.util import is_remote_only

    found["remote only"] = is_remote_only()
    from sparkopt.ml import LogisticRegression

    X = [[float(row % 3), float(row % 5)] for row in range(60)]
    model = LogisticRegression(regParam=0.1).fit((X, [float(row % 2) for row in range(60)]))
    found["table"] = model.coefficients.size
    if remote is not None:
        from pyspark.sql import SparkSession

        from tests.connect.connect_data import dense, fitted

        spark = SparkSession.builder.remote(remote).getOrCreate()
        found["fit"] = fitted("auto", dense(spark, 2))
        spark.stop()
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
