"""Addresses of Spark Connect servers: refused at once where nothing listens, since the client would go on trying."""

from __future__ import annotations

import socket

import pytest

from sparkopt.errors import ParameterError
from sparkopt.launch.remote import require_server
from sparkopt.launch.session import is_classic


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("url", ["http://host:15002", "host:15002", "sc://", "sc://host:no", "local[2]"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ParameterError, match="is no address of a Spark Connect server: give sc://HOST:15002"):
        require_server(url)


def test_a_server_that_listens_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        require_server(f"sc://127.0.0.1:{listening.getsockname()[1]}/;token=secret")


def test_a_server_that_is_not_there_is_one_line_without_secrets():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ParameterError) as caught:
        require_server(f"sc://127.0.0.1:{port}/;token=secret", 1.0)
    message = str(caught.value)
    assert f"no Spark Connect server answers at 127.0.0.1:{port} (Connection refused)" in message
    assert "secret" not in message
    assert "\n" not in message


def test_behind_a_proxy_the_server_is_not_asked(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    require_server("sc://127.0.0.1:1")


def test_a_session_is_one_of_connect_by_setting_or_environment(monkeypatch):
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    assert is_classic({})
    assert not is_classic({"spark.remote": "sc://host"})
    monkeypatch.setenv("SPARK_REMOTE", "sc://host")
    assert not is_classic({})
