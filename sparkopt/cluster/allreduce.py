"""The loop on every rank of a barrier stage; sums meet in an all-reduce, and no process sees them all."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pyspark.cloudpickle import dumps

from sparkopt.blocks.store import BlockStore, Held
from sparkopt.cluster.aggregate import Aggregator, DriverAggregator, Run, slots_of
from sparkopt.cluster.job import BackgroundJob
from sparkopt.cluster.launch.torch_launcher import TorchCommunicator, TorchLauncher
from sparkopt.cluster.ranks import FitOnRank, Outcome
from sparkopt.cluster.relay import Relay
from sparkopt.errors import LostRankError, MissingDependencyError
from sparkopt.solve import Problem
from sparkopt.validation import Interval, check
from sparkopt.work import Work

__all__ = ["AllReduceAggregator"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AllReduceAggregator(Aggregator):
    """The loop on every rank: one barrier stage a fit, sums added by ``torch.distributed`` (Gloo).

    Needs PyTorch, and as many free task slots at once as there are ranks. How the ranks' sums are grouped depends on
    their number, so coefficients are close to other engines', not equal to the last bit.

    Parameters
    ----------
    otherwise : DriverAggregator
        The engine that takes over where blocks are missing, since it can rebuild them.
    retries : int, default 2
        How often a fit that lost a rank is begun again, from its last checkpoint where it has one.
    """

    otherwise: DriverAggregator = DriverAggregator()
    retries: int = 2
    name = "allreduce"

    def __post_init__(self) -> None:
        check("retries", self.retries, Interval(0, None, whole=True))

    def run(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> Run:
        """Run the loop on every rank.

        Raises
        ------
        MissingDependencyError
            Where PyTorch is not installed.
        RankError
            Where a rank raised an exception; the message has its traceback.
        LostRankError
            Where ranks were lost more often than ``retries`` allows.
        """
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError.of("engine='allreduce'", "torch", "deep")
        for left in range(self.retries, -1, -1):
            try:
                outcome = self._attempt(problems, work, store)
                break
            except LostRankError as error:
                if left == 0:
                    raise
                logger.warning("%s The fit is begun again (%d more tries).", error, left)
        if outcome.missing:
            logger.warning("some blocks are missing: the fit runs with engine='driver', which rebuilds them")
            return self.otherwise.run(problems, work, store)
        return Run(list(outcome.solutions), list(outcome.passes), self.name)

    def _attempt(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> Outcome:
        ranks = min(slots_of(store.context), store.partitions)
        with Relay(store.context, problems) as relay:
            bare = [replace(problem, callbacks=()) for problem in problems]
            fit = FitOnRank(dumps((bare, work)), relay.address)
            launcher = TorchLauncher(store.context, ranks)
            held = store.map_tasks(_as_held, ranks)
            job = BackgroundJob(store.context, lambda: launcher.run_over(held, _on_rank, fit))
            return relay.attend(job)[0]


def _as_held(partitions: Iterator[Held]) -> Iterable[Held]:
    return partitions


def _on_rank(communicator: TorchCommunicator, partitions: Iterator[Held], fit: FitOnRank) -> Outcome:
    """What each rank runs; all end alike, and only rank 0's words are needed."""
    outcome = fit(communicator, partitions)
    return outcome if communicator.rank == 0 else Outcome()
