"""What Databricks' serverless compute refuses, refused in front of a Spark Connect server.

Each row of ``REFUSED`` is a limit of serverless compute: the command that the client sends, and the error that it
gets. The client's own interceptor raises it, before the server is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from pyspark.errors.exceptions.connect import AnalysisException
from pyspark.sql.connect.client import DefaultChannelBuilder
from pyspark.sql.connect.session import SparkSession

SHOWN_SETTINGS = ("spark.sql.session.timeZone", "spark.sql.shuffle.partitions", "spark.sql.ansi.enabled")
"""Settings that serverless compute shows, among a few others."""
OF_THE_CLIENT = (
    "spark.sql.timestampType",
    "spark.sql.session.localRelation",
    "spark.sql.execution.pandas.",
    "spark.sql.execution.pythonUDF.arrow.enabled",
    "spark.sql.execution.pyspark.binaryAsBytes",
    "spark.sql.execution.arrow.useLargeVarTypes",
    "spark.sql.execution.arrow.pyspark.selfDestruct.enabled",
    "spark.sql.pyspark.",
    "spark.sql.repl.eagerEval.",
    "spark.connect.session.planCompression.",
)
"""How settings begin that pyspark's own client asks for: ``createDataFrame``, ``toPandas`` and ``udf`` work there."""


def _caches_table(request: Any) -> bool:
    return "cache_table" in str(request.plan.root) if request.HasField("plan") else False


def _persists(request: Any) -> bool:
    return type(request).__name__ == "AnalyzePlanRequest" and request.WhichOneof("analyze") in (
        "persist",
        "unpersist",
    )


def _asks_setting(request: Any) -> bool:
    if type(request).__name__ != "ConfigRequest":
        return False
    kind = request.operation.WhichOneof("op_type")
    if kind == "set":
        return any(pair.key not in SHOWN_SETTINGS for pair in request.operation.set.pairs)
    if kind == "get":
        asked = request.operation.get.keys
        return not all(key in SHOWN_SETTINGS or key.startswith(OF_THE_CLIENT) for key in asked)
    return False


def _makes_global_view(request: Any) -> bool:
    return "is_global: true" in str(request.plan.command) if request.HasField("plan") else False


def _checkpoints(request: Any) -> bool:
    return "checkpoint_command" in str(request.plan.command) if request.HasField("plan") else False


def _of_plan(refused: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda request: hasattr(request, "plan") and refused(request)


REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "CACHE TABLE": (_of_plan(_caches_table), "[NOT_SUPPORTED_WITH_SERVERLESS] CACHE TABLE is not supported"),
    "PERSIST TABLE": (_persists, "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported"),
    "settings": (_asks_setting, "[CONFIG_NOT_AVAILABLE] Configuration is not available"),
    "global views": (_of_plan(_makes_global_view), "[NOT_SUPPORTED_WITH_SERVERLESS] GLOBAL TEMPORARY VIEW"),
    "checkpoints": (_of_plan(_checkpoints), "[NOT_SUPPORTED_WITH_SERVERLESS] CHECKPOINT is not supported"),
}


PROVOKED: dict[str, Callable[[SparkSession], object]] = {
    "CACHE TABLE": lambda spark: _shown(spark).catalog.cacheTable("shown"),
    "PERSIST TABLE": lambda spark: spark.range(3).persist(),
    "settings": lambda spark: spark.conf.get("spark.executor.memory"),
    "global views": lambda spark: spark.range(3).createGlobalTempView("shown"),
    "checkpoints": lambda spark: spark.range(3).localCheckpoint(),
}
"""What meets each row of ``REFUSED``."""


def _shown(spark: SparkSession) -> SparkSession:
    spark.range(3).createOrReplaceTempView("shown")
    return spark


def provoked(spark: SparkSession) -> dict[str, str]:
    """What each row says where it is met; "" where nothing refuses."""
    found = {}
    for name, action in PROVOKED.items():
        try:
            action(spark)
        except AnalysisException as error:
            found[name] = str(error)
        else:
            found[name] = ""
    spark.catalog.dropTempView("shown")
    return found


class Serverless(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Refuses what is in ``REFUSED``; ``refusals`` are the rows that were met."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def _check(self, request: Any) -> None:
        for name, (is_refused, message) in REFUSED.items():
            if is_refused(request):
                self.refusals.append(name)
                raise AnalysisException(f"{message} on serverless compute. SQLSTATE: 0A000")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._check(request)
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self._check(request)
        return continuation(details, request)


def session(remote: str) -> tuple[SparkSession, Serverless]:
    """Return a session of this server that refuses what serverless compute refuses."""
    builder, refuser = DefaultChannelBuilder(remote), Serverless()
    builder.add_interceptor(refuser)
    return SparkSession.builder.channelBuilder(builder).create(), refuser
