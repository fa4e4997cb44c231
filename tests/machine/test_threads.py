"""Threads: results in order, the first error, and the surroundings of who asks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from sparkopt.machine import threads
from sparkopt.machine.threads import Threads


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(threads, "WORTH_SECONDS", 0.0)


def test_items_run_at_the_same_time_and_results_are_in_order():
    meeting = threading.Barrier(3, timeout=60)

    def square(number: int) -> int:
        meeting.wait()
        return number * number

    assert Threads(3).run(square, [3, 1, 2]) == [9, 1, 4]


def test_the_first_item_that_fails_is_named():
    def refuse(number: int) -> None:
        time.sleep(0.02 * (3 - number))  # the last one fails first
        raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item 0"):
        Threads(3).run(refuse, [0, 1, 2])


def test_numpy_warns_where_it_would_have_here():
    def overflow(_: int) -> float:
        return float(np.float64(1e308) * 10)

    with np.errstate(over="ignore"):
        assert Threads(2).run(overflow, [0, 1]) == [np.inf, np.inf]
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        Threads(2).run(overflow, [0, 1])


def test_little_is_done_in_this_thread(monkeypatch):
    monkeypatch.setattr(threads, "WORTH_SECONDS", 1e9)
    assert set(Threads(2).run(lambda _: threading.get_ident(), [0, 1])) == {threading.get_ident()}
