"""A Spark cluster on one machine: a standalone master and workers, each behind its own network link.

Every worker runs in a network namespace, joined by a veth pair to a bridge, where master and driver listen. Both ends
of the pair are limited to the link's rate (``tc … tbf``), and the kernel counts bytes. This needs root and
Debian's iproute2; without them, workers are plain processes of this machine, links are neither limited nor counted,
and the result reports that.

    with Cluster.up(workers=4, rate="50mbit") as cluster:
        spark = session(settings=cluster.settings)
        before = cluster.traffic()
        ...
        print(cluster.traffic() - before)

Names contain this process's id, so clusters do not disturb each other, and the next cluster removes what a killed
process has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

__all__ = ["Cluster", "Link", "Traffic", "leftovers"]

logger = logging.getLogger("network")

ROOT = Path(__file__).parents[2]
SPARK = Path(pyspark.__file__).parent
NAMES = re.compile(r"^spk(\d+)[bnv]\d*$")
FOLDER = "sparkopt-cluster-"
BURST, LATENCY = "64kb", "400ms"
START, STOP = 60.0, 10.0
"""Longest time for processes to start, and to end, in seconds."""
EXTENT = 24
"""Length of the network's prefix: 253 addresses."""


@dataclass(frozen=True)
class Traffic:
    """Bytes on the workers' links.

    Attributes
    ----------
    up, down : int
        From the workers, and to them. Bytes between two workers count in both.
    """

    up: int
    down: int

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.up - other.up, self.down - other.down)


@dataclass(frozen=True)
class Link:
    """A worker's namespace, the bridge's end of its link, and its address."""

    namespace: str
    interface: str
    address: str


@dataclass
class Cluster:
    """A running cluster.

    Attributes
    ----------
    host, url : str
        The driver's address, and the master's URL.
    links : list of Link
        One for each worker; empty where there are no namespaces.
    why_not : str
        Why there are none, or "".
    """

    host: str
    url: str = ""
    links: list[Link] = field(default_factory=list)
    why_not: str = ""
    memory: str = "1g"
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def up(
        cls, workers: int, rate: str | None = "50mbit", memory: str = "1g", *, loopback: bool = False
    ) -> Iterator[Cluster]:
        """Start a cluster; stop it at the end, also after an error.

        Parameters
        ----------
        workers : int
            Workers, of one core each.
        rate : str or None, default "50mbit"
            Of each worker's link, in each direction, as ``tc`` reads it; None for no limit.
        memory : str, default "1g"
            Of each worker's executor.
        loopback : bool, default False
            Whether to do without links of their own: workers listen on 127.0.0.1.

        Raises
        ------
        RuntimeError
            Where master or workers do not start.
        """
        with contextlib.ExitStack() as down:
            for name in leftovers():
                _remove(name)
            for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
                if not _is_running(int(folder.name.split("-")[2])):
                    shutil.rmtree(folder, ignore_errors=True)
            host, links, why_not = "127.0.0.1", [], "loopback" if loopback else _why_no_namespaces()
            if not why_not:
                down.callback(_clear, os.getpid())
                host, links = _network(workers, rate)
            elif not loopback:
                logger.warning("workers share this machine's network, unlimited and uncounted: %s", why_not)
            cluster = cls(host, links=links, why_not=why_not, memory=memory)
            down.callback(cluster._end)
            cluster._start(workers)
            yield cluster

    @property
    def is_limited(self) -> bool:
        """Whether each worker has its own link."""
        return bool(self.links)

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a session on this cluster."""
        return {
            "spark.master": self.url,
            "spark.driver.host": self.host,
            "spark.driver.bindAddress": self.host,
            "spark.executor.cores": "1",
            "spark.executor.memory": self.memory,
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.pyspark.python": sys.executable,
            "spark.executorEnv.PYTHONPATH": str(ROOT),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }

    def traffic(self) -> Traffic:
        """Return the bytes on all links so far, as counted by the kernel at the bridge's ends."""
        count = {way: sum(_counter(link.interface, way) for link in self.links) for way in ("rx", "tx")}
        return Traffic(count["rx"], count["tx"])

    def _start(self, workers: int) -> None:
        port, page = _free_port(self.host), _free_port(self.host)
        self.url = f"spark://{self.host}:{port}"
        where = ["--host", self.host, "--port", str(port), "--webui-port", str(page)]
        self._launch("master", ["org.apache.spark.deploy.master.Master", *where], self.host)
        _await(lambda: _workers(self.host, page) == 0, self.processes, self.folder, "the master")
        for number in range(workers):
            link = self.links[number] if self.links else None
            address = link.address if link else self.host
            size = ["--cores", "1", "--memory", self.memory, "--webui-port", "0", "--host", address]
            kind = "org.apache.spark.deploy.worker.Worker"
            work = ["--work-dir", str(self.folder / f"worker-{number}")]
            self._launch(f"worker-{number}", [kind, *size, *work, self.url], address, link)
        _await(lambda: _workers(self.host, page) == workers, self.processes, self.folder, f"{workers} workers")

    def _launch(self, name: str, arguments: Sequence[str], address: str, link: Link | None = None) -> None:
        inside = ["ip", "netns", "exec", link.namespace] if link else []
        environment = {
            **os.environ,
            "SPARK_HOME": str(SPARK),
            "SPARK_LOCAL_IP": address,
            "SPARK_LOCAL_DIRS": str(self.folder / f"local-{name}"),
            "SPARK_DAEMON_MEMORY": "256m",
        }
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(  # noqa: S603  # fixed programs, no shell
                [*inside, str(SPARK / "bin/spark-class"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # so that its descendants can be found
                preexec_fn=_die_with_parent,
            )
        self.processes.append(process)

    def _end(self) -> None:
        """End all processes of this cluster, executors and their Python workers included, and delete their files."""
        sessions = {process.pid for process in self.processes}
        deadline = time.monotonic() + STOP
        while (left := _of_sessions(sessions)) and time.monotonic() < deadline:
            _signal(left, signal.SIGKILL)  # there is nothing to save, and a worker that ends politely takes its time
            time.sleep(0.05)
        for process in self.processes:
            process.wait(STOP)
        shutil.rmtree(self.folder, ignore_errors=True)


def leftovers() -> list[str]:
    """Return the namespaces and bridges that processes left which are no more."""
    if shutil.which("ip") is None:
        return []
    found = [entry["name"] for entry in _listed("netns", "list")]
    found += [entry["ifname"] for entry in _listed("link", "show", "type", "bridge")]
    found += [entry["ifname"] for entry in _listed("link", "show", "type", "veth")]
    return [name for name in found if (match := NAMES.match(name)) and not _is_running(int(match[1]))]


def _network(workers: int, rate: str | None) -> tuple[str, list[Link]]:
    """Build bridge, namespaces and links; return the bridge's address and the links."""
    base, prefix = _free_network(), f"spk{os.getpid()}"
    bridge, host = f"{prefix}b", f"{base}.1"
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{host}/{EXTENT}", "dev", bridge)
    _ip("link", "set", bridge, "up")
    links = []
    for number in range(workers):
        link = Link(f"{prefix}n{number}", f"{prefix}v{number}", f"{base}.{10 + number}")
        inside = ("-n", link.namespace)
        _ip("netns", "add", link.namespace)
        _ip("link", "add", link.interface, "type", "veth", "peer", "name", "eth0", "netns", link.namespace)
        _ip("link", "set", link.interface, "master", bridge, "up")
        _ip(*inside, "addr", "add", f"{link.address}/{EXTENT}", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        if rate is not None:
            limit = ["root", "tbf", "rate", rate, "burst", BURST, "latency", LATENCY]
            _run("tc", "qdisc", "add", "dev", link.interface, *limit)
            _run("tc", "-n", link.namespace, "qdisc", "add", "dev", "eth0", *limit)
        links.append(link)
    return host, links


def _why_no_namespaces() -> str:
    """Try one namespace with a limited link; return what speaks against it, or ""."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found: install iproute2"
    prefix = f"spk{os.getpid()}"
    try:
        _ip("netns", "add", f"{prefix}n")
        _ip("link", "add", f"{prefix}v", "type", "veth", "peer", "name", "eth0", "netns", f"{prefix}n")
        limit = ["root", "tbf", "rate", "1mbit", "burst", BURST, "latency", LATENCY]
        _run("tc", "qdisc", "add", "dev", f"{prefix}v", *limit)
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    finally:
        _clear(os.getpid())
    return ""


def _clear(pid: int) -> None:
    """Remove the network of a process."""
    names = [entry["name"] for entry in _listed("netns", "list")]
    names += [entry["ifname"] for kind in ("veth", "bridge") for entry in _listed("link", "show", "type", kind)]
    for name in names:
        if (match := NAMES.match(name)) and int(match[1]) == pid:
            _remove(name)


def _remove(name: str) -> None:
    """Remove a namespace, with whatever runs in it, or an interface, which may have gone along with its peer."""
    is_namespace = name.lstrip("spk0123456789").startswith("n")
    if is_namespace:
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)  # noqa: S603, S607
        _signal([int(pid) for pid in inside.stdout.split()], signal.SIGKILL)
    command = ["netns", "del", name] if is_namespace else ["link", "del", name]
    done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode and "Cannot find device" not in done.stderr and "No such file" not in done.stderr:
        logger.warning("%s was not removed: %s", name, done.stderr.strip())


def _listed(*arguments: str) -> list[dict[str, str]]:
    """Return what ``ip -json`` lists."""
    found = _run("ip", "-json", *arguments)
    entries: list[dict[str, str]] = json.loads(found) if found.strip() else []
    return [entry for entry in entries if entry]


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def _free_network() -> str:
    """Return the first three numbers of a network that no interface of this machine is in."""
    taken = {info["local"].rpartition(".")[0] for entry in _listed("addr") for info in entry["addr_info"]}  # type: ignore[index]
    return next(base for base in (f"10.213.{third}" for third in range(256)) if base not in taken)


def _counter(interface: str, way: str) -> int:
    return int(Path(f"/sys/class/net/{interface}/statistics/{way}_bytes").read_text())


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


def _workers(host: str, page: int) -> int | None:
    """Return how many workers the master knows; None where it does not answer yet."""
    try:
        with urllib.request.urlopen(f"http://{host}:{page}/json/", timeout=2) as answer:
            return int(json.load(answer)["aliveworkers"])
    except OSError:
        return None


def _await(is_up: Callable[[], bool], processes: Sequence[subprocess.Popen[bytes]], folder: Path, what: str) -> None:
    deadline = time.monotonic() + START
    while not is_up():
        gone = any(process.poll() is not None for process in processes)
        if gone or time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-500:] for path in sorted(folder.glob("*.log")))
            reason = "a process has ended" if gone else f"not within {START:g} s"
            raise RuntimeError(f"{what} did not start: {reason}.\n{logs}")
        time.sleep(0.1)


def _die_with_parent() -> None:
    """Let the kernel end this process when the one that started it dies: prctl(PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _of_sessions(sessions: set[int]) -> list[int]:
    """Return the processes of some sessions, without zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # the process has ended
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) in sessions and state != "Z":
                    found.append(int(entry.name))
    return found


def _signal(pids: Sequence[int], kind: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
