"""Launcher: runs one function on every rank and returns the ranks' results."""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sparkopt.errors import LostRankError, ParameterError, RankError, SparkoptError
from sparkopt.launch.channel import Channel, Watcher
from sparkopt.launch.communicator import Communicator, LocalCommunicator
from sparkopt.launch.connections import Listener
from sparkopt.launch.rendezvous import Rendezvous
from sparkopt.launch.settings import refuse_encryption
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.resource import ResourceProfile

__all__ = ["Launcher", "LocalLauncher", "RankFunction", "SparkLauncher", "check_picklable"]

T = TypeVar("T")
P = ParamSpec("P")

logger = logging.getLogger(__name__)

RankFunction: TypeAlias = Callable[Concatenate[Communicator, P], T]
"""What every rank runs: a function at module level, since it is pickled by its name."""


class Launcher(ABC):
    """Runs one function on every rank.

    Attributes
    ----------
    name : str
        "local", "torch", "horovod" or "ray".
    """

    name: str

    @abstractmethod
    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """Run ``function(communicator, *args)`` on every rank.

        Returns
        -------
        list
            What the ranks returned, by rank.

        Raises
        ------
        RankError
            Where a rank raised an exception; the message has its traceback. The other ranks end within seconds.
            sparkopt's own errors are raised as they were.
        LostRankError
            Where a rank ended unexpectedly.
        """


def check_picklable(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what cannot be sent to other processes.

    Raises
    ------
    ParameterError
        Naming the part, and why.
    """
    reason = _unpicklable([function, args, kwargs])
    if reason is None:
        return
    named = [("the function", function), *((f"argument {place}", one) for place, one in enumerate(args, 1))]
    named += list(kwargs.items())
    inner = [(each.name, getattr(one, each.name)) for _, one in named if _is_data(one) for each in fields(one)]
    name, reason = next(
        ((name, found) for name, one in [*inner, *named] if (found := _unpicklable(one)) is not None),
        ("what the processes run", reason),
    )
    raise ParameterError(f"{name} cannot be pickled, to be sent to the processes: {reason}.")


def _is_data(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _unpicklable(value: Any) -> str | None:
    """Return why something cannot be pickled, in one line; None where it can."""
    from pyspark.cloudpickle import dumps  # functions of notebooks and scripts have no name to import them by

    try:
        dumps(value)
    except Exception as error:  # noqa: BLE001  # whatever a user's own __reduce__ raises
        return f"{type(error).__name__}: {_first_line(error)}"
    return None


@dataclass(frozen=True)
class LocalLauncher(Launcher):
    """One rank, in this process: exceptions, breakpoints and profilers work as everywhere.

    Parameters
    ----------
    watcher : Watcher or None, default None
        Called with each report; a true result asks to stop.
    accelerators : tuple of str, default ()
        Accelerators that the rank may use.
    """

    watcher: Watcher | None = None
    accelerators: tuple[str, ...] = ()
    name = "local"

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return [function(LocalCommunicator(self.watcher, self.accelerators), *args, **kwargs)]


@dataclass(frozen=True)
class SparkLauncher(Launcher):
    """Base of the launchers whose ranks are Spark tasks, or started by them.

    Parameters
    ----------
    context : SparkContext
        Whose tasks the ranks are.
    processes : int
        Number of ranks; each needs a task slot, all at once.
    watcher : Watcher or None, default None
        Called in the driver with each report; a true result asks the ranks to stop.
    start_timeout : float, default 120
        Seconds to wait for the slots, and for the ranks to find each other.
    timeout : float, default 1800
        Seconds after which a rank that waits for another in a collective gives up.
    at_least : int or None, default None
        Fewest ranks to start with where Spark has no room for all of them; None is all.
    """

    context: SparkContext = field(repr=False)
    processes: int
    watcher: Watcher | None = field(default=None, repr=False)
    start_timeout: float = 120.0
    timeout: float = 1800.0
    at_least: int | None = None

    def __post_init__(self) -> None:
        check("numProc", self.processes, Interval(1, None, whole=True))
        check("start_timeout", self.start_timeout, Interval(0, None, closed="neither"))
        check("timeout", self.timeout, Interval(0, None, closed="neither"))
        if self.at_least is not None:
            check("minProc", self.at_least, Interval(1, self.processes, whole=True))

    @property
    def task_cores(self) -> int:
        """Cores of a task."""
        return int(self.context.getConf().get("spark.task.cpus", "1"))

    @contextmanager
    def _channel(self, meeting: Rendezvous | None = None) -> Iterator[Channel]:
        """Open the channel to the ranks; what fails while it is open fails for the reason that the ranks reported."""
        refuse_encryption(self.context)
        with Channel(Listener.of(self.context, self.start_timeout), self.watcher, meeting) as channel:
            try:
                yield channel
            except SparkoptError:
                raise
            except Exception as error:
                failure = channel.failure()
                _raise_if_cancelled(error)
                if failure is not None:
                    raise failure.error() from error
                raised = _python_error(error)
                if raised is not None:
                    raise RankError(f"a task failed before its rank began: {raised}") from error
                raise LostRankError(
                    f"a process of {self.processes} ended unexpectedly: it was killed, or its executor or machine "
                    f"was lost. Spark reports: {_first_line(error)}"
                ) from error

    def _await_slots(self, profile: ResourceProfile | None = None) -> int:
        """Wait until Spark can run all ranks at once, each with what ``profile`` asks for; return how many it can.

        Raises
        ------
        ParameterError
            Where it cannot run even the fewest; the message says how many it can.
        """
        if self.context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true":
            return self.processes  # executors are added when tasks wait for them
        deadline = time.monotonic() + (0 if str(self.context.master).startswith("local[") else self.start_timeout)
        while (slots := _slots(self.context, profile)) < self.processes:
            if time.monotonic() > deadline:
                if self.at_least is not None and slots >= self.at_least:
                    logger.warning(
                        "Spark has room for %d processes of %d: starting with these.", slots, self.processes
                    )
                    return slots
                raise ParameterError(
                    f"numProc={self.processes} needs {self.processes} tasks that run at the same time; Spark has "
                    f"room for {slots}{_requested(profile)}. Ask for fewer, or for more executors or cores."
                )
            time.sleep(0.5)
        return self.processes


def _raise_if_cancelled(error: Exception) -> None:
    """Raise what a user did as that, rather than as a lost process, after which a fit starts again."""
    from sparkopt.blocks.failures import raise_if_cancelled  # imports pyspark

    raise_if_cancelled(str(error))


def _slots(context: SparkContext, profile: ResourceProfile | None) -> int:
    """Return how many tasks Spark can run at once, as its scheduler counts before it starts a barrier stage."""
    scala: Any = context._jsc.sc()
    default = scala.resourceProfileManager().defaultResourceProfile()
    return int(scala.maxNumConcurrentTasks(default if profile is None else profile._java_resource_profile))


def _requested(profile: ResourceProfile | None) -> str:
    """Return what each task asks for, as part of a message."""
    requests = {} if profile is None else profile.taskResources
    return "".join(f" with {request.amount:g} {name} each" for name, request in requests.items())


def _python_error(error: Exception) -> str | None:
    """Return the exception that a task's Python raised, or None where the process was lost."""
    _, mark, trace = str(error).partition("PythonException: ")
    lines = re.findall(r"^[A-Za-z_][\w.]*(?:Error|Exception): .+$", trace.partition("\n\tat ")[0], re.MULTILINE)
    return lines[-1] if mark and lines else None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
