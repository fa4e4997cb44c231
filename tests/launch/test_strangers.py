"""A stranger on a run's ports: whatever it sends, or does not, the run gives the same bits in bounded memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from sparkopt.errors import LostRankError
from sparkopt.launch import ProcessLauncher, channel, connections
from sparkopt.launch.channel import Channel, DriverConnection
from sparkopt.launch.connections import Address, Listener, connect, receive
from sparkopt.launch.handshake import ANSWER_BYTES, GREETING_BYTES
from tests.launch.ranks import sum_of_a_late_rank, sums, sums_with_another_key


class Bomb:
    """Whoever deserialises it leaves a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


class Stranger:
    """A process that reaches the port, but has no key.

    Parameters
    ----------
    address : Address
        Where it calls; it does not look at the key.
    folder : Path
        Where a file appears if somebody deserialises what it sends.
    """

    def __init__(self, address: Address, folder) -> None:
        self.address, self.file = (address.host, address.port), folder / "gone"
        self.sockets: list[socket.socket] = []

    def call(self, *messages: bytes) -> socket.socket:
        opened = socket.create_connection(self.address, timeout=20)
        self.sockets.append(opened)
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            for message in messages:
                opened.sendall(message)
        return opened

    def close(self) -> None:
        for opened in self.sockets:
            opened.close()


def garbage(stranger: Stranger) -> None:
    stranger.call(os.urandom(1 << 16))
    stranger.call(b"GET / HTTP/1.1\r\nHost: driver\r\n\r\n")


def forged(stranger: Stranger) -> None:
    """What a task would send if nobody asked it for the key: a failure that ends the run."""
    failure = pickle.dumps(channel.Failure(0, "ValueError", "forged", "", False))
    stranger.call(struct.pack("!i", len(failure)) + failure)
    bomb = pickle.dumps(Bomb(stranger.file))
    stranger.call(struct.pack("!i", len(bomb)) + bomb)


def wrong_secret(stranger: Stranger) -> None:
    with pytest.raises(connections.AuthenticationError, match="does not know this run's key"):
        connect(Address(*stranger.address, b"guess", timeout=5.0))


def huge_length(stranger: Stranger) -> None:
    stranger.call(struct.pack("!i", 0x7FFFFFFF), b"x" * (ANSWER_BYTES - 5))  # one byte less than is waited for
    stranger.call(struct.pack("!iQ", -1, 1 << 62), b"x" * (1 << 20))


def silence(stranger: Stranger) -> None:
    for _ in range(20):
        stranger.call()


def departure(stranger: Stranger) -> None:
    stranger.call().close()
    stranger.call(b"x").close()


def reflection(stranger: Stranger) -> None:
    """Send back what the driver sends, on the same connection and on another one."""
    one, other = stranger.call(), stranger.call()
    first, second = one.recv(GREETING_BYTES), other.recv(GREETING_BYTES)
    one.sendall(first + bytes(ANSWER_BYTES - len(first)))
    other.sendall(first[-32:] + second[-32:])


def flood(stranger: Stranger) -> None:
    for _ in range(600):
        stranger.call(b"x")


ATTACKS: list[Callable[[Stranger], None]] = [
    garbage,
    forged,
    wrong_secret,
    huge_length,
    silence,
    departure,
    reflection,
    flood,
]


@pytest.fixture
def stranger(tmp_path) -> Iterator[Callable[[Address], Stranger]]:
    """Return a function that makes a stranger at an address."""
    made = []

    def at(address):
        made.append(Stranger(address, tmp_path))
        return made[-1]

    yield at
    for one in made:
        one.close()
    assert not (tmp_path / "gone").exists()


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_strangers_are_refused_and_others_served(stranger, caplog, monkeypatch, attack):
    """A task that calls meanwhile is served; all that strangers have opened is closed after their time."""
    monkeypatch.setattr(connections, "_ANSWER_TIMEOUT", 1.0)
    before = files()
    listener = Listener("127.0.0.1")
    tracemalloc.start()
    try:
        one = stranger(listener.address)
        attack(one)
        with connect(listener.address) as task:
            (driver,) = listener.joined(timeout=20.0)
            with driver:
                task.send("here")
                assert driver.recv() == "here"
                assert tracemalloc.get_traced_memory()[1] < 2 << 20
                assert files() - len(one.sockets) - before < connections._MOST_PENDING + 20
        deadline = time.monotonic() + 20
        while listener._pending or not listener._refused:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not listener.joined()
    finally:
        tracemalloc.stop()
        listener.close()
    assert "a caller without the key connected to this fit's port" in caplog.text
    assert len(caplog.records) <= connections._MOST_WARNINGS + 1


def test_a_task_that_was_dropped_in_a_flood_calls_again(stranger, monkeypatch):
    monkeypatch.setattr(connections, "_MOST_PENDING", 1)  # whoever calls next takes the place of the one before
    listener = Listener("127.0.0.1")
    stop = threading.Event()

    def call():
        while not stop.wait(0.001):
            one.call()

    one = stranger(listener.address)
    caller = threading.Thread(target=call)
    caller.start()
    try:
        connect(listener.address).close()
    finally:
        stop.set()
        caller.join()
        listener.close()


@contextmanager
def recorded(address: Address) -> Iterator[tuple[Address, list[bytes]]]:
    """A relay between a task and the driver, which keeps what the task sends."""
    sent: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay():
            task, _ = server.accept()
            with task, socket.create_connection((address.host, address.port)) as driver:

                def back():
                    while found := driver.recv(1 << 16):
                        task.sendall(found)

                thread = threading.Thread(target=back)
                thread.start()
                while found := task.recv(1 << 16):
                    sent.append(found)
                    driver.sendall(found)
                driver.shutdown(socket.SHUT_RDWR)
                thread.join()

        thread = threading.Thread(target=relay)
        thread.start()
        yield Address("127.0.0.1", server.getsockname()[1], address.key), sent
        thread.join()


def test_what_a_rank_has_sent_is_worth_nothing_the_second_time(stranger):
    """All of it, with the handshake and a report, is sent again from another connection."""
    reports = []
    with Channel(Listener("127.0.0.1"), reports.append) as opened:
        with recorded(opened.address) as (address, sent), DriverConnection(address, 0) as rank:
            rank.report({"step": 1})
        stranger(opened.address).call(b"".join(sent))
        with DriverConnection(opened.address, 1) as rank:
            rank.report({"step": 2})
        assert opened.failure() is None
    assert reports == [{"step": 1}, {"step": 2}]


def test_messages_of_a_channel_are_bounded():
    """Even those of a rank that has the key: one that announces too much is given up, the others continue."""
    with Channel(Listener("127.0.0.1")) as opened, DriverConnection(opened.address, 0) as rank:
        with connect(opened.address) as broken:
            broken._send(struct.pack("!iQ", -1, 1 << 40))
            with pytest.raises((EOFError, OSError)):
                receive(broken)
        with pytest.raises(ValueError, match="larger than the 16,777,216 that may be sent"):
            rank.put("key", bytes(17 << 20))
        rank.put("key", b"value")
        assert rank.get("key") == b"value"


def test_sums_of_ranks_have_the_same_bits(stranger, monkeypatch):
    """All strangers on the port through which ranks meet, from before the first one calls."""
    calm = ProcessLauncher(2).run(sums, 30)
    made = []

    class Watched(Listener):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(threading.Thread(target=attacked, args=(stranger(self.address),)))
            made[-1].start()

    def attacked(one):
        for attack in ATTACKS:
            attack(one)

    monkeypatch.setattr("sparkopt.launch.processes.Listener", Watched)
    found = ProcessLauncher(2).run(sums, 30)
    made[0].join()
    np.testing.assert_array_equal(found, calm)


def gloo_ports(blob: bytes) -> set[int]:
    """The ports in an address of Gloo: it contains a sockaddr_in."""
    mark = socket.inet_aton("127.0.0.1")
    found = set()
    for place in range(4, len(blob) - 3):
        if blob[place : place + 4] == mark and blob[place - 4 : place - 2] == struct.pack("=H", socket.AF_INET):
            found.add(struct.unpack("!H", blob[place - 2 : place])[0])
    return found


INTRUSIONS = {
    "garbage": [b"\xff" * 64],
    "silence": [b""],
    "the first numbers of a pair": [struct.pack("<Q", number) for number in range(8)],
    "the first numbers, and a sum": [struct.pack("<Q", number) + bytes(4096) for number in range(8)],
}


@pytest.mark.parametrize("intrusion", INTRUSIONS)
def test_nobody_takes_a_ranks_place_in_the_group(stranger, monkeypatch, intrusion):
    """Whoever calls Gloo's ports before the ranks do is found out: the same sums, or none."""
    calm = ProcessLauncher(2).run(sums, 30)
    attacked = []
    handle = Channel._handle

    def watching(self, request, connection):
        if isinstance(request, channel._Put) and not request.key.startswith("number/"):
            for port in gloo_ports(request.value):
                attacked.append(port)
                one = stranger(Address("127.0.0.1", port, b""))
                for message in INTRUSIONS[intrusion]:
                    one.call(message)
        return handle(self, request, connection)

    monkeypatch.setattr(Channel, "_handle", watching)
    try:
        found = ProcessLauncher(2, start_timeout=6.0).run(sums, 30)
    except LostRankError:
        found = calm  # noticed: the fit starts again
    assert len(attacked) >= 2
    np.testing.assert_array_equal(found, calm)


def test_a_process_without_the_key_in_the_group_is_found_out(monkeypatch):
    """Rank 1 is in Gloo's group, and has another key than rank 0."""
    with pytest.raises(LostRankError, match=r"does not belong to this run answered rank \d in place of rank \d"):
        ProcessLauncher(2, start_timeout=10.0).run(sums_with_another_key)


def test_the_time_to_start_is_not_that_of_a_sum():
    """Ranks wait longer for each other in a sum than for the group to form."""
    assert ProcessLauncher(2, start_timeout=8.0).run(sum_of_a_late_rank, 10.0) == [[2.0], [2.0]]
