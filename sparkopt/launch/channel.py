"""The channel between the driver and the ranks of a run: progress, a stop signal, and the first failure.

Every rank keeps a connection to the driver, which a thread of its own reads. Where another rank has failed, or the
driver is gone, the rank ends itself: no rank waits in a collective for one that has ended, and no process outlives
the run.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing import AuthenticationError
from queue import SimpleQueue
from typing import Any, TypeAlias

from sparkopt import errors
from sparkopt.errors import LostRankError, RankError, SparkoptError
from sparkopt.launch.connections import Address, Connection, Listener, connect, local_host, receive, send, shut_down
from sparkopt.launch.rendezvous import Group, Rendezvous
from sparkopt.values import dataclass

__all__ = ["Channel", "DriverConnection", "Failure", "RankReport", "Watcher"]

logger = logging.getLogger(__name__)

RankReport: TypeAlias = dict[str, Any]
"""What a rank reports: anything that JSON can hold."""

Watcher: TypeAlias = Callable[[RankReport], "bool | None"]
"""Called in the driver with each report; a true result asks the ranks to stop."""

_GRACE = 3.0
"""Seconds that a rank has to report its own failure after another rank's."""
_EXIT = 70


@dataclass(frozen=True)
class Failure:
    """Why a rank failed.

    Attributes
    ----------
    rank : int
        Number of the rank.
    kind, message, traceback : str
        The exception: its class's name, its message, and its traceback as Python prints it.
    is_echo : bool
        Whether the rank only noticed that another one had gone.
    """

    rank: int
    kind: str
    message: str
    traceback: str
    is_echo: bool

    @classmethod
    def of(cls, rank: int, error: BaseException, is_echo: bool) -> Failure:
        """Describe ``error``."""
        trace = "".join(traceback.format_exception(error))
        return cls(rank, type(error).__name__, str(error), trace, is_echo)

    def error(self) -> SparkoptError:
        """Return the error to raise in the driver: sparkopt's own as they were, others with their traceback."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, SparkoptError):
            return kind(self.message)
        if self.is_echo:
            return LostRankError(f"rank {self.rank} lost another rank: {self.message}")
        return RankError(f"rank {self.rank} failed with {self.kind}: {self.message}\n\n{self.traceback.rstrip()}")


@dataclass(frozen=True)
class _Report:
    """A rank's progress, as JSON."""

    progress: str


@dataclass(frozen=True)
class _RankLost:
    """A rank was lost; the reply is how often that has happened."""


@dataclass(frozen=True)
class _HasFailed:
    """Whether a rank has reported a failure that is no echo."""


@dataclass(frozen=True)
class _Put:
    """Keep a value for the other ranks."""

    key: str
    value: bytes


@dataclass(frozen=True)
class _Get:
    """The value that a rank has put under a key; None before that."""

    key: str


@dataclass(frozen=True)
class _Add:
    """Add to the number under a key, and return the sum."""

    key: str
    amount: int


class _Meet(Enum):
    """What an elastic rank asks of the rendezvous."""

    GROUP = "the group that it is in"
    IS_AWAITED = "whether another rank wants to join"
    IS_BROKEN = "whether a rank has left the group"
    FINISHED = "nothing: its function has returned"


@dataclass(frozen=True)
class _Join:
    """An elastic rank wants to be in the next group."""

    host: str


@dataclass(frozen=True)
class _Changed:
    """What the driver sends to the ranks of a group that a rank has left."""

    number: int


_Request: TypeAlias = "_Report | Failure | _RankLost | _HasFailed | _Put | _Get | _Add | _Join | _Meet"


@dataclass(frozen=True)
class _Reply:
    """The driver's reply to a request."""

    value: Any = None


class _Signal(Enum):
    """What the driver sends to all ranks, unasked."""

    STOP = "stop"
    FAILED = "a rank has failed"


class Channel:
    """The driver's end; a context manager.

    Parameters
    ----------
    listener : Listener
        Where the ranks connect; the channel closes it.
    watcher : Watcher or None, default None
        Called with each report, on a thread of the channel's own.
    rendezvous : Rendezvous or None, default None
        Forms groups of elastic ranks.

    Attributes
    ----------
    address : Address
        Where the ranks connect.
    """

    def __init__(
        self, listener: Listener, watcher: Watcher | None = None, rendezvous: Rendezvous | None = None
    ) -> None:
        self.address = listener.address
        self._rendezvous = rendezvous
        self._listener, self._watcher = listener, watcher
        self._lock = threading.Lock()
        """Guards all that follows, and sending."""
        self._connections: list[Connection] = []
        self._signals: list[_Signal] = []
        self._failures: dict[bool, Failure] = {}
        self._losses = 0
        self._values: dict[str, bytes] = {}
        self._is_closed = False
        self._reports: SimpleQueue[str | None] = SimpleQueue()
        self._threads = [self._start(self._accept), self._start(self._watch)]

    @staticmethod
    def _start(target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name="sparkopt-channel", daemon=True)
        thread.start()
        return thread

    def failure(self) -> Failure | None:
        """Return the first failure that a rank reported, or None; an echo only where there is nothing else."""
        with self._lock:
            return self._failures.get(False, self._failures.get(True))

    def stop(self) -> None:
        """Ask the ranks to stop at their next opportunity."""
        with self._lock:
            self._send_all(_Signal.STOP)

    def close(self) -> None:
        """Deliver the last reports and close all connections: ranks that still run end themselves."""
        with self._lock:
            self._is_closed = True
            for connection in self._connections:
                shut_down(connection)
        self._reports.put(None)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send_all(self, signal: _Signal) -> None:
        """Send a signal to all ranks, those included that connect later."""
        if signal not in self._signals:
            self._signals.append(signal)
            for connection in self._connections:
                _send(connection, signal)

    def _accept(self) -> None:
        while not self._is_closed:
            for connection in self._listener.joined(timeout=None):
                with self._lock:
                    if self._is_closed:
                        connection.close()
                        continue
                    self._connections.append(connection)
                    for signal in self._signals:
                        _send(connection, signal)
                self._start(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        """Reply to a rank until it ends; one that an error keeps from its reply does not wait for it."""
        try:
            with suppress(EOFError, OSError):  # it has ended
                while True:
                    request: _Request = receive(connection)
                    with self._lock:
                        send(connection, _Reply(self._handle(request, connection)))
        finally:
            with self._lock:
                self._connections.remove(connection)
                meeting = self._rendezvous
                if meeting is not None and meeting.leave(connection) and not meeting.is_over:
                    self._tell_of_change()
                connection.close()

    def _tell_of_change(self) -> None:
        """Tell elastic ranks that one has left their group; the lock is held."""
        assert self._rendezvous is not None  # noqa: S101  # only then are there elastic ranks
        for connection in self._connections:
            _send(connection, _Changed(self._rendezvous.number))

    def _meet(self, meeting: Rendezvous, request: _Join | _Meet, connection: Connection) -> Any:
        """Return the reply to an elastic rank; the lock is held."""
        match request:
            case _Join(host):
                meeting.join(connection, host)
                if meeting.is_broken:
                    self._tell_of_change()
            case _Meet.GROUP:
                return meeting.group_of(connection)
            case _Meet.IS_AWAITED:
                return meeting.is_awaited
            case _Meet.IS_BROKEN:
                return meeting.is_broken
            case _Meet.FINISHED:
                meeting.end()
        return None

    def _handle(self, request: _Request, connection: Connection) -> Any:
        """Return the reply's value; the lock is held."""
        if isinstance(request, (_Join, _Meet)):
            assert self._rendezvous is not None  # noqa: S101  # only then are there elastic ranks
            return self._meet(self._rendezvous, request, connection)
        match request:
            case _Report(progress):
                self._reports.put(progress)
            case Failure():
                self._failures.setdefault(request.is_echo, request)
                self._send_all(_Signal.FAILED)
            case _RankLost():
                self._losses += 1
                return self._losses
            case _HasFailed():
                return False in self._failures
            case _Put(key, value):
                self._values[key] = value
            case _Get(key):
                return self._values.get(key)
            case _Add(key, amount):
                total = int(self._values.get(key, b"0")) + amount
                self._values[key] = str(total).encode()
                return total
        return None

    def _watch(self) -> None:
        """Call the watcher with each report; with all of them before the channel is closed."""
        watcher = self._watcher
        while (report := self._reports.get()) is not None:
            try:
                if watcher is not None and watcher(json.loads(report)):
                    self.stop()
            except Exception:
                logger.exception("a callback failed in the driver; it is not called again, and the run continues")
                watcher = None


class DriverConnection:
    """A rank's end; a context manager, within which a thread watches the driver and the other ranks.

    Parameters
    ----------
    address : Address
        Where the driver listens.
    rank : int
        Number of this rank.

    Raises
    ------
    LostRankError
        Where the driver cannot be reached.
    """

    def __init__(self, address: Address, rank: int) -> None:
        try:
            self._connection = connect(address)
        except (OSError, AuthenticationError) as error:
            raise unreachable(address) from error
        self.rank = rank
        self._sending = threading.Lock()
        self._replies: SimpleQueue[Any] = SimpleQueue()
        self._signals: set[_Signal] = set()
        self._changed = 0
        self.on_change: Callable[[], None] | None = None
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="sparkopt-watchdog", daemon=True)

    @property
    def local_host(self) -> str:
        """The address of this machine from which it reaches the driver."""
        return local_host(self._connection)

    def report(self, progress: RankReport) -> None:
        """Send a report."""
        self._request(_Report(json.dumps(progress)))

    def stopping(self) -> bool:
        """Whether the driver asked to stop."""
        return _Signal.STOP in self._signals

    def failed(self) -> bool:
        """Whether a rank reported a failure, other than that it lost another rank."""
        return bool(self._request(_HasFailed()))

    def join(self, host: str) -> None:
        """Ask to be in the next group of elastic ranks."""
        self._request(_Join(host))

    def group(self) -> Group | None:
        """Return the group that this rank is in; None where it waits for one."""
        found: Group | None = self._request(_Meet.GROUP)
        return found

    def is_awaited(self) -> bool:
        """Whether another rank wants to join the group."""
        return bool(self._request(_Meet.IS_AWAITED))

    def is_broken(self) -> bool:
        """Whether a rank has left the group."""
        return bool(self._request(_Meet.IS_BROKEN))

    def has_changed(self, number: int) -> bool:
        """Whether the driver has said that a rank has left the group of this number."""
        return self._changed >= number

    def finish(self) -> None:
        """Say that the function has returned: nobody is to join any more."""
        self._request(_Meet.FINISHED)

    def count_loss(self) -> int:
        """Count that a rank was lost; return how often that has happened."""
        return int(self._request(_RankLost()))

    def put(self, key: str, value: bytes) -> None:
        """Keep a value in the driver, for the other ranks."""
        self._request(_Put(key, value))

    def get(self, key: str) -> bytes | None:
        """Return what a rank has put under a key; None before that."""
        found: bytes | None = self._request(_Get(key))
        return found

    def add(self, key: str, amount: int) -> int:
        """Add to the number that the driver keeps under a key; return the sum."""
        return int(self._request(_Add(key, amount)))

    @contextmanager
    def reporting_failure(
        self, is_echo: Callable[[Exception], bool], unreported: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """Report an exception that passes to the driver, before connections to other ranks are closed.

        Parameters
        ----------
        is_echo : callable
            Whether an exception only says that another rank has gone.
        unreported : tuple of type, default ()
            Exceptions that are left to the caller.
        """
        try:
            yield
        except unreported:
            raise
        except Exception as error:
            self._request(Failure.of(self.rank, error, is_echo(error)))
            raise

    def __enter__(self) -> DriverConnection:
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        shut_down(self._connection)
        self._reader.join()

    def _request(self, request: _Request) -> Any:
        with self._sending:
            send(self._connection, request)
            return self._replies.get()  # where the driver is gone, the process ends

    def _read(self) -> None:
        """Receive what the driver sends, until either end closes the connection."""
        try:
            while True:
                received: _Reply | _Signal | _Changed = receive(self._connection)
                match received:
                    case _Reply(value):
                        self._replies.put(value)
                    case _Changed(number):
                        self._changed = max(self._changed, number)
                        if (ending := self.on_change) is not None:
                            threading.Thread(target=ending, daemon=True).start()
                    case _Signal():
                        self._signals.add(received)
                        if received is _Signal.FAILED:
                            threading.Thread(target=self._end_after_grace, daemon=True).start()
        except (EOFError, OSError):
            self._end("the driver is gone")
        self._connection.close()

    def _end_after_grace(self) -> None:
        if not self._ended.wait(_GRACE):
            self._end("another rank failed")

    def _end(self, reason: str) -> None:
        """End this process, unless the run is over."""
        if not self._ended.is_set():
            logger.error("rank %d ends: %s", self.rank, reason)
            os._exit(_EXIT)


def unreachable(address: Address) -> LostRankError:
    """Return the error of a rank that cannot reach the driver."""
    return LostRankError(
        f"{socket.gethostname()} cannot reach the driver at {address.host}:{address.port} within "
        f"{address.timeout:g} s. Set spark.driver.host to an address that executors reach, and open its ports."
    )


def _send(connection: Connection, message: object) -> None:
    try:
        send(connection, message)
    except OSError:  # the rank has ended: the thread that serves it finds out
        logger.debug("a rank has ended before it was sent %s", message)
