"""The line between the driver and the ranks: rendezvous, progress, a stop signal, and the first failure.

It is a key-value store (``torch.distributed.TCPStore``) in the driver's process. Every rank keeps a second connection
to it on a watchdog thread. Where another rank has failed, or the driver is gone, the rank ends itself: nobody waits
in a collective for somebody who will not come, and no process outlives the run.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from sparkopt import errors
from sparkopt.errors import LostRankError, RankError, SparkoptError

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["Address", "Channel", "Failure", "Line", "Progress", "Watcher"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = dict[str, Any]
"""What a rank reports: anything that JSON can hold."""

Watcher: TypeAlias = Callable[[Progress], "bool | None"]
"""Called in the driver with each report; a true result asks the ranks to stop."""

_FAILURE, _ECHO, _STOP, _REPORTS, _LOSSES = "failure", "echo", "stop", "reports", "losses"
_POLL = 0.2
_WATCH = 1.0
_GRACE = 3.0
"""Seconds that a rank has to fail by itself (and say why) after another one did."""
_EXIT = 70


@dataclass(frozen=True)
class Address:
    """Where the driver listens."""

    host: str
    port: int
    timeout: float

    def connect(self) -> Store:
        """Return a connection.

        Raises
        ------
        LostRankError
            Where the driver cannot be reached.
        """
        from torch.distributed import DistError, TCPStore

        try:
            return TCPStore(
                self.host,
                self.port,
                is_master=False,
                wait_for_workers=False,
                timeout=timedelta(seconds=self.timeout),
            )
        except DistError as error:
            raise LostRankError(
                f"{socket.gethostname()} cannot reach the driver at {self.host}:{self.port} within "
                f"{self.timeout:g} s. Set spark.driver.host to an address that executors reach, and open its ports."
            ) from error

    def own_address(self) -> str:
        """Return the address of this machine on the way to the driver."""
        with socket.create_connection((self.host, self.port), self.timeout) as connection:
            return str(connection.getsockname()[0])


@dataclass(frozen=True)
class Failure:
    """Why a rank failed, in its own words."""

    rank: int
    kind: str
    message: str
    traceback: str
    is_echo: bool
    """Whether it only noticed that another rank had gone."""

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


class Channel:
    """The driver's end; a context manager.

    Parameters
    ----------
    host : str
        The address under which ranks reach this process.
    bind : str
        The address to listen on: loopback keeps everybody else out.
    watcher : Watcher or None, default None
        Called with each report, on a thread of the channel's own.
    timeout : float, default 120
        Seconds that a rank tries to connect.
    """

    def __init__(self, host: str, bind: str, watcher: Watcher | None = None, timeout: float = 120.0) -> None:
        from torch.distributed import TCPStore

        listener = socket.create_server((bind, 0), backlog=1024)
        port = listener.getsockname()[1]
        self.address = Address(host, port, timeout)
        self._store: Store | None = TCPStore(
            bind,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout),
            master_listen_fd=listener.detach(),  # the store closes it
        )
        self._watcher = watcher
        self._seen = 0
        self._ended = threading.Event()
        self._pump = threading.Thread(target=self._run, name="sparkopt-channel", daemon=True)
        if watcher is not None:
            self._pump.start()

    def failure(self) -> Failure | None:
        """Return the first failure that a rank told of, or None; an echo only where there is nothing else."""
        store = self._open
        told = [key for key in (_FAILURE, _ECHO) if store.check([key])]
        return Failure(**json.loads(store.get(told[0]))) if told else None

    def stop(self) -> None:
        """Ask the ranks to stop at their next opportunity."""
        self._open.set(_STOP, "1")

    def close(self) -> None:
        """Deliver the last reports and hang up: ranks that still run end themselves."""
        if self._store is None:
            return
        self._ended.set()
        if self._pump.is_alive():
            self._pump.join()
        self._store = None

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> Store:
        if self._store is None:
            raise RuntimeError("the channel is closed")
        return self._store

    def _run(self) -> None:
        while not self._ended.wait(_POLL):
            self._deliver()
        self._deliver()

    def _deliver(self) -> None:
        store, watcher = self._open, self._watcher
        while watcher is not None and store.check([key := f"{_REPORTS}/{self._seen}"]):
            report = json.loads(store.get(key))
            store.delete_key(key)
            self._seen += 1
            try:
                if watcher(report):
                    self.stop()
            except Exception:
                logger.exception("a callback failed in the driver; it is not called again, and the run goes on")
                self._watcher = watcher = None


class Line:
    """A rank's end; a context manager, within which the watchdog watches.

    Parameters
    ----------
    address : Address
        Where the driver listens.
    rank : int
        Who speaks.
    """

    def __init__(self, address: Address, rank: int) -> None:
        self.store = address.connect()
        self.rank = rank
        self._ended = threading.Event()
        self._watchdog = threading.Thread(
            target=_watch, args=(address.connect(), rank, self._ended), name="sparkopt-watchdog", daemon=True
        )

    def report(self, progress: Progress) -> None:
        """Send a report."""
        number = self.store.add(_REPORTS, 1) - 1
        self.store.set(f"{_REPORTS}/{number}", json.dumps(progress))

    def stopping(self) -> bool:
        """Whether the driver asked to stop."""
        return bool(self.store.check([_STOP]))

    def failed(self) -> bool:
        """Whether a rank told of a failure."""
        return bool(self.store.check([_FAILURE]))

    def count_loss(self) -> int:
        """Count that a rank was lost; return how often that came about."""
        return int(self.store.add(_LOSSES, 1))

    @contextmanager
    def telling(
        self, is_echo: Callable[[Exception], bool], untold: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """Tell the driver of an exception that passes, before connections to other ranks are closed behind it.

        Parameters
        ----------
        is_echo : callable
            Whether an exception only says that another rank has gone.
        untold : tuple of type, default ()
            Exceptions that are left to the caller.
        """
        try:
            yield
        except untold:
            raise
        except Exception as error:
            echo = is_echo(error)
            failure = Failure.of(self.rank, error, echo)
            self.store.compare_set(_ECHO if echo else _FAILURE, "", json.dumps(asdict(failure)))
            raise

    def __enter__(self) -> Line:
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()


def _watch(store: Store, rank: int, ended: threading.Event) -> None:
    """End this process where another rank failed or the driver is gone."""
    reason = None
    while reason is None and not ended.wait(_WATCH):
        try:
            if (store.check([_FAILURE]) or store.check([_ECHO])) and not ended.wait(_GRACE):
                reason = "another rank failed"
        except RuntimeError:  # the connection broke
            reason = "the driver is gone"
    if reason is not None and not ended.is_set():
        logger.error("rank %d ends: %s", rank, reason)
        os._exit(_EXIT)
