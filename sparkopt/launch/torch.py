"""PyTorch's ranks inside Spark's tasks: a barrier stage whose tasks form one ``torch.distributed`` group.

No further process is started; the launcher that starts some, without Spark, is in ``processes``. Importing PyTorch
takes a new Python worker a second or two, and one that Spark reuses no time; forming the group through the driver
takes milliseconds. Spark never retries a barrier stage that ends in its job's result: a run is one attempt, and its
caller decides about another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Generic, TypeVar

from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.elastic_torch import run_elastic
from sparkopt.launch.launcher import P, RankFunction, SparkLauncher, check_picklable
from sparkopt.launch.rendezvous import Rendezvous
from sparkopt.launch.settings import SessionSettings, refuse_barrier
from sparkopt.launch.torch_rank import TorchRank
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile

__all__ = ["TorchLauncher"]

T = TypeVar("T")


@dataclass(frozen=True)
class TorchLauncher(SparkLauncher):
    """Ranks are the tasks of a barrier stage.

    Parameters
    ----------
    profile : ResourceProfile or None, default None
        What each task asks of Spark (a GPU, say) where it is not the session's own configuration.
    most_losses : int, default 0
        How often ranks may be lost while the others continue, ``at_least`` of them. Ranks are then the tasks of an
        ordinary stage, of which Spark starts again what is lost.

    Examples
    --------
    >>> import numpy as np
    >>> def total(communicator, start):
    ...     return communicator.all_reduce(np.array([start + communicator.rank])).tolist()
    >>> TorchLauncher(spark.sparkContext, 2).run(total, 10.0)
    [[21.0], [21.0]]
    """

    profile: ResourceProfile | None = field(default=None, repr=False)
    most_losses: int = 0
    name = "torch"

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        check_picklable(function, args, kwargs)
        refuse_barrier(SessionSettings.of_context(self.context))
        if self.profile is not None:
            self.context.parallelize(range(1), 1).withResources(self.profile)  # Spark knows the profile from here on
        processes = self._await_slots(self.profile)
        ranks = self.context.parallelize(range(processes), processes)
        if self.profile is not None:
            ranks = ranks.withResources(self.profile)
        if self.most_losses and self.at_least is not None:
            meeting = Rendezvous(processes, self.at_least, self.most_losses, self.start_timeout)
            with self._channel(meeting) as channel:
                elastic = (function, args, kwargs, channel.address, self.task_cores, self.timeout)
                return run_elastic(ranks, *elastic)
        with self._channel() as channel:
            rank: TorchRank[T] = TorchRank(function, args, kwargs, channel.address, self.task_cores, self.timeout)
            return ranks.barrier().mapPartitions(_TorchTask(rank)).collect()


@dataclass(frozen=True)
class _TorchTask(Generic[T]):
    """What a task of the barrier stage does."""

    rank: TorchRank[T]

    def __call__(self, rows: Iterable[int]) -> Iterator[T]:
        from pyspark import BarrierTaskContext

        context = BarrierTaskContext.get()
        (rank,) = rows  # Spark does not reuse a Python worker whose input was not read to its end
        yield self.rank.run(RankInfo.of_task(context, rank))
