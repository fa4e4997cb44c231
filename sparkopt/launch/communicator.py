"""Communicator: a rank's collectives over arrays and bytes, and its reports to the driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from sparkopt.launch.channel import DriverConnection, RankReport, Watcher
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["Communicator", "LocalCommunicator", "RankInfo", "RemoteCommunicator"]


@dataclass(frozen=True)
class RankInfo:
    """A rank among the others, and its devices.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and how many there are.
    local_rank : int
        Number of this process among those of its machine.
    accelerators : tuple of str
        Addresses that Spark gave to the task, ``("0",)`` for the first GPU, say; empty where it gave none.
    resources : mapping of str to tuple of str
        Addresses of all that Spark gave to the task, by the resource's name.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    accelerators: tuple[str, ...] = ()
    resources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of_task(cls, context: Any, rank: int) -> RankInfo:
        """Return what a task of a barrier stage is among the others."""
        machines = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
        resources = {name: tuple(found.addresses) for name, found in context.resources().items()}
        local_rank = machines[:rank].count(machines[rank])
        return cls(rank, len(machines), local_rank, resources.get("gpu", ()), resources)


class Communicator(ABC):
    """Collectives over all ranks: every rank must call each of them, in the same order.

    Attributes
    ----------
    name : str
        "local", "torch" or "horovod".
    info : RankInfo
        This rank among the others, and its devices.
    memory : dict or None
        What this process keeps for the next group: a group that has lost a rank, or that others wait to join, is
        formed again, and runs the function again. None where there is one group only.
    """

    name: str
    info: RankInfo
    memory: dict[str, Any] | None = None

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.info.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.info.size

    @property
    def host(self) -> str:
        """Address of this machine, from which it reaches the driver."""
        return "127.0.0.1"

    @abstractmethod
    def all_reduce(self, values: Array) -> Array:
        """Return the sum over all ranks of ``values`` (any shape; float32, float64 or int64), bit-equal on each."""

    @abstractmethod
    def broadcast(self, values: Array, root: int = 0) -> Array:
        """Return ``values`` of rank ``root``; the others' give shape and type."""

    @abstractmethod
    def all_gather(self, payload: bytes) -> list[bytes]:
        """Return the payloads of all ranks, by rank; their lengths may differ."""

    @abstractmethod
    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Send one payload to each rank, and return what each had for this one, by rank; lengths may differ."""

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_reduce(np.zeros(1))

    def admit(self) -> None:  # noqa: B027  # most groups stay as they are
        """Let ranks that wait join: where there are any, this group ends here. A collective."""

    @abstractmethod
    def report(self, progress: RankReport) -> None:
        """Send ``progress`` (anything that JSON holds) to the driver; not a collective, and soon done."""

    @abstractmethod
    def stopping(self) -> bool:
        """Whether the driver asked to stop; ranks may see it at different times, so agree by ``all_reduce``."""


class LocalCommunicator(Communicator):
    """A single rank, in this process.

    Parameters
    ----------
    watcher : Watcher or None, default None
        Called with each report.
    accelerators : tuple of str, default ()
        Accelerators it may use.

    Examples
    --------
    >>> LocalCommunicator().all_reduce(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    name = "local"

    def __init__(self, watcher: Watcher | None = None, accelerators: tuple[str, ...] = ()) -> None:
        self.info = RankInfo(accelerators=accelerators)
        self._watcher = watcher
        self._stopping = False

    def all_reduce(self, values: Array) -> Array:
        return np.array(values)

    def broadcast(self, values: Array, root: int = 0) -> Array:
        return np.array(values)

    def all_gather(self, payload: bytes) -> list[bytes]:
        return [payload]

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        return list(payloads)

    def report(self, progress: RankReport) -> None:
        if self._watcher is not None and self._watcher(progress):
            self._stopping = True

    def stopping(self) -> bool:
        return self._stopping


class RemoteCommunicator(Communicator):
    """A rank among others, with a connection to the driver.

    Parameters
    ----------
    info : RankInfo
        This rank among the others, and its devices.
    driver : DriverConnection
        Where reports are sent.
    """

    def __init__(self, info: RankInfo, driver: DriverConnection) -> None:
        self.info, self._driver = info, driver

    @property
    def host(self) -> str:
        return self._driver.local_host

    def all_gather(self, payload: bytes) -> list[bytes]:
        lengths, (padded,) = self._padded([payload])
        if not len(padded):
            return [b""] * self.size
        rows = self._gather(padded)
        return [row[:length].tobytes() for row, length in zip(rows, lengths[:, 0], strict=True)]

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        lengths, padded = self._padded(payloads)
        if not padded.size:
            return [b""] * self.size
        rows = self._exchange(padded)
        return [row[:length].tobytes() for row, length in zip(rows, lengths[:, self.rank], strict=True)]

    def _padded(self, payloads: Sequence[bytes]) -> tuple[Array, Array]:
        """Return the lengths of all ranks' payloads, a row each, and this rank's, padded to the greatest length."""
        lengths = np.zeros((self.size, len(payloads)), np.int64)
        lengths[self.rank] = [len(payload) for payload in payloads]
        lengths = self.all_reduce(lengths)
        padded = np.zeros((len(payloads), int(lengths.max())), np.uint8)
        for row, payload in zip(padded, payloads, strict=True):
            row[: len(payload)] = np.frombuffer(payload, np.uint8)
        return lengths, padded

    @abstractmethod
    def _gather(self, values: Array) -> Array:
        """Return the ranks' ``values`` (n,) as (size, n)."""

    @abstractmethod
    def _exchange(self, values: Array) -> Array:
        """Send row i of ``values`` (size, n) to rank i; return (size, n): row i is what rank i sent here."""

    def report(self, progress: RankReport) -> None:
        self._driver.report(progress)

    def stopping(self) -> bool:
        return self._driver.stopping()
