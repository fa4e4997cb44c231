"""Communicator: what a rank knows of the others. Sums and broadcasts of arrays; words to the driver."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparkopt.launch.channel import Line, Progress, Watcher
from sparkopt.typing import Array

__all__ = ["Communicator", "LocalCommunicator", "Place", "RemoteCommunicator", "limited_threads"]


@dataclass(frozen=True)
class Place:
    """Where a rank stands.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and how many there are.
    local_rank : int
        Number of this process among those of its machine.
    accelerators : tuple of str
        Addresses that Spark gave to the task, ``("0",)`` for the first GPU, say; empty where it gave none.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    accelerators: tuple[str, ...] = ()


class Communicator(ABC):
    """Collectives over all ranks: every rank must call each of them, in the same order.

    Attributes
    ----------
    name : str
        "local", "torch" or "horovod".
    place : Place
        Where this rank stands.
    memory : dict or None
        What this process keeps for the groups that come after this one: a group that has lost a rank, or that others
        want to join, is formed anew, and the function begins again. None where there is this group only.
    """

    name: str
    place: Place
    memory: dict[str, Any] | None = None

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.place.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.place.size

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
    def report(self, progress: Progress) -> None:
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
        self.place = Place(accelerators=accelerators)
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

    def report(self, progress: Progress) -> None:
        if self._watcher is not None and self._watcher(progress):
            self._stopping = True

    def stopping(self) -> bool:
        return self._stopping


class RemoteCommunicator(Communicator):
    """A rank among others, with a line to the driver."""

    def __init__(self, place: Place, line: Line) -> None:
        self.place, self._line = place, line

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
        """Return the lengths of all ranks' payloads, one row a rank, and this rank's as rows of the greatest."""
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

    def report(self, progress: Progress) -> None:
        self._line.report(progress)

    def stopping(self) -> bool:
        return self._line.stopping()


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let PyTorch use ``count`` threads for a while: as many as the task has cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
