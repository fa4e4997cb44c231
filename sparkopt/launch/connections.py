"""Authenticated connections between the driver and its tasks.

Spark gives a task its input once and takes its result once. A task that exchanges messages while it runs needs a
connection of its own: the driver opens a port (``Listener``), and its tasks connect to it (``connect``). Both ends
prove, by an HMAC challenge, that they know a key that came with the task, and nothing is deserialised before. As
Spark's own connections by default, these are authenticated but not encrypted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import struct
import threading
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError, connection
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from sparkopt.errors import IncompatibleError

__all__ = ["Address", "Connection", "Listener", "connect", "encrypts", "local_host", "refuse_encryption", "shut_down"]

logger = logging.getLogger(__name__)

Connection: TypeAlias = "connection.Connection[Any, Any]"
"""One end of a connection: ``send`` and ``recv`` of anything that pickles."""

_BACKLOG = 1024
"""Tasks that may connect at the same moment."""

_ANSWER_TIMEOUT = 10.0
"""Seconds that a caller has to prove that it knows the key."""

_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 120_000}
"""A peer whose machine vanished is given up after two minutes, as by ``spark.network.timeout``."""


@dataclass(frozen=True)
class Address:
    """Where the driver listens, and the key that opens a connection; the key is never printed.

    Attributes
    ----------
    host, port : str, int
        The driver as its tasks reach it.
    key : bytes
        The secret that both ends know.
    timeout : float, default 120
        Seconds that a task tries to connect.
    """

    host: str
    port: int
    key: bytes = field(repr=False)
    timeout: float = field(default=120.0, repr=False)


class Listener:
    """The driver's end: a port to which tasks connect.

    Parameters
    ----------
    host : str
        This machine as the tasks reach it.
    bind : str or None, default None
        The address to listen on: loopback excludes other machines. None is ``host``.
    timeout : float, default 120
        Seconds that a task tries to connect.
    """

    def __init__(self, host: str, bind: str | None = None, timeout: float = 120.0) -> None:
        self._listener = connection.Listener((bind or host, 0), backlog=_BACKLOG)
        self._key = secrets.token_bytes(32)
        self.address = Address(host, int(self._listener.address[1]), self._key, timeout)
        self._joined: SimpleQueue[Connection | None] = SimpleQueue()  # None: closed
        self._open = True
        self._thread = threading.Thread(target=self._accept, name="sparkopt-listener", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, context: Any, timeout: float = 120.0) -> Listener:
        """Open a port where the executors of this SparkContext reach their driver anyway."""
        conf = context.getConf()
        return cls(
            conf.get("spark.driver.host", "127.0.0.1"), conf.get("spark.driver.bindAddress", None), timeout=timeout
        )

    def _accept(self) -> None:
        while self._open:
            try:
                accepted = self._listener.accept()
            except ConnectionError:  # the caller has left already
                continue
            except OSError:  # the listener was closed
                return
            try:
                _configure(accepted)
                _prove(accepted, self._key, _ANSWER_TIMEOUT, is_driver=True)
            except (AuthenticationError, EOFError, OSError) as error:
                accepted.close()
                if self._open:
                    logger.warning("a caller without the key connected to this fit's port: %r", error)
            else:
                self._joined.put(accepted)

    def joined(self, timeout: float | None = 0.0) -> list[Connection]:
        """Return the connections that were made since the last call.

        Where there are none, wait ``timeout`` seconds for the first, or with None until the listener is closed.
        """
        found = []
        with contextlib.suppress(Empty):
            found.append(self._joined.get(timeout != 0, timeout))
            while True:
                found.append(self._joined.get_nowait())
        return [one for one in found if one is not None]

    def close(self) -> None:
        """Stop listening, and close the connections that were not taken; harmless when repeated."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):  # one more caller, since nothing else ends the wait for one
                socket.create_connection(self._listener.address, timeout=1.0).close()
            self._thread.join(timeout=1.0)
            self._listener.close()
        for one in self.joined():
            one.close()
        self._joined.put(None)  # ends the wait in ``joined``


def connect(address: Address) -> Connection:
    """Connect to the driver; the connection is a context manager.

    Raises
    ------
    OSError
        Where the driver's port cannot be reached.
    AuthenticationError
        Where the process that listens there does not know the key, or this one does not.
    """
    with socket.create_connection((address.host, address.port), address.timeout) as opened:
        opened.settimeout(None)
        made: Connection = connection.Connection(opened.detach())
    try:
        _configure(made)
        _prove(made, address.key, address.timeout, is_driver=False)
    except EOFError as error:
        made.close()
        raise ConnectionError("the driver closed the connection") from error
    except BaseException:
        made.close()
        raise
    return made


def shut_down(one: Connection) -> None:
    """End a connection from another thread than the one that reads it: both ends then find it closed."""
    with contextlib.suppress(OSError), _socket(one) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def local_host(one: Connection) -> str:
    """Return the address of this machine at this end of a connection."""
    with _socket(one) as twin:
        return str(twin.getsockname()[0])


def encrypts(conf: Any) -> bool:
    """Whether Spark encrypts what its processes send each other."""
    return any(
        conf.get(key, "false").lower() == "true" for key in ("spark.network.crypto.enabled", "spark.ssl.rpc.enabled")
    )


def refuse_encryption(context: Any) -> None:
    """Refuse a SparkContext whose traffic is encrypted, as these connections are not.

    Raises
    ------
    IncompatibleError
        Naming the setting and the engines that need no connection.
    """
    if encrypts(context.getConf()):
        raise IncompatibleError(
            "spark.network.crypto.enabled=true asks for encrypted traffic, and this engine's own connections between "
            "driver and tasks are not encrypted. Use engine='driver', or 'auto'."
        )


def _prove(one: Connection, key: bytes, seconds: float, is_driver: bool) -> None:
    """Let both ends prove that they know the key, each within so many seconds."""
    whole = int(seconds)
    with _socket(one) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6)))
        try:
            for step in (connection.deliver_challenge, connection.answer_challenge)[:: 1 if is_driver else -1]:
                step(one, key)
        except AssertionError as error:  # the other end speaks another protocol
            raise AuthenticationError(str(error)) from error
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))


def _configure(one: Connection) -> None:
    """Send small messages at once (Nagle's algorithm would hold them back), and notice a peer that vanished."""
    with _socket(one) as twin:
        twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not on every system
                twin.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _socket(one: Connection) -> socket.socket:
    """Return the connection's socket, by a file descriptor of its own."""
    return socket.socket(fileno=os.dup(one.fileno()))
