"""Horovod's ranks beside Spark's tasks: ``horovod.spark.run`` starts one process for each task."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sparkopt.errors import MissingDependencyError
from sparkopt.launch.channel import Address, Line
from sparkopt.launch.communicator import Place, RemoteCommunicator, limited_threads
from sparkopt.launch.launcher import P, SparkLauncher, Worker
from sparkopt.typing import Array

__all__ = ["HorovodCommunicator", "HorovodLauncher", "Task", "is_echo"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


class HorovodCommunicator(RemoteCommunicator):
    """Collectives of Horovod: Gloo for arrays; for tensors on a GPU what Horovod was built with.

    Each has a name: Horovod numbers those without in each process, and ranks that join later would not agree.
    """

    name = "horovod"

    def all_reduce(self, values: Array) -> Array:
        import horovod.torch as hvd
        import torch

        tensor = torch.from_numpy(np.array(values))
        return np.asarray(hvd.allreduce_(tensor, op=hvd.Sum, name=_name("sum", values)).numpy())

    def broadcast(self, values: Array, root: int = 0) -> Array:
        import horovod.torch as hvd
        import torch

        tensor = torch.from_numpy(np.array(values))
        return np.asarray(hvd.broadcast_(tensor, root, name=_name("broadcast", values)).numpy())

    def _gather(self, values: Array) -> Array:
        import horovod.torch as hvd
        import torch

        return np.asarray(hvd.allgather(torch.from_numpy(values)[None], name=_name("gather", values)).numpy())

    def _exchange(self, values: Array) -> Array:
        import horovod.torch as hvd
        import torch

        splits = torch.ones(self.size, dtype=torch.int32)
        found = hvd.alltoall(torch.from_numpy(values), splits=splits, name=_name("exchange", values))
        return np.asarray((found[0] if isinstance(found, tuple) else found).numpy())


def _name(collective: str, values: Array) -> str:
    """Return a name under which Horovod remembers what ranks have agreed on: one for each type and shape."""
    return f"{collective}/{values.dtype}/{values.shape}"


@dataclass(frozen=True)
class HorovodLauncher(SparkLauncher):
    """Ranks are processes that Horovod starts, one for each of its Spark tasks.

    Starting takes about ten seconds, most of it Horovod's own search for a common network and its waits.
    """

    name = "horovod"

    def run(self, function: Worker[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        try:
            from horovod import spark
        except ImportError as error:
            raise MissingDependencyError(
                "launcher='horovod' needs Horovod, which has no wheel to install: build it with .ci/horovod "
                "(make horovod), or use launcher='torch', which needs PyTorch only."
            ) from error
        processes = self._await_slots()
        with self._channel() as channel, _servers_closed(), _threads_quiet(), _in_any_thread():
            start, options = self._start(spark, processes)
            return list(
                start(
                    self._task(function, channel.address),
                    args=args,
                    kwargs=dict(kwargs),
                    num_proc=processes,
                    start_timeout=int(self.start_timeout),
                    verbose=0,
                    nics=_loopback() if _is_loopback(channel.address.host) else None,
                    **options,
                )
            )

    def _start(self, spark: Any, processes: int) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return Horovod's function that starts the ranks, and its options."""
        return spark.run, {"use_gloo": True}

    def _task(self, function: Any, address: Address) -> Task[Any]:
        """Return what a rank does."""
        return Task(function, address, self.task_cores)


@dataclass(frozen=True)
class Task(Generic[T]):
    """What a rank does."""

    function: Any
    address: Address
    cores: int

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        rank = int(os.environ["HOROVOD_RANK"])
        with (
            Line(self.address, rank) as line,
            limited_threads(self.cores),
            line.telling(is_echo),  # of what goes wrong while the group forms
            self.group(line) as communicator,
            line.telling(is_echo),
        ):
            result: T = self.function(communicator, *args, **kwargs)
        return result

    @contextlib.contextmanager
    def group(self, line: Line) -> Iterator[HorovodCommunicator]:
        """Form the group; leave it at the end."""
        import horovod.torch as hvd
        from horovod.spark.task import get_available_devices

        devices = tuple(get_available_devices())
        with contextlib.nullcontext() if devices else _giving_way():
            hvd.init()
        try:
            place = Place(hvd.rank(), hvd.size(), hvd.local_rank(), devices)
            yield HorovodCommunicator(place, line)
        finally:
            hvd.shutdown()


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """Let threads that are started here push no other off its core when they wake: they wait for their turn.

    Horovod's ranks agree every millisecond, whether or not there is anything to sum, and each time threads wake by
    turns in every process. On cores that compute, this took a sixth of a step; it takes next to nothing under
    ``SCHED_BATCH`` (sched(7)), which threads inherit. They have a core at once when nobody computes on it, as while a
    step waits for its sums, and their share where others compete for it.
    """
    is_linux = hasattr(os, "SCHED_BATCH")
    if not is_linux or os.sched_getscheduler(0) != os.SCHED_OTHER:  # a policy that somebody chose stays
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # some sandboxes allow one policy only
        logger.debug("Horovod's threads are scheduled like all others: %s.", error)
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def _servers_closed() -> Iterator[None]:
    """Close the servers through which ranks find each other: Horovod leaves them listening, run after run."""
    from horovod.runner.http.http_server import RendezvousServer

    original, opened = RendezvousServer.start, []

    def start(server: Any, *args: Any) -> Any:
        port = original(server, *args)
        server._httpd.daemon_threads = True  # one that still waits for a rank keeps nobody from ending
        opened.append(server)
        return port

    RendezvousServer.start = start
    try:
        yield
    finally:
        RendezvousServer.start = original
        for server in opened:
            server.stop()
            server._httpd.server_close()


@contextlib.contextmanager
def _threads_quiet() -> Iterator[None]:
    """Keep the stack of Horovod's Spark job off the console: what went wrong is the launcher's to tell."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and "run_spark" in args.thread.name:
            logger.debug("Horovod's Spark job ended: %s", args.exc_value)
        else:
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _in_any_thread() -> Iterator[None]:
    """Let Horovod start from other threads than the main one, where it may not listen to the process's signals.

    It would end its ranks on them; but ranks whose driver is gone end by themselves.
    """
    from horovod.runner import gloo_run

    if threading.current_thread() is threading.main_thread():
        yield
        return
    before = gloo_run.register_shutdown_event
    gloo_run.register_shutdown_event = threading.Event
    try:
        yield
    finally:
        gloo_run.register_shutdown_event = before


def is_echo(error: Exception) -> bool:
    """Whether a collective failed since another rank had gone."""
    from horovod.common.exceptions import HorovodInternalError

    return isinstance(error, HorovodInternalError)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def _loopback() -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith("lo")}
