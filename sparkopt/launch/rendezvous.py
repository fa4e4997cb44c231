"""Where elastic ranks meet: the driver's list of the ranks that live, of which it forms one group after the other.

As in torchft, a group ends where one of its ranks is lost or another wants to join, and the ranks that are there form
the next one. Here the driver decides: a rank lives as long as its authenticated connection to the driver.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import field

from sparkopt.values import dataclass

__all__ = ["Group", "Rendezvous"]


@dataclass(frozen=True)
class Group:
    """A group of ranks, as one of them is told.

    Attributes
    ----------
    number : int
        Number of the group, from 1; 0 where there is none, and ``error`` says why, or the run is over.
    rank, local_rank, size : int
        This rank among them, among those of its machine, and how many there are.
    before : int
        Ranks of the group before.
    lost : tuple of int
        Those of them that are gone.
    error : str or None
        Why no group can be formed any more.
    """

    number: int = 0
    rank: int = 0
    local_rank: int = 0
    size: int = 0
    before: int = 0
    lost: tuple[int, ...] = ()
    error: str | None = None


@dataclass
class Rendezvous:
    """Forms groups; not thread-safe.

    Parameters
    ----------
    processes : int
        Ranks that there should be.
    at_least : int
        Fewest ranks of a group.
    most_losses : int
        How often ranks may be lost.
    timeout : float
        Seconds to wait for enough ranks.

    Examples
    --------
    >>> meeting = Rendezvous(2, 1, 1, 60.0)
    >>> meeting.join("a", "host")
    >>> meeting.group_of("a") is None  # until the other comes
    True
    >>> meeting.join("b", "host")
    >>> meeting.group_of("b").rank
    1
    >>> meeting.leave("a")  # it was in the group
    True
    >>> meeting.join("b", "host")
    >>> group = meeting.group_of("b")
    >>> group.number, group.rank, group.size, group.lost
    (2, 0, 1, (0,))
    """

    processes: int
    at_least: int
    most_losses: int
    timeout: float
    _hosts: dict[Hashable, str] = field(default_factory=dict)
    _waiting: dict[Hashable, float] = field(default_factory=dict)
    _members: list[Hashable] = field(default_factory=list)
    _groups: dict[Hashable, Group] = field(default_factory=dict)
    _losses: int = 0
    _is_over: bool = False
    number: int = 0

    def join(self, rank: Hashable, host: str) -> None:
        """Note that a rank wants to be in the next group."""
        self._hosts[rank] = host
        self._waiting.setdefault(rank, time.monotonic())
        self._groups.pop(rank, None)

    def leave(self, rank: Hashable) -> bool:
        """Note that a rank is gone; return whether it was in the group."""
        self._hosts.pop(rank, None)
        self._waiting.pop(rank, None)
        return rank in self._members

    @property
    def is_over(self) -> bool:
        """Whether the function has returned on a rank."""
        return self._is_over

    def end(self) -> None:
        """Note that the run is over: a rank that comes later is told so."""
        self._is_over = True

    @property
    def is_awaited(self) -> bool:
        """Whether a rank waits that is not in the group."""
        return any(rank not in self._members for rank in self._waiting)

    @property
    def is_broken(self) -> bool:
        """Whether the ranks of the group should leave it: one is lost, or has left it."""
        return any(rank not in self._hosts or rank in self._waiting for rank in self._members)

    def group_of(self, rank: Hashable) -> Group | None:
        """Return the group of a rank that waits, once there is one."""
        if rank in self._waiting and self._is_over:
            return Group()
        if rank in self._waiting:
            self._form()
        return self._groups.get(rank)

    def _form(self) -> None:
        if any(rank not in self._waiting for rank in self._hosts):
            return  # a rank of the group is still in it
        count, waited = len(self._waiting), time.monotonic() - min(self._waiting.values())
        enough = self.at_least if self.number or waited > self.timeout else self.processes
        if count < enough:
            if waited > self.timeout:
                self._refuse(f"{count} processes are left after {self.timeout:g} s; minProc={self.at_least}.")
            return
        lost = tuple(number for number, rank in enumerate(self._members) if rank not in self._hosts)
        self._losses += bool(lost)
        if self._losses > self.most_losses:
            named = ", ".join(map(str, lost))
            self._refuse(
                f"rank {named} of {len(self._members)} ended unexpectedly, as others did before: maxRestarts allows "
                "for no further loss."
            )
            return
        stayed = [rank for rank in self._members if rank in self._hosts]
        members = stayed + [rank for rank in self._waiting if rank not in stayed]
        hosts, before = [self._hosts[rank] for rank in members], len(self._members)
        self._members, self.number = members, self.number + 1
        self._waiting.clear()
        self._groups = {
            rank: Group(self.number, number, hosts[:number].count(hosts[number]), len(members), before, lost)
            for number, rank in enumerate(members)
        }

    def _refuse(self, error: str) -> None:
        self._groups = {rank: Group(error=error) for rank in self._waiting}
