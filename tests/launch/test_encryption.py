"""Encrypted connections: what is on the wire, who is in the middle, and what is altered on its way."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import AuthenticationError, connection
from typing import Any

import pytest

from sparkopt.launch.connections import Listener, connect, receive
from sparkopt.launch.encryption import EncryptedConnection, can_encrypt, encrypted

pytestmark = pytest.mark.skipif(not can_encrypt(), reason="this OpenSSL has no anonymous key exchange")

KEY = bytes(32)
SIZES = (0, 1, 100, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 1 << 20, 5_000_001)


def pair() -> tuple[connection.Connection, connection.Connection]:
    one, other = socket.socketpair()
    return connection.Connection(one.detach()), connection.Connection(other.detach())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def ends(threads: ThreadPoolExecutor) -> Iterator[tuple[EncryptedConnection, EncryptedConnection]]:
    """Both ends of an encrypted connection."""
    one, other = pair()
    driver = threads.submit(encrypted, one, KEY, True, 10.0)
    made = driver.result, encrypted(other, KEY, False, 10.0)
    with made[0]() as first, made[1] as second:
        yield first, second


@pytest.mark.parametrize("size", SIZES)
def test_messages_arrive_as_they_were(ends, threads, size):
    driver, caller = ends
    message = secrets.token_bytes(size)
    for one, other in ((driver, caller), (caller, driver)):
        sent = threads.submit(one.send_bytes, message)
        assert other.recv_bytes() == message
        sent.result()
        threads.submit(one.send, {"numbers": [size]})
        assert other.poll(10)
        assert other.recv() == {"numbers": [size]}
    assert not driver.poll()


def test_both_ends_send_at_the_same_time(ends, threads):
    messages = [secrets.token_bytes(1000 * number) for number in range(200)]

    def send(one):
        for message in messages:
            one.send_bytes(message)

    def read(one):
        return [one.recv_bytes() for _ in messages]

    done = [threads.submit(send, one) for one in ends]
    found = [threads.submit(read, one) for one in ends]
    assert [one.result(60) for one in found] == [messages, messages]
    assert [one.result(60) for one in done] == [None, None]


def test_a_message_beyond_its_bound_is_refused(ends, threads):
    driver, caller = ends
    driver.send_bytes(bytes(1 << 12))
    with pytest.raises(OSError):
        caller.recv_bytes(1 << 11)


class Between:
    """Somebody between caller and driver, who passes on what ``change`` makes of each part, and keeps all of it."""

    def __init__(self, driver: Any, change: Callable[[bytes], bytes] = bytes) -> None:
        self.seen, self._driver, self._change = bytearray(), driver, change
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = replace(driver, port=self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        caller, _ = self._socket.accept()
        driver = socket.create_connection((self._driver.host, self._driver.port))
        for source, target in ((caller, driver), (driver, caller)):
            threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        while part := source.recv(1 << 16):
            self.seen += part
            target.sendall(self._change(part))
        target.shutdown(socket.SHUT_WR)


def joined(listener: Listener) -> Any:
    (found,) = listener.joined(timeout=10)
    return found


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_what_is_on_the_wire(is_encrypted):
    listener = Listener("127.0.0.1", encrypted=is_encrypted)
    try:
        between = Between(listener.address)
        with connect(between.address) as caller, joined(listener) as driver:
            caller.send("the coefficients of a model")
            assert receive(driver) == "the coefficients of a model"
            assert isinstance(caller, EncryptedConnection) == is_encrypted
            assert (b"the coefficients" in between.seen) != is_encrypted
    finally:
        listener.close()


def test_what_is_altered_on_its_way_is_noticed():
    listener, alters = Listener("127.0.0.1", encrypted=True), threading.Event()

    def change(part: bytes) -> bytes:
        return part[:-1] + bytes([part[-1] ^ 1]) if alters.is_set() else part

    try:
        with connect(Between(listener.address, change).address) as caller, joined(listener) as driver:
            alters.set()
            caller.send_bytes(b"a sum")
            with pytest.raises(OSError, match="was altered"):
                driver.recv_bytes()
    finally:
        listener.close()


def test_somebody_in_the_middle_with_an_exchange_of_his_own_is_noticed(threads):
    """He has relayed the proofs of the run's key, and agrees on keys with each of the two."""
    (driver, with_driver), (caller, with_caller) = pair(), pair()
    middle = [
        threads.submit(_agreed, with_driver, is_driver=False),
        threads.submit(_agreed, with_caller, is_driver=True),
    ]
    honest = threads.submit(encrypted, driver, KEY, True, 10.0)
    with pytest.raises(AuthenticationError, match="does not know this run's key"):
        encrypted(caller, KEY, False, 10.0)
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        honest.result(20)
    assert all(one.result(20) is None for one in middle)


def _agreed(plain: Any, *, is_driver: bool) -> None:
    """Agree on keys without the run's, and pass on a proof that is no proof."""
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        encrypted(plain, secrets.token_bytes(32), is_driver, 10.0)


def test_a_caller_that_proves_nothing_further_keeps_no_other_out():
    """It knows the key, and stops in the middle: the next one is served meanwhile."""
    listener = Listener("127.0.0.1", encrypted=True)
    try:
        with connect(replace(listener.address, encrypted=False)), connect(listener.address) as second:
            second.send("here")
            with joined(listener) as driver:
                assert receive(driver) == "here"
    finally:
        listener.close()
