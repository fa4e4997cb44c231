"""PyTorch's ranks without Spark: processes of this machine that form one ``torch.distributed`` group.

Each rank is a new process, which inherits no threads. It receives the function and its arguments through a pipe, and
returns the result there. Everything else is as under Spark: reports, the signal to stop and failures go through the
channel, by which a rank also notices that this process has ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import field
from queue import SimpleQueue
from typing import Any, TypeVar

from sparkopt.launch.channel import Channel, Watcher
from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.connections import Listener
from sparkopt.launch.elastic_torch import ElasticTorchRank, by_rank
from sparkopt.launch.ended import why_ended
from sparkopt.launch.launcher import Launcher, P, RankFunction, check_picklable
from sparkopt.launch.rendezvous import Rendezvous
from sparkopt.launch.torch_rank import TorchRank
from sparkopt.machine import available_cores
from sparkopt.machine.messages import Frame
from sparkopt.machine.process import EndedError, WorkerProcess
from sparkopt.machine.worker import Failure, Returned, Surroundings
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ProcessLauncher"]

T = TypeVar("T")

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class ProcessLauncher(Launcher):
    """Ranks are processes of this machine; no Spark is needed.

    Parameters
    ----------
    processes : int
        Number of ranks. They share the machine's cores; accelerators are assigned by number, one to each rank.
    watcher : Watcher or None, default None
        Called with each report; a true result asks the ranks to stop.
    start_timeout : float, default 120
        Seconds to wait for the ranks to find each other.
    timeout : float, default 1800
        Seconds after which a rank that waits for another in a collective gives up.
    at_least : int or None, default None
        Fewest ranks that continue where one is lost; None is all.
    most_losses : int, default 0
        How often ranks may be lost while the others continue; another process is started in a lost one's place.

    Examples
    --------
    >>> import numpy as np
    >>> def total(communicator, start):
    ...     return communicator.all_reduce(np.array([start + communicator.rank])).tolist()
    >>> ProcessLauncher(2).run(total, 10.0)
    [[21.0], [21.0]]
    """

    processes: int
    watcher: Watcher | None = field(default=None, repr=False)
    start_timeout: float = 120.0
    timeout: float = 1800.0
    at_least: int | None = None
    most_losses: int = 0
    name = "torch"

    def __post_init__(self) -> None:
        check("numProc", self.processes, Interval(1, None, whole=True))
        check("start_timeout", self.start_timeout, Interval(0, None, closed="neither"))
        check("timeout", self.timeout, Interval(0, None, closed="neither"))

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        check_picklable(function, args, kwargs)
        listener = Listener(_HOST, timeout=self.start_timeout)
        most = 0 if self.at_least is None else self.most_losses
        meeting = Rendezvous(self.processes, self.at_least or self.processes, most, self.start_timeout)
        with Channel(listener, self.watcher, meeting) as channel:
            cores = max(1, available_cores() // self.processes)
            kind = ElasticTorchRank if most else TorchRank
            rank: TorchRank[T] = kind(function, args, kwargs, channel.address, cores, self.timeout)
            with _started(rank, self.processes) as ranks:
                found = _results(ranks, channel, most)
        return by_rank(found) if most else found


class _Rank:
    """A rank's process, and the thread that waits for its result: the process would end with the thread.

    Parameters
    ----------
    info : RankInfo
        The rank.
    task, surroundings : Frame, Surroundings
        What it runs, and where.
    ended : SimpleQueue
        Where it goes at its end.
    """

    def __init__(self, info: RankInfo, task: Frame, surroundings: Surroundings, ended: SimpleQueue[_Rank]) -> None:
        self.info = info
        self.outcome: Returned | Failure | EndedError | None = None
        self._process: WorkerProcess | None = None
        self._is_ended = threading.Event()
        self._started = threading.Event()
        arguments = (task, surroundings, ended)
        self._thread = threading.Thread(target=self._run, args=arguments, name="sparkopt-rank", daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self, task: Frame, surroundings: Surroundings, ended: SimpleQueue[_Rank]) -> None:
        try:
            self._process = WorkerProcess()
        except OSError as error:  # no process can be started
            self.outcome = EndedError(str(error))
        finally:
            self._started.set()
        if self._process is not None:
            try:
                self.outcome = self._process.apply(1, task, Frame.of(self.info), surroundings)
            except EndedError as error:
                self.outcome = error
            except Exception as error:  # noqa: BLE001  # such as a warning of the rank's that is an error here
                self.outcome = Failure(error, "")
        ended.put(self)
        self._is_ended.wait()
        if self._process is not None:
            self._process.close()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
        self._is_ended.set()
        self._thread.join()


@dataclass
class _Ranks:
    """The ranks, and those that have ended, in that order."""

    every: list[_Rank]
    ended: SimpleQueue[_Rank]
    task: Frame
    surroundings: Surroundings

    def start(self, info: RankInfo) -> None:
        """Start a rank."""
        self.every.append(_Rank(info, self.task, self.surroundings, self.ended))


@contextlib.contextmanager
def _started(rank: TorchRank[Any], processes: int) -> Iterator[_Ranks]:
    """Start the ranks; at the end none is left."""
    from pyspark.cloudpickle import dumps  # functions of notebooks and scripts have no name to import them by

    ranks = _Ranks([], SimpleQueue(), Frame.of(rank.run, dumps), Surroundings.here())
    try:
        for number in range(processes):
            ranks.start(RankInfo(number, processes, number))
        yield ranks
    finally:
        for one in ranks.every:
            one.end()


def _results(ranks: _Ranks, channel: Channel, most_losses: int = 0) -> list[Any]:
    """Return what the ranks return; start others for those that are lost, so often.

    Raises
    ------
    SparkoptError
        Where one fails, or is lost.
    """
    found: dict[int, Any] = {}
    while len(found) < len(ranks.every):
        one = ranks.ended.get()
        if isinstance(one.outcome, EndedError) and most_losses > 0 and channel.failure() is None:
            most_losses -= 1
            ranks.every.remove(one)
            one.end()
            ranks.start(one.info)
            continue
        if not isinstance(one.outcome, Returned):
            raise _failure(one, ranks, channel)
        found[one.info.rank] = one.outcome.value
    return [found[number] for number in sorted(found)]


def _failure(first: _Rank, ranks: _Ranks, channel: Channel) -> Exception:
    """Return why a rank has ended."""

    def lost() -> tuple[int, str] | None:
        return next(((one.info.rank, f"{one.outcome}.") for one in ranks.every if _is_lost(one)), None)

    error = first.outcome.error if isinstance(first.outcome, Failure) else None
    return why_ended(channel, len(ranks.every), lost, error)


def _is_lost(rank: _Rank) -> bool:
    return isinstance(rank.outcome, EndedError)
