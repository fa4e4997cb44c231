"""Start Spark's JVM from this process, without the warning that each of its starts prints."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

__all__ = ["start_jvm"]

NOISE = b"WARNING: Using incubator modules: jdk.incubator.vector\n"
"""Java prints it for an option that Spark always gives; no option of Java turns it off."""


def start_jvm(settings: Mapping[str, str]) -> None:
    """Start Spark with these settings; a session that is built afterwards uses it. Nothing where a JVM is running.

    Raises
    ------
    PySparkRuntimeError
        Where the JVM does not start; its reasons are on standard error then.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:
        return
    reader, writer = os.pipe()
    started = threading.Event()
    thread = threading.Thread(target=_forward, args=(reader, started), name="Spark's standard error", daemon=True)
    thread.start()
    conf = SparkConf().setAll(list(settings.items()))
    try:
        gateway = launch_gateway(conf, {"stderr": writer})  # type: ignore[no-untyped-call]
    except PySparkRuntimeError:
        os.close(writer)
        thread.join(timeout=5)
        raise
    os.close(writer)
    started.set()
    SparkContext(conf=conf, gateway=gateway)


def _forward(reader: int, started: threading.Event) -> None:
    """Copy all but ``NOISE`` to standard error: by lines until the JVM has started, then as it comes."""
    begun = b""
    is_starting = True
    while chunk := os.read(reader, 1 << 16):
        if is_starting:
            is_starting = not started.is_set()
            *lines, begun = (begun + chunk).split(b"\n")
            chunk = b"".join(line + b"\n" for line in lines).replace(NOISE, b"")
            if not is_starting:
                chunk, begun = chunk + begun, b""
        _write(chunk)
    _write(begun)
    os.close(reader)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
