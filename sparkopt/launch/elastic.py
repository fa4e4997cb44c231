"""Horovod's ranks that continue when one is lost: ``horovod.spark.run_elastic``.

Where a rank is lost, the others notice in their next collective, form a group of those that are left, and run the
function again in the same process: what they kept in ``communicator.memory`` is still there. Spark runs the lost
rank's task again (on another executor, where that is gone too), and at the next ``communicator.admit`` the group is
formed once more, with the replacement in it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, TypeVar

import numpy as np

from sparkopt.errors import LostRankError, ParameterError
from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.connections import Address
from sparkopt.launch.horovod import HorovodCommunicator, HorovodLauncher, HorovodTask, is_echo
from sparkopt.launch.threads import torch_threads
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ElasticLauncher"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ElasticLauncher(HorovodLauncher):
    """Horovod's ranks, of which some may be lost during the run.

    Parameters
    ----------
    at_least : int
        Fewest ranks that continue without replacements; with fewer left they wait for them, up to ``start_timeout``
        seconds.
    most_losses : int, default 1
        How often ranks may be lost before the run fails.
    """

    most_losses: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check("maxRestarts", self.most_losses, Interval(1, None, whole=True))
        if self.at_least is None:
            raise ParameterError("at_least must be set: it is the fewest ranks that continue without replacements.")

    def _start(self, spark: Any, processes: int) -> tuple[Callable[..., Any], dict[str, Any]]:
        return spark.run_elastic, {
            "min_num_proc": self.at_least,
            "max_num_proc": self.processes,
            "elastic_timeout": int(self.start_timeout),
        }

    def _task(self, function: Any, address: Address) -> HorovodTask[Any]:
        return _ElasticTask(function, address, self.task_cores, self.most_losses)


@dataclass(frozen=True)
class _ElasticTask(HorovodTask[T]):
    """What a rank does: the function, in one group after the other, until it returns."""

    most_losses: int

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

        with (
            DriverConnection(self.address, int(os.environ["HOROVOD_RANK"])) as driver,
            torch_threads(self.cores),
            driver.reporting_failure(is_echo),
        ):
            member, unformed = _ElasticMember(driver, self.most_losses), 0
            while True:
                groups = member.groups
                try:
                    return self._in_a_group(member, args, kwargs)
                except HostsUpdatedInterrupt:
                    logger.info("rank %d: others join", driver.rank)
                except HorovodInternalError as error:
                    unformed = 0 if member.groups > groups else unformed + 1
                    if driver.failed() or unformed > self.most_losses:
                        raise
                    logger.warning("rank %d lost another rank: %s", driver.rank, error)

    def _in_a_group(self, member: _ElasticMember, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Form a group, and run the function in it."""
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

        member.hosts_changed = False  # before Horovod's driver decides on who is in the group
        with contextlib.ExitStack() as stack:
            try:
                group = stack.enter_context(self.group(member.driver))
            except ValueError as error:  # a rank was lost meanwhile
                hvd.shutdown()  # of what was begun
                raise HorovodInternalError(f"no group could be formed: {error}") from error
            stack.enter_context(
                member.driver.reporting_failure(is_echo, (HorovodInternalError, HostsUpdatedInterrupt))
            )
            result: T = self.function(member.join(group), *args, **kwargs)
            return result


@dataclass(eq=False)
class _ElasticMember:
    """What a process carries from one group to the next."""

    driver: DriverConnection
    most_losses: int
    memory: dict[str, Any] = field(default_factory=dict)
    groups: int = 0
    rank: int = -1
    size: int = 0
    hosts_changed: bool = False
    _manager: Any = None

    def on_hosts_updated(self, timestamp: float, result: Any) -> None:
        """Note that tasks came or went: Horovod's driver reports it to rank 0, on a thread of its own."""
        self.hosts_changed = True

    def join(self, group: HorovodCommunicator) -> ElasticCommunicator:
        """Find out who is in the group, and report what has changed to the driver. A collective.

        Raises
        ------
        LostRankError
            On rank 0, where ranks were lost more often than they may be.
        """
        self._listen()
        own = [self.groups, self.rank, self.size, socket.gethostname()]
        members = [json.loads(payload) for payload in group.all_gather(json.dumps(own).encode())]
        last = max(groups for groups, *_ in members)
        before = max((size for groups, _, size, _ in members if groups == last), default=0)
        stayed = {rank for groups, rank, *_ in members if groups == last}
        self.groups, self.rank, self.size, self.driver.rank = last + 1, group.rank, group.size, group.rank
        if last > 0 and group.rank == 0:
            self._report(sorted(set(range(before)) - stayed), before)
        machines = [machine for *_, machine in members]
        local_rank = machines[: group.rank].count(machines[group.rank])  # to Horovod each task is a machine here
        return ElasticCommunicator(replace(group.info, local_rank=local_rank), self)

    def _report(self, lost: list[int], before: int) -> None:
        self.driver.report({"event": "group", "size": self.size, "before": before, "lost": lost})
        if lost and self.driver.count_loss() > self.most_losses:
            raise LostRankError(
                f"rank {', '.join(map(str, lost))} of {before} ended unexpectedly, as others did before: "
                "maxRestarts allows for no further loss."
            )

    def _listen(self) -> None:
        """Let Horovod's driver reach this process, from the first group on."""
        from horovod.runner.elastic.worker import WorkerNotificationManager

        if self._manager is None:
            self._manager = WorkerNotificationManager()
            self._manager.register_listener(self)
            self._manager.init()


class ElasticCommunicator(HorovodCommunicator):
    """A group that may end before the function does."""

    def __init__(self, info: RankInfo, member: _ElasticMember) -> None:
        super().__init__(info, member.driver)
        self.memory = member.memory
        self._member = member

    def admit(self) -> None:
        from horovod.common.exceptions import HostsUpdatedInterrupt

        if self.all_reduce(np.array([float(self._member.hosts_changed)]))[0] > 0:
            raise HostsUpdatedInterrupt(skip_sync=False)
