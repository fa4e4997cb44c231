"""Horovod's ranks: ``horovod.spark.run`` starts one process for each of its Spark tasks."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np

from sparkopt.errors import MissingDependencyError
from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.communicator import RankInfo, RemoteCommunicator
from sparkopt.launch.connections import Address
from sparkopt.launch.horovod_patches import batch_threads, patched_driver
from sparkopt.launch.launcher import P, RankFunction, SparkLauncher, check_picklable
from sparkopt.launch.threads import torch_threads
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["HorovodCommunicator", "HorovodLauncher", "HorovodTask", "is_echo"]

T = TypeVar("T")


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
    """Return the name of an operation; Horovod caches what ranks agreed on by name: one for each type and shape."""
    return f"{collective}/{values.dtype}/{values.shape}"


@dataclass(frozen=True)
class HorovodLauncher(SparkLauncher):
    """Ranks are processes that Horovod starts, one for each of its Spark tasks.

    Starting takes about ten seconds, most of it Horovod's search for a network that all ranks share.
    """

    name = "horovod"

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        try:
            from horovod import spark
        except ImportError as error:
            raise MissingDependencyError(
                "launcher='horovod' needs Horovod, which has no wheel to install: build it with .ci/horovod "
                "(make horovod), or use launcher='torch', which needs PyTorch only."
            ) from error
        check_picklable(function, args, kwargs)
        processes = self._await_slots()
        with self._channel() as channel, patched_driver():
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

    def _task(self, function: Any, address: Address) -> HorovodTask[Any]:
        """Return what a rank does."""
        return HorovodTask(function, address, self.task_cores)


@dataclass(frozen=True)
class HorovodTask(Generic[T]):
    """What a rank does."""

    function: Any
    address: Address
    cores: int

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        rank = int(os.environ["HOROVOD_RANK"])
        with (
            DriverConnection(self.address, rank) as driver,
            torch_threads(self.cores),
            driver.reporting_failure(is_echo),  # while the group forms
            self.group(driver) as communicator,
            driver.reporting_failure(is_echo),
        ):
            result: T = self.function(communicator, *args, **kwargs)
        return result

    @contextlib.contextmanager
    def group(self, driver: DriverConnection) -> Iterator[HorovodCommunicator]:
        """Form the group; leave it at the end."""
        import horovod.torch as hvd
        from horovod.spark.task import get_available_devices

        devices = tuple(get_available_devices())
        with contextlib.nullcontext() if devices else batch_threads():
            hvd.init()
        try:
            resources = {"gpu": devices} if devices else {}
            info = RankInfo(hvd.rank(), hvd.size(), hvd.local_rank(), devices, resources)
            yield HorovodCommunicator(info, driver)
        finally:
            hvd.shutdown()


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
