"""PyTorch's ranks that continue when one is lost, and take others in: what each of them does.

Where a rank is lost, the driver tells the others, whose collectives end; they form a group of those that are left,
and run the function again in the same process: what they kept in ``communicator.memory`` is still there. A rank that
is started in the lost one's place joins at the next ``communicator.admit``.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparkopt.errors import LostRankError
from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.rendezvous import Group
from sparkopt.launch.threads import torch_threads
from sparkopt.launch.torch_rank import TorchCommunicator, TorchRank, is_echo
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark import RDD  # clients of Spark Connect alone have none

__all__ = ["ElasticTorchRank", "by_rank", "run_elastic"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_POLL = 0.02
"""Seconds between two questions whether there is a group."""


class _RanksJoinError(Exception):
    """Others want to join: the group ends."""


@dataclass(frozen=True)
class ElasticTorchRank(TorchRank[T]):
    """A rank that is in one group after the other, until the function returns."""

    def run(self, info: RankInfo) -> Any:
        """Return the rank's last number and what the function returns; None where the run is over already."""
        memory: dict[str, Any] = {}
        with (
            DriverConnection(self.address, info.rank) as driver,
            torch_threads(self.cores),
            driver.reporting_failure(is_echo),
        ):
            while True:
                group = _next_group(driver)
                if group is None:
                    return None
                driver.rank = group.rank
                if group.number > 1 and group.rank == 0:
                    driver.report(
                        {"event": "group", "size": group.size, "before": group.before, "lost": list(group.lost)}
                    )
                own = replace(info, rank=group.rank, size=group.size, local_rank=group.local_rank)
                found = self._in_a_group(driver, group, own, memory)
                if found is not None:
                    driver.finish()
                    return group.rank, found[0]
                gc.collect()  # of what the group held, the network that was trained in it included

    def _in_a_group(
        self, driver: DriverConnection, group: Group, info: RankInfo, memory: dict[str, Any]
    ) -> tuple[T] | None:
        """Run the function in a group; return None where the group has ended before it."""
        try:
            with self._group(info, driver, group.number) as communicator, _ending(driver):
                elastic = ElasticTorchCommunicator(info, driver)
                elastic.memory = memory
                del communicator
                result: T = self.function(elastic, *self.args, **self.kwargs)
                return (result,)
        except _RanksJoinError as error:
            logger.info("rank %d: others join", info.rank)
            traceback.clear_frames(error.__traceback__)
        except Exception as error:
            has_changed = driver.has_changed(group.number) or _is_told(driver, group.number, error)
            if not has_changed or driver.failed():
                raise
            logger.warning("rank %d lost another rank: %s", info.rank, error)
            traceback.clear_frames(error.__traceback__)
        return None


def _is_told(driver: DriverConnection, number: int, error: Exception) -> bool:
    """Wait for the driver to find out that a rank is gone, which this rank's own error suggests."""
    deadline = time.monotonic() + 5.0
    while is_echo(error) and time.monotonic() < deadline:
        if driver.has_changed(number) or driver.is_broken():
            return True
        time.sleep(_POLL)
    return False


def _next_group(driver: DriverConnection) -> Group | None:
    """Wait for the next group; None where the run is over.

    Raises
    ------
    LostRankError
        Where there are too few ranks, or they were lost too often.
    """
    driver.join(socket.gethostname())
    while (group := driver.group()) is None:
        time.sleep(_POLL)
    if group.error is not None:
        raise LostRankError(group.error)
    return group if group.number else None


@contextlib.contextmanager
def _ending(driver: DriverConnection) -> Iterator[None]:
    """End this process's collectives when the driver says that the group has changed, and when it is left."""
    import torch
    from torch import distributed

    backend: Any = distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    driver.on_change = backend.abort
    try:
        yield
    except Exception:
        backend.abort()  # so that others do not wait for this rank
        raise
    finally:
        driver.on_change = None


class ElasticTorchCommunicator(TorchCommunicator):
    """A group that may end before the function does."""

    def __init__(self, info: RankInfo, driver: DriverConnection) -> None:
        super().__init__(info, driver)
        self._of_driver = driver

    def admit(self) -> None:
        own = self._of_driver.is_awaited() if self.rank == 0 else False
        if self.all_reduce(np.array([float(own)]))[0] > 0:
            raise _RanksJoinError


@dataclass(frozen=True)
class _ElasticTask:
    """What a task of Spark does; one that Spark starts again joins the others."""

    rank: ElasticTorchRank[Any]

    def __call__(self, rows: Iterable[int]) -> Iterator[Any]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None  # noqa: S101  # this is a task
        (number,) = rows  # Spark does not reuse a Python worker whose input was not read to its end
        resources = {name: tuple(found.addresses) for name, found in context.resources().items()}
        yield self.rank.run(RankInfo(number, 1, 0, resources.get("gpu", ()), resources))


def run_elastic(tasks: RDD[int], *rank: Any) -> list[Any]:
    """Run an elastic rank of these parts in each task; return what their function returns, by the last rank."""
    return by_rank(tasks.mapPartitions(_ElasticTask(ElasticTorchRank(*rank))).collect())


def by_rank(found: Iterable[Any]) -> list[Any]:
    """Return the results of ranks in their order, without those of ranks that came too late."""
    return [result for _, result in sorted((one for one in found if one is not None), key=lambda one: one[0])]
