"""A rank of PyTorch: its group of ``torch.distributed``, which is formed through the driver, and its collectives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.communicator import RankInfo, RemoteCommunicator
from sparkopt.launch.connections import Address
from sparkopt.launch.threads import torch_threads
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["TorchCommunicator", "TorchRank", "is_echo"]

T = TypeVar("T")


class TorchCommunicator(RemoteCommunicator):
    """Collectives of ``torch.distributed``: Gloo for arrays, also NCCL where the rank has a CUDA device."""

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
class TorchRank(Generic[T]):
    """What a rank needs: the function and its arguments, and the driver, through which ranks meet."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    address: Address
    cores: int
    timeout: float

    def run(self, info: RankInfo) -> T:
        """Run the function as this rank of the group."""
        with (
            DriverConnection(self.address, info.rank) as driver,
            torch_threads(self.cores),
            driver.reporting_failure(is_echo),  # while the group forms
            self._group(info, driver) as communicator,
            driver.reporting_failure(is_echo),
        ):
            result: T = self.function(communicator, *self.args, **self.kwargs)
        return result

    @contextlib.contextmanager
    def _group(self, info: RankInfo, driver: DriverConnection, number: int = 0) -> Iterator[TorchCommunicator]:
        """Form the group; leave it at the end."""
        from torch import cuda, distributed

        from sparkopt.launch.meeting import ChannelStore, prove

        # NCCL connects with the first tensor on a GPU, so that ranks on CPUs never do, and need no GPU of their own
        has_nccl = cuda.is_available() and distributed.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
        store = ChannelStore(driver, self.address.timeout, number)
        with _gloo_on(driver.local_host):
            distributed.init_process_group(
                backend,
                store=store,
                rank=info.rank,
                world_size=info.size,
                timeout=timedelta(seconds=self.address.timeout),
            )
        try:
            # all wait for all here: one that leaves at once would break the connections of one that still connects
            prove(info, store, self.address.key, self.address.timeout)
            distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=self.timeout))
            yield TorchCommunicator(info, driver)
        finally:
            distributed.destroy_process_group()


def is_echo(error: Exception) -> bool:
    """Whether a collective failed since another rank had gone; Gloo says so only in its message."""
    from torch.distributed import DistError

    message = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and ("gloo/" in message or "Gloo" in message)
    )


@contextlib.contextmanager
def _gloo_on(address: str) -> Iterator[None]:
    """Let Gloo listen on the network interface that has ``address``: the one from which the driver is reached.

    Gloo's default is the interface of the machine's name, which in many containers resolves to one that others do not
    reach.
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
    """Return the name of the network interface that has this address."""
    if ":" in address:
        return _interface_6(address)
    request = 0x8915  # SIOCGIFADDR, netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(probe.fileno(), request, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def _interface_6(address: str) -> str | None:
    """Do so for an IPv6 address, on Linux."""
    wanted = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            found, *_, name = line.split()
            if found == wanted:
                return name
    return None
