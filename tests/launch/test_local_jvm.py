"""The standard error of Spark's JVM reaches the terminal, apart from the warning that each start prints."""

from __future__ import annotations

import os
import threading
import time

import pytest

from sparkopt.launch.local_jvm import NOISE, _forward


def forwarded(capfd, *parts: bytes, started_after: int) -> bytes:
    """What comes out of parts that the JVM writes one by one; it has started after some of them."""
    reader, writer = os.pipe()
    started = threading.Event()
    thread = threading.Thread(target=_forward, args=(reader, started))
    thread.start()
    for number, part in enumerate(parts):
        if number == started_after:
            started.set()
        os.write(writer, part)
        time.sleep(0.01)  # parts may come together or not: the result is the same
    os.close(writer)
    thread.join(timeout=10)
    assert not thread.is_alive()
    return capfd.readouterr().err.encode()


@pytest.mark.parametrize("started_after", [0, 1, 2, 3])
def test_all_but_the_warning_is_forwarded(capfd, started_after):
    rest = b"warning: something else\nERROR: \xc3\xa4 no newline at the end"
    assert forwarded(capfd, NOISE, rest[:10], rest[10:], started_after=started_after) == rest


def test_a_warning_in_pieces_and_between_others(capfd):
    assert forwarded(capfd, b"before\n" + NOISE[:20], NOISE[20:] + b"after\n", started_after=9) == b"before\nafter\n"


def test_what_has_no_newline_is_shown_at_once_when_spark_has_started(capfd):
    reader, writer = os.pipe()
    started = threading.Event()
    started.set()
    thread = threading.Thread(target=_forward, args=(reader, started))
    thread.start()
    os.write(writer, b"line\n")
    os.write(writer, b"\rprogress 10%")
    seen = b""
    deadline = time.monotonic() + 30
    while b"10%" not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
        seen += capfd.readouterr().err.encode()
    os.close(writer)
    thread.join(timeout=10)
    assert seen == b"line\n\rprogress 10%"


def test_more_than_a_pipe_holds(capfd):
    assert forwarded(capfd, b"x" * 60_000 + b"\n", NOISE, b"y" * 60_000, started_after=1).count(b"y") == 60_000
