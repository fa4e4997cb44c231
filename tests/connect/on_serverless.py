"""Run a command, or a notebook's cells, on a server that refuses what serverless compute refuses.

``on_serverless REMOTE command ARGUMENTS…`` or ``on_serverless REMOTE cells SCRIPT``; its last line says what was
refused. A notebook's `spark` exists already, as on Databricks.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

from pyspark.sql.connect.client import DefaultChannelBuilder

from tests.connect import serverless

REFUSER = serverless.Serverless()


def refuse() -> None:
    """Put the refusals in front of every session's channel."""
    plain = DefaultChannelBuilder.__init__

    def refusing(builder: Any, *arguments: Any, **options: Any) -> None:
        plain(builder, *arguments, **options)
        builder.add_interceptor(REFUSER)

    DefaultChannelBuilder.__init__ = refusing  # type: ignore[method-assign]


def run(remote: str, kind: str, *rest: str) -> int:
    """Run it; its exit code."""
    if kind == "command":
        from sparkopt.jobs.cli import main

        return main([*rest, "--remote", remote])
    from pyspark.sql import SparkSession

    os.environ["SPARK_REMOTE"] = remote
    runpy.run_path(rest[0], {"spark": SparkSession.builder.getOrCreate()}, "__main__")
    return 0


def ended(remote: str, *rest: str) -> int:
    """Run it, and say which refusals were met."""
    refuse()
    code = 1
    try:
        code = run(remote, *rest)
    finally:
        print("REFUSED " + json.dumps(sorted(set(REFUSER.refusals))), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(ended(*sys.argv[1:]))
