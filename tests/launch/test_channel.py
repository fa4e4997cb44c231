"""The channel between the driver and the ranks, without Spark: reports, signals, failures, and ranks that end."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from sparkopt.errors import DataError, LostRankError, RankError
from sparkopt.launch.channel import Channel, DriverConnection
from sparkopt.launch.connections import Address, Listener


def opened(watcher=None):
    return Channel(Listener("127.0.0.1"), watcher)


def never(error):
    return False


def always(error):
    return True


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_reports_are_delivered_before_the_channel_closes():
    reports = []

    def slow(report):
        time.sleep(0.01)
        reports.append(report)

    with opened(slow) as channel, DriverConnection(channel.address, 0) as driver:
        for step in range(20):
            driver.report({"step": step, "pair": (1, 2)})
    assert reports == [{"step": step, "pair": [1, 2]} for step in range(20)]  # as JSON has it
    channel.close()  # harmless


def test_what_json_cannot_hold_is_refused_on_the_rank():
    with (
        opened() as channel,
        DriverConnection(channel.address, 0) as driver,
        pytest.raises(TypeError, match="not JSON serializable"),
    ):
        driver.report({"value": object()})


def test_a_stop_reaches_ranks_that_connect_later_too():
    with opened(lambda report: report["step"] >= 3) as channel, DriverConnection(channel.address, 0) as first:
        first.report({"step": 2})
        assert not first.stopping()
        first.report({"step": 3})
        eventually(first.stopping)
        with DriverConnection(channel.address, 1) as second:
            eventually(second.stopping)


def test_a_watcher_that_fails_is_not_called_again(caplog):
    calls = []

    def fail(report):
        calls.append(report)
        raise ZeroDivisionError

    with opened(fail) as channel, DriverConnection(channel.address, 0) as driver:
        driver.report({})
        driver.report({})
    assert len(calls) == 1
    assert "it is not called again, and the run continues" in caplog.text


def test_the_first_failure_is_kept_and_comes_before_echoes(caplog):
    with (
        opened() as channel,
        DriverConnection(channel.address, 0) as first,
        DriverConnection(channel.address, 1) as second,
    ):
        assert channel.failure() is None
        with pytest.raises(KeyError), second.reporting_failure(never, (KeyError,)):
            raise KeyError("left to the caller")
        assert channel.failure() is None
        with pytest.raises(OSError, match="reset"), second.reporting_failure(always):
            raise OSError("reset")
        assert isinstance(channel.failure().error(), LostRankError)
        assert not second.failed()
        with pytest.raises(ValueError, match="mine"), first.reporting_failure(never):
            raise ValueError("mine")
        assert second.failed()
        with pytest.raises(DataError), second.reporting_failure(never):
            raise DataError("later")
        error = channel.failure().error()
        assert isinstance(error, RankError)
        assert str(error).startswith("rank 0 failed with ValueError: mine\n\nTraceback")


def test_losses_are_counted_for_all_ranks():
    with (
        opened() as channel,
        DriverConnection(channel.address, 0) as first,
        DriverConnection(channel.address, 1) as second,
    ):
        assert [first.count_loss(), second.count_loss(), first.count_loss()] == [1, 2, 3]


RANK = """
import sys, time
from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.connections import Address
host, port, key = sys.argv[1:]
with DriverConnection(Address(host, int(port), bytes.fromhex(key)), 5) as driver:
    driver.report({"here": True})
    time.sleep(60)
"""


@pytest.mark.parametrize("reason", ["the driver is gone", "another rank failed"])
def test_a_rank_ends_itself(reason):
    """Even where it is busy; one whose neighbour failed has three seconds to fail by itself."""
    reports = []
    with opened(reports.append) as channel:
        address = channel.address
        command = [sys.executable, "-c", RANK, address.host, str(address.port), address.key.hex()]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        eventually(lambda: reports)
        begin = time.monotonic()
        if reason == "another rank failed":
            with (
                DriverConnection(address, 0) as other,
                pytest.raises(ValueError, match="mine"),
                other.reporting_failure(never),
            ):
                raise ValueError("mine")
        else:
            channel.close()
        assert process.wait(20) == 70
    assert f"rank 5 ends: {reason}" in process.stderr.read()
    assert (time.monotonic() - begin > 2.5) == (reason == "another rank failed")


def test_a_driver_that_cannot_be_reached_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LostRankError, match=rf"cannot reach the driver at 127.0.0.1:{port} within 2 s. Set spark.dr"):
        DriverConnection(Address("127.0.0.1", port, b"key", timeout=2.0), 0)
