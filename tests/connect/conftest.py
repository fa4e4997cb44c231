"""A Spark Connect server with executors of its own, and processes without a JVM that are its clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests import jvm

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "SPARK_HOME": str(Path(pyspark.__file__).parent),
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYTHONPATH": str(ROOT),
}
SETTINGS = {
    "spark.master": "local-cluster[2,1,1024]",
    "spark.executor.memory": "1g",
    "spark.driver.memory": "1g",
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    **jvm.EXECUTORS,
}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yield the address of a Spark Connect server with two executors, in processes of its own."""
    pytest.importorskip("grpc", reason="Spark Connect needs grpcio, of sparkopt's extra 'connect'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {**SETTINGS, "spark.connect.grpc.binding.port": str(port)}
    command = [f"{ENVIRONMENT['SPARK_HOME']}/bin/spark-submit", "--properties-file", str(ROOT / "conf/local.conf")]
    for key, value in settings.items():
        command += ["--conf", f"{key}={value}"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=ENVIRONMENT, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(port, process, log)
        yield f"sc://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="session")
def server(jvms: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that tests share."""
    with serving(tmp_path_factory.mktemp("connect")) as address:
        yield address


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server does not answer: " + log.read_text()[-3000:])


@pytest.fixture(scope="session")
def client(server: str) -> Callable[..., Any]:
    """Return a function that runs a module as a client of the server, and returns what it reports."""

    def run(module: str, folder: Path, seconds: float = 580, python: str = sys.executable) -> Any:
        hidden = ("JAVA_HOME", "SPARK_HOME") if python != sys.executable else ("JAVA_HOME",)
        environment = {key: value for key, value in ENVIRONMENT.items() if key not in hidden}
        command = [python, "-m", module, server, str(folder)]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
        results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert results, done.stderr[-5000:]
        return json.loads(results[0].removeprefix("RESULT "))

    return run
