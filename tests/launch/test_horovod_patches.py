"""What is patched in Horovod, and what is said where another version is met."""

from __future__ import annotations

import importlib
import re
import threading
from pathlib import Path

import pytest

from sparkopt.errors import IncompatibleError
from sparkopt.launch.horovod_patches import VERSIONS, patched_driver

ROOT = Path(__file__).parents[2]


def test_the_build_is_of_a_version_that_the_patches_are_for():
    assert re.search(r"^HOROVOD=(\S+)$", (ROOT / ".ci/horovod").read_text(), re.MULTILINE)[1] in VERSIONS


@pytest.mark.usefixtures("horovod")
def test_parts_of_horovod_are_replaced_for_a_while(caplog):
    gloo_run = importlib.import_module("horovod.runner.gloo_run")
    server = importlib.import_module("horovod.runner.http.http_server").RendezvousServer
    before = gloo_run.register_shutdown_event, server.start, threading.excepthook

    def inside():
        with patched_driver():
            found.append((gloo_run.register_shutdown_event, server.start, threading.excepthook))

    found = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert all(now is not then for now, then in zip(found[0], before, strict=True))
    with patched_driver():
        assert gloo_run.register_shutdown_event is before[0]  # the main thread may handle signals
    assert (gloo_run.register_shutdown_event, server.start, threading.excepthook) == before
    assert not caplog.records


@pytest.mark.usefixtures("horovod")
def test_servers_that_were_started_meanwhile_are_closed():
    server_of = importlib.import_module("horovod.runner.http.http_server").RendezvousServer
    with patched_driver():
        server = server_of()
        server.start()
        assert server._listen_thread.is_alive()
    assert not server._listen_thread.is_alive()
    assert server._httpd.fileno() == -1


@pytest.mark.usefixtures("horovod")
def test_another_version_is_named(monkeypatch, caplog):
    horovod = importlib.import_module("horovod")
    monkeypatch.setattr(horovod, "__version__", "0.99")
    with patched_driver():
        pass
    assert "Horovod 0.99: sparkopt's patches of it are for 0.28.1" in caplog.text
    monkeypatch.delattr("horovod.runner.http.http_server.RendezvousServer.start")
    reason = "Horovod 0.99 has no RendezvousServer.start, .* Build 0.28.1 with"
    with pytest.raises(IncompatibleError, match=reason), patched_driver():
        pass
