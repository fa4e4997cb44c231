"""A cluster of Flink on this machine: a JobManager and TaskManagers in JVMs of their own, which tests may kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.frameworks.flink import environment, workers_below

MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
WORKER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
OPENED = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
OPENED += ("util.concurrent.atomic", "util.concurrent.locks")
SETTINGS = """
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
rest.address: localhost
rest.port: {rest}
rest.bind-port: {rest}
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 100 ms
taskmanager.host: localhost
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
taskmanager.memory.task.heap.size: 128m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
taskmanager.memory.managed.size: 128m
heartbeat.interval: 500
heartbeat.timeout: 4000
io.tmp.dirs: {folder}/tmp
"""
"""As clusters have it, jobs are started again where tasks fail; and little memory."""


@dataclass
class FlinkCluster:
    """Its processes; each TaskManager runs one task at a time, whose Python functions have a process of their own.

    Attributes
    ----------
    folder : Path
        Settings, logs and temporary files.
    port : int
        Where jobs are submitted.
    manager : Popen
        The JobManager.
    workers : list of Popen
        The TaskManagers that are alive.
    """

    folder: Path
    port: int
    manager: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self) -> None:
        """Start a TaskManager."""
        self.workers.append(_java(self.folder, WORKER, "worker"))

    def kill_python(self) -> bool:
        """Kill a process of a Python function, if there is one; return whether there was."""
        for pid in workers_below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def kill_worker(self) -> bool:
        """Kill the TaskManager that runs a Python function, and start another; return whether there was one."""
        for worker in self.workers:
            if workers_below(worker.pid):
                worker.kill()
                worker.wait()
                self.workers.remove(worker)
                self.add_worker()
                return True
        return False

    def running_jobs(self) -> list[str]:
        """Return the jobs that have not ended."""
        with urllib.request.urlopen(f"http://localhost:{self.port}/jobs/overview", timeout=20) as answer:
            found = json.load(answer)["jobs"]
        return [f"{job['name']}: {job['state']}" for job in found if job["end-time"] < 0]

    def environment(self) -> Any:
        """Return an environment whose jobs run here."""
        place = {"execution.target": "remote", "rest.address": "localhost", "rest.port": str(self.port)}
        return environment(place=place)


def _java(folder: Path, name: str, log: str) -> subprocess.Popen[bytes]:
    import pyflink

    home = Path(pyflink.__file__).parent
    opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
    (functions,) = (home / "opt").glob("flink-python-*.jar")
    command = ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", *opened, "-cp", f"{home}/lib/*:{functions}", name]
    variables = {**os.environ, "FLINK_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (folder / f"{log}.log").open("ab") as stream:
        return subprocess.Popen(
            [*command, "--configDir", str(folder)], stdout=stream, stderr=stream, env=variables, cwd=folder
        )


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[FlinkCluster]:
    """Start a cluster, and end all of its processes afterwards."""
    rpc, port = _free_ports(2)
    (folder / "tmp").mkdir()
    (folder / "config.yaml").write_text(SETTINGS.format(rpc=rpc, rest=port, folder=folder))
    found = FlinkCluster(folder, port, _java(folder, MANAGER, "manager"))
    try:
        for _ in range(workers):
            found.add_worker()
        _wait_for(found)
        yield found
    finally:
        for process in [*found.workers, found.manager]:
            process.kill()
            process.wait()


def _wait_for(found: FlinkCluster) -> None:
    """Return once jobs can be submitted."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found.running_jobs()
            return
        assert found.manager.poll() is None, (found.folder / "manager.log").read_text()
        time.sleep(0.2)
    raise TimeoutError((found.folder / "manager.log").read_text())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [int(each.getsockname()[1]) for each in sockets]
