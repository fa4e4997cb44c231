"""PyTorch's ranks inside Spark's tasks: a barrier stage whose tasks form one ``torch.distributed`` group.

No further process is started. Importing PyTorch costs a new Python worker a second or two, and one that Spark reuses
nothing; finding each other through the driver's store takes milliseconds. Spark never retries a barrier stage that
ends in its job's result: a run is one attempt, and its caller decides about another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

import numpy as np
from pyspark import BarrierTaskContext
from pyspark.resource import ResourceProfile

from sparkopt.launch.channel import Address, Line
from sparkopt.launch.communicator import Place, RemoteCommunicator, limited_threads
from sparkopt.launch.launcher import P, SparkLauncher, Worker
from sparkopt.typing import Array

__all__ = ["TorchCommunicator", "TorchLauncher"]

T = TypeVar("T")


class TorchCommunicator(RemoteCommunicator):
    """Collectives of ``torch.distributed``: Gloo for arrays, NCCL besides where the rank has a CUDA device."""

    name = "torch"

    def all_reduce(self, values: Array) -> Array:
        import torch
        from torch import distributed

        tensor = torch.from_numpy(np.array(values))
        distributed.all_reduce(tensor)
        return tensor.numpy()

    def broadcast(self, values: Array, root: int = 0) -> Array:
        import torch
        from torch import distributed

        tensor = torch.from_numpy(np.array(values))
        distributed.broadcast(tensor, root)
        return tensor.numpy()

    def _gather(self, values: Array) -> Array:
        import torch
        from torch import distributed

        found = torch.empty((self.size, len(values)), dtype=torch.uint8)
        distributed.all_gather(list(found), torch.from_numpy(values))
        return found.numpy()

    def _exchange(self, values: Array) -> Array:
        import torch
        from torch import distributed

        found = torch.empty(values.shape, dtype=torch.uint8)
        distributed.all_to_all_single(found, torch.from_numpy(values))
        return found.numpy()


@dataclass(frozen=True)
class TorchLauncher(SparkLauncher):
    """Ranks are the tasks of a barrier stage.

    Parameters
    ----------
    profile : ResourceProfile or None, default None
        What each task asks of Spark (a GPU, say) where it is not the session's own configuration.

    Examples
    --------
    >>> import numpy as np
    >>> def total(communicator, start):
    ...     return communicator.all_reduce(np.array([start + communicator.rank])).tolist()
    >>> TorchLauncher(spark.sparkContext, 2).run(total, 10.0)
    [[21.0], [21.0]]
    """

    profile: ResourceProfile | None = field(default=None, repr=False)
    name = "torch"

    def run(self, function: Worker[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        if self.profile is not None:
            self.context.parallelize(range(1), 1).withResources(self.profile)  # Spark knows the profile from here on
        processes = self._await_slots(self.profile)
        ranks = self.context.parallelize(range(processes), processes)
        if self.profile is not None:
            ranks = ranks.withResources(self.profile)
        with self._channel() as channel:
            task: _Task[T] = _Task(function, args, kwargs, channel.address, self.task_cores, self.timeout)
            return ranks.barrier().mapPartitions(task).collect()


@dataclass(frozen=True)
class _Task(Generic[T]):
    """What a task of the barrier stage does."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    address: Address
    cores: int
    timeout: float

    def __call__(self, rows: Iterable[int]) -> Iterator[T]:
        context = BarrierTaskContext.get()
        machines = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
        (rank,) = rows  # Spark throws a Python worker away whose input was not read to its end
        gpus = context.resources().get("gpu")
        place = Place(
            rank,
            len(machines),
            machines[:rank].count(machines[rank]),
            tuple(gpus.addresses) if gpus is not None else (),
        )
        with (
            Line(self.address, rank) as line,
            limited_threads(self.cores),
            line.telling(_is_echo),  # of what goes wrong while the group forms
            self._group(place, line) as communicator,
            line.telling(_is_echo),
        ):
            result: T = self.function(communicator, *self.args, **self.kwargs)
        yield result

    @contextlib.contextmanager
    def _group(self, place: Place, line: Line) -> Iterator[TorchCommunicator]:
        """Form the group; leave it at the end."""
        from torch import cuda, distributed

        backend = "cpu:gloo,cuda:nccl" if place.accelerators and cuda.is_available() else "gloo"
        with _gloo_on(self.address.own_address()):
            distributed.init_process_group(
                backend,
                store=distributed.PrefixStore("group", line.store),
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=self.timeout),
            )
        try:
            communicator = TorchCommunicator(place, line)
            communicator.barrier()  # one that leaves at once would break the connections of one that still connects
            yield communicator
        finally:
            distributed.destroy_process_group()


def _is_echo(error: Exception) -> bool:
    """Whether a collective failed since another rank had gone; Gloo says so in words only."""
    from torch.distributed import DistError

    said = str(error)
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and ("gloo/" in said or "Gloo" in said))


@contextlib.contextmanager
def _gloo_on(address: str) -> Iterator[None]:
    """Let Gloo listen on the network interface that has ``address``: the one on the way to the driver.

    By itself it takes the interface of the machine's name, which many a container resolves to nothing of use.
    """
    name = "GLOO_SOCKET_IFNAME"
    interface = None if name in os.environ else _interface(address)
    if interface is None:
        yield
        return
    os.environ[name] = interface
    try:
        yield
    finally:
        del os.environ[name]


def _interface(address: str) -> str | None:
    """Return the name of the network interface that has this IPv4 address."""
    ask = 0x8915  # SIOCGIFADDR, netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(probe.fileno(), ask, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None
