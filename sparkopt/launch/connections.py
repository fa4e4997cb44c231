"""Authenticated connections between the driver and its tasks.

Spark gives a task its input once and takes its result once. A task that exchanges messages while it runs needs a
connection of its own: the driver opens a port (``Listener``), and its tasks connect to it (``connect``). Both ends
prove that they know a key that came with the task (``handshake``), and nothing is deserialised before. They are
encrypted where Spark's own connections are (``encryption``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import selectors
import socket
import threading
import time
from collections import OrderedDict
from dataclasses import field
from multiprocessing import AuthenticationError, connection
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from sparkopt.launch.encryption import encrypted
from sparkopt.launch.handshake import Handshake, answer
from sparkopt.launch.settings import SessionSettings, settings_of
from sparkopt.values import dataclass

__all__ = [
    "Address",
    "Connection",
    "Listener",
    "connect",
    "local_host",
    "receive",
    "send",
    "shut_down",
]

logger = logging.getLogger(__name__)

Connection: TypeAlias = "connection.Connection[Any, Any]"
"""One end of a connection: ``send`` and ``recv`` of anything that pickles."""

_BACKLOG = 1024
"""Tasks that may connect at the same moment."""

_ANSWER_TIMEOUT = 10.0
"""Seconds that a caller has to prove that it knows the key."""

_MOST_PENDING = 256
"""Callers that may be at it at the same time."""

_MOST_WARNINGS = 10
"""Lines of the log that strangers can fill."""

_RETRY = 0.05
"""Seconds until a caller that was dropped calls again."""

_LOOPBACK = "127.0.0.1"

MESSAGE_BYTES = 16 << 20
"""Most bytes of a message for which no reader expects a size of its own."""

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
    encrypted : bool, default False
        Whether the connections are encrypted.
    """

    host: str
    port: int
    key: bytes = field(repr=False)
    timeout: float = field(default=120.0, repr=False)
    encrypted: bool = False


class Listener:
    """The driver's end: a port to which tasks connect.

    Callers prove that they know the key at the same time, each within ten seconds, so none keeps others out. Of those
    that have not, the oldest is dropped where there are too many: memory and files stay bounded under a flood, and a
    task that was dropped calls again.

    Parameters
    ----------
    host : str
        This machine as the tasks reach it; a name, or an IPv4 or IPv6 address.
    bind : str or None, default None
        The address to listen on: loopback excludes other machines. None is ``host``.
    timeout : float, default 120
        Seconds that a task tries to connect.
    key : bytes or None, default None
        The secret, where tasks have it already; None draws one.
    encrypted : bool, default False
        Whether to encrypt the connections.
    """

    def __init__(
        self,
        host: str,
        bind: str | None = None,
        timeout: float = 120.0,
        key: bytes | None = None,
        encrypted: bool = False,
    ) -> None:
        self._listener = _listening(bind or host)
        self._key = key or secrets.token_bytes(32)
        self.address = Address(host, int(self._listener.getsockname()[1]), self._key, timeout, encrypted)
        self._joined: SimpleQueue[Connection | None] = SimpleQueue()  # None: closed
        self._pending: OrderedDict[socket.socket, Handshake] = OrderedDict()
        self._refused = 0
        self._open = True
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="sparkopt-listener", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, context: Any, timeout: float = 120.0) -> Listener:
        """Open a port where the executors of this SparkContext reach their driver: in local mode, on loopback.

        Connections are encrypted where Spark's are.
        """
        conf = settings_of(context)
        is_encrypted = SessionSettings.of_context(context).encryption is not None
        if conf.get("spark.master", "").startswith("local"):  # all executors are on this machine
            return cls(_LOOPBACK, timeout=timeout, encrypted=is_encrypted)
        host = conf.get("spark.driver.host", _LOOPBACK).strip("[]")  # Spark writes IPv6 addresses in brackets
        return cls(
            host, conf.get("spark.driver.bindAddress", host).strip("[]"), timeout=timeout, encrypted=is_encrypted
        )

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._open:
                for event, _ in selector.select(self._patience()):
                    if event.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(event.fileobj, socket.socket) and event.fileobj is not self._woken:
                        self._advance(selector, self._pending.get(event.fileobj))
                now = time.monotonic()
                for handshake in [one for one in self._pending.values() if one.deadline <= now]:
                    self._refuse(selector, handshake, TimeoutError("it did not answer"))
            for caller in self._pending:
                caller.close()

    def _patience(self) -> float | None:
        """Return the seconds until the first caller has had its time."""
        first = next(iter(self._pending.values()), None)
        return None if first is None else max(0.0, first.deadline - time.monotonic())

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            caller, _ = self._listener.accept()
        except OSError as error:  # the caller has left already, or there are no file descriptors left
            logger.debug("no caller could be accepted: %r", error)
            return
        if len(self._pending) >= _MOST_PENDING:
            self._refuse(selector, next(iter(self._pending.values())), TimeoutError("too many others called"))
        try:
            self._pending[caller] = Handshake(caller, self._key, _ANSWER_TIMEOUT)
        except OSError as error:
            caller.close()
            self._count(error)
        else:
            selector.register(caller, selectors.EVENT_READ)

    def _advance(self, selector: selectors.BaseSelector, handshake: Handshake | None) -> None:
        if handshake is None:  # it was refused meanwhile
            return
        try:
            if not handshake.advance():
                return
        except BlockingIOError:  # nothing has come after all
            return
        except (AuthenticationError, OSError) as error:
            self._refuse(selector, handshake, error)
            return
        caller = handshake.caller
        selector.unregister(caller)
        del self._pending[caller]
        made: Connection = connection.Connection(caller.detach())
        try:
            _configure(made)
        except OSError:  # it has left
            made.close()
            return
        if not self.address.encrypted:
            self._joined.put(made)
            return
        threading.Thread(target=self._encrypt, args=(made,), name="sparkopt-encrypting", daemon=True).start()

    def _encrypt(self, made: Connection) -> None:
        """Agree on keys with a caller that knows the run's, in a thread of its own; the others need not wait."""
        try:
            sealed = encrypted(made, self._key, is_driver=True, seconds=_ANSWER_TIMEOUT)
        except (AuthenticationError, EOFError, OSError) as error:
            self._count(error)
            return
        self._joined.put(sealed)
        if not self._open:  # nobody asks any more
            for one in self.joined():
                one.close()

    def _refuse(self, selector: selectors.BaseSelector, handshake: Handshake, error: Exception) -> None:
        selector.unregister(handshake.caller)
        del self._pending[handshake.caller]
        handshake.caller.close()
        self._count(error)

    def _count(self, error: Exception) -> None:
        self._refused += 1
        if self._refused <= _MOST_WARNINGS:
            logger.warning("a caller without the key connected to this fit's port: %r", error)
        if self._refused == _MOST_WARNINGS:
            logger.warning("further callers without the key are refused without a line in the log")

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
            self._waker.close()  # this wakes the thread
            self._thread.join()
            self._woken.close()
            self._listener.close()
        for one in self.joined():
            one.close()
        self._joined.put(None)  # ends the wait in ``joined``


def _listening(host: str) -> socket.socket:
    """Return a socket that listens on a free port of this address, of IPv4 or IPv6."""
    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.create_server((str(address[0]), 0), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def connect(address: Address) -> Connection:
    """Connect to the driver; the connection is a context manager.

    Raises
    ------
    OSError
        Where the driver's port cannot be reached.
    AuthenticationError
        Where the process that listens there does not know the key.
    """
    deadline = time.monotonic() + address.timeout
    while True:
        try:
            return _called(address, max(0.1, deadline - time.monotonic()))
        except EOFError as error:  # it is gone, or dropped this caller among too many: then it is soon free
            if time.monotonic() > deadline:
                raise ConnectionError(str(error)) from error
            time.sleep(_RETRY)


def _called(address: Address, seconds: float) -> Connection:
    with socket.create_connection((address.host, address.port), seconds) as opened:
        try:
            answer(opened, address.key)
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        opened.settimeout(None)
        made: Connection = connection.Connection(opened.detach())
    try:
        _configure(made)
    except BaseException:
        made.close()
        raise
    if not address.encrypted:
        return made
    return encrypted(made, address.key, is_driver=False, seconds=_ANSWER_TIMEOUT)


def shut_down(one: Connection) -> None:
    """End a connection from another thread than the one that reads it: both ends then find it closed."""
    with contextlib.suppress(OSError), _socket(one) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def send(one: Connection, message: object) -> None:
    """Send a message of bounded size.

    Raises
    ------
    ValueError
        Where it is larger than ``MESSAGE_BYTES``.
    """
    pickled = pickle.dumps(message, protocol=5)
    if len(pickled) > MESSAGE_BYTES:
        raise ValueError(f"a message of {len(pickled):,} bytes is larger than the {MESSAGE_BYTES:,} that may be sent")
    one.send_bytes(pickled)


def receive(one: Connection) -> Any:
    """Receive such a message.

    Raises
    ------
    OSError
        Where the other end announces a larger one; nothing of it is read.
    """
    return pickle.loads(one.recv_bytes(MESSAGE_BYTES))  # noqa: S301  # both ends have proved that they know the key


def local_host(one: Connection) -> str:
    """Return the address of this machine at this end of a connection."""
    with _socket(one) as twin:
        return str(twin.getsockname()[0])


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
