"""Lines between the driver and tasks that stay: authenticated sockets that carry what Spark's own channel would.

Spark hands a task its input once and its result back once. An engine whose tasks stay for a whole fit needs more, so
the driver opens a port, and its tasks dial it. Both ends prove, by an HMAC challenge, that they know a key which
travelled inside the task (the standard library's ``multiprocessing.connection``). Like Spark's own channel by
default, a line is authenticated but not encrypted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from queue import Empty, SimpleQueue
from typing import Any

from sparkopt.errors import IncompatibleError

__all__ = ["Address", "Exchange", "dial", "encrypts"]

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Tasks that may dial at the same moment."""


@dataclass(frozen=True)
class Address:
    """Where to dial, and the key that opens the line; the key is never printed."""

    host: str
    port: int
    key: bytes = field(repr=False)


class Exchange:
    """The driver's end: a port that tasks dial.

    Parameters
    ----------
    host : str
        This machine as the tasks reach it.
    bind : str or None, default None
        The address to listen on; ``host`` where None.
    """

    def __init__(self, host: str, bind: str | None = None) -> None:
        key = secrets.token_bytes(32)
        self._listener = Listener((bind or host, 0), backlog=BACKLOG, authkey=key)
        self.address = Address(host, int(self._listener.address[1]), key)
        self._arrived: SimpleQueue[Connection[Any, Any]] = SimpleQueue()
        self._open = True
        self._thread = threading.Thread(target=self._accept, name="sparkopt-exchange", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, context: Any) -> Exchange:
        """Open a port where the executors of this SparkContext reach their driver anyway.

        Raises
        ------
        IncompatibleError
            Where Spark encrypts its own traffic, which lines do not.
        """
        conf = context.getConf()
        if encrypts(conf):
            raise IncompatibleError(
                "spark.network.crypto.enabled=true asks for encrypted traffic, and this engine's own lines between "
                "driver and tasks are not encrypted. Use engine='driver', or 'auto'."
            )
        return cls(conf.get("spark.driver.host"), conf.get("spark.driver.bindAddress", None))

    def _accept(self) -> None:
        while self._open:
            try:
                line = self._listener.accept()
            except (AuthenticationError, EOFError, ConnectionError) as error:
                if self._open:
                    logger.warning("somebody without the key dialled this fit's port: %r", error)
            except OSError:  # the listener was closed
                return
            else:
                _without_delay(line)
                self._arrived.put(line)

    def arrived(self) -> list[Connection[Any, Any]]:
        """Return the lines that have come in since the last call."""
        found = []
        while True:
            try:
                found.append(self._arrived.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        """Stop listening and hang up on lines that nobody has taken; harmless when repeated."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):  # a last caller, since nothing else ends the wait for one
                socket.create_connection(self._listener.address, timeout=1.0).close()
            self._thread.join(timeout=1.0)
            self._listener.close()
        for line in self.arrived():
            line.close()


def encrypts(conf: Any) -> bool:
    """Whether Spark encrypts what its processes send each other."""
    return any(
        conf.get(key, "false").lower() == "true" for key in ("spark.network.crypto.enabled", "spark.ssl.rpc.enabled")
    )


@contextlib.contextmanager
def dial(address: Address) -> Iterator[Connection[Any, Any]]:
    """Open a line to the driver.

    Raises
    ------
    OSError
        Where the driver's port cannot be reached.
    """
    with Client((address.host, address.port), authkey=address.key) as line:
        _without_delay(line)
        yield line


def _without_delay(line: Connection[Any, Any]) -> None:
    """Send small messages at once (Nagle's algorithm would hold them back), and notice a peer that vanished."""
    with socket.socket(fileno=os.dup(line.fileno())) as twin:
        twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
