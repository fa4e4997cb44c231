"""Connections between the driver and its tasks: who may open one, and what strangers can do."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
import types
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import numpy as np
import pytest
from pyspark import SparkConf

from sparkopt.errors import IncompatibleError
from sparkopt.launch import connections
from sparkopt.launch.connections import Listener, connect, shut_down
from sparkopt.launch.settings import refuse_encryption


@pytest.fixture
def listener():
    opened = Listener("127.0.0.1")
    yield opened
    opened.close()


def pair(listener):
    """Both ends of a new connection: the task's and the driver's."""
    task = connect(listener.address)
    (driver,) = listener.joined(timeout=10.0)
    return task, driver


def test_a_connection_needs_the_key(listener, caplog):
    address = listener.address
    with pytest.raises(OSError, match="bad message length"):  # what is sent to it is no message of this protocol
        Client((address.host, address.port), authkey=address.key)
    with pytest.raises(AuthenticationError):
        connect(replace(address, key=b"guess"))
    task, driver = pair(listener)
    with task, driver:
        driver.send({"x": np.arange(3)})
        np.testing.assert_array_equal(task.recv()["x"], np.arange(3))
    assert repr(address).count("key") == 0
    assert caplog.text.count("a caller without the key connected to this fit's port") == 2
    listener.close()
    listener.close()
    with pytest.raises(OSError):
        connect(address)


class Bomb:
    """Whoever deserialises it leaves a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def framed(payload):
    """As ``multiprocessing.connection`` sends bytes."""
    return struct.pack("!i", len(payload)) + payload


def test_a_task_reads_nothing_from_a_driver_without_the_key(listener, tmp_path):
    """An address may outlive its driver, and its port belong to another process by now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = replace(listener.address, port=server.getsockname()[1], timeout=0.5)

        def answer():
            accepted, _ = server.accept()
            accepted.sendall(framed(pickle.dumps(Bomb(tmp_path / "gone"))))
            time.sleep(1.0)
            accepted.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((AuthenticationError, OSError)):
            connect(address)
        thread.join()
    assert not (tmp_path / "gone").exists()


def test_a_reader_notices_that_a_connection_was_shut_down(listener):
    task, driver = pair(listener)
    threading.Timer(0.1, shut_down, [driver]).start()
    with pytest.raises(EOFError):
        task.recv()
    with pytest.raises(EOFError):
        driver.recv()
    task.close()
    driver.close()
    shut_down(task)  # harmless


def test_both_ends_notice_a_machine_that_vanished(listener):
    for one in pair(listener):
        with one, connections._socket(one) as twin:
            assert twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert twin.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
            assert twin.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)  # it may be quiet for long


@pytest.mark.parametrize("key", ["spark.network.crypto.enabled", "spark.ssl.rpc.enabled"])
def test_encryption_is_refused(key):
    settings = SparkConf(loadDefaults=False)
    context = types.SimpleNamespace(getConf=lambda: settings)
    refuse_encryption(context)
    settings.set(key, "true")
    with pytest.raises(IncompatibleError, match=f"set {key}=false.*asks for encrypted traffic.*engine='driver'"):
        refuse_encryption(context)


def test_the_listener_binds_where_spark_does():
    settings = SparkConf(loadDefaults=False)
    settings.set("spark.driver.host", "driver.example").set("spark.driver.bindAddress", "127.0.0.1")
    listener = Listener.of(types.SimpleNamespace(getConf=lambda: settings))
    try:
        assert listener.address.host == "driver.example"
        with connect(replace(listener.address, host="127.0.0.1")):
            assert listener.joined(timeout=10.0)
    finally:
        listener.close()
