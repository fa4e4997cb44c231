"""Whether a Spark Connect server is there, before its client retries silently for a quarter of an hour."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from sparkopt.errors import ParameterError
from sparkopt.io.secrets import mask

__all__ = ["require_server"]

_PORT = 15002
"""Where a server listens unless its address says otherwise."""

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


def require_server(url: str, seconds: float = 10.0) -> None:
    """Refuse an address at which nothing listens; where a proxy stands between, it is not asked.

    Parameters
    ----------
    url : str
        ``sc://HOST:PORT``, with whatever parameters behind it.
    seconds : float, default 10
        How long to wait for an answer.

    Raises
    ------
    ParameterError
        Where it is no address of a server, or nothing answers there.
    """
    shown = mask(url.partition(";")[0])
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        parts, host, port = None, None, _PORT
    if parts is None or parts.scheme != "sc" or not host:
        raise ParameterError(f"{shown!r} is no address of a Spark Connect server: give sc://HOST:15002.")
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ParameterError(
            f"no Spark Connect server answers at {host}:{port} ({reason}). Start it "
            "($SPARK_HOME/sbin/start-connect-server.sh), or correct --remote or SPARK_REMOTE."
        ) from error
