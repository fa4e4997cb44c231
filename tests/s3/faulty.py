"""A server between a test and an S3 server, which is late, refuses, forbids, falls silent or dies as it is told."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class FaultyServer:
    """Passes requests on to an S3 server, but for the faults that are set.

    Attributes
    ----------
    delay : float
        Seconds before each answer.
    busy : int
        How many requests are still refused with 503.
    down : bool
        Whether connections end without an answer, as those to a process that was killed.
    silent : bool
        Whether requests are taken and never answered.
    prefix : str or None
        The only keys, as ``bucket/prefix/``, for which there are rights.
    dies_after : int or None
        How many requests are still answered before the server ends.
    seen : list of str
        Requests, as method and path.
    """

    def __init__(self, port: int) -> None:
        self.target, self.delay, self.busy, self.silent = port, 0.0, 0, False
        self.down = False
        self.prefix: str | None = None
        self.dies_after: int | None = None
        self.seen: list[str] = []
        self.refused: list[str] = []
        self.before: Callable[[str], None] | None = None
        faults = self

        class Handler(_Handler):
            server_faults = faults

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def uri(self, path: str) -> str:
        """Return the URI of a path, such as ``bucket/rows``, by way of this server."""
        return f"s3://{path}?endpoint_override=127.0.0.1%3A{self.port}&scheme=http&region=us-east-1"

    def close(self) -> None:
        """End the server: connections are refused from now on."""
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._server.socket.close()

    def allows(self, method: str, path: str, body: bytes) -> bool:
        """Whether rights for the prefix allow for a request."""
        if self.prefix is None:
            return True
        parts = urlsplit(path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        own_bucket, _, prefix = self.prefix.partition("/")
        if bucket != own_bucket:
            return False
        if key:
            return key.startswith(prefix)
        if method == "POST" and "delete" in query:
            return all(unquote(each).startswith(prefix) for each in re.findall(r"<Key>(.*?)</Key>", body.decode()))
        return method == "GET" and (query.get("prefix") or [""])[0].startswith(prefix)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_faults: FaultyServer

    def log_message(self, *args: object) -> None:
        pass

    def _pass_on(self) -> None:
        faults = self.server_faults
        body = self._body()
        faults.seen.append(f"{self.command} {self.path}")
        if faults.dies_after is not None:
            faults.dies_after -= 1
            if faults.dies_after < 0:
                faults.close()
                self.close_connection = True
                self.connection.close()
                return
        if faults.down:
            self.close_connection = True
            self.connection.close()
            return
        time.sleep(faults.delay)
        while faults.silent:
            time.sleep(0.1)
        if faults.busy > 0:
            faults.busy -= 1
            self._answer(503, BUSY)
        elif not faults.allows(self.command, self.path, body):
            faults.refused.append(f"{self.command} {self.path}")
            self._answer(403, b"" if self.command == "HEAD" else DENIED)
        else:
            self._ask(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        if self.headers.get("Expect", "").lower() == "100-continue" and not self.headers.get("Content-Length"):
            return b""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server_faults.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        response = connection.getresponse()
        content = response.read()
        more = [(name, value) for name, value in response.getheaders() if name.lower() not in _OWN]
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        connection.close()
        self._answer(response.status, content, more, length)

    def _answer(
        self,
        status: int,
        content: bytes,
        headers: Sequence[tuple[str, str]] = (),
        length: str | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_OWN = ("transfer-encoding", "content-length", "connection", "expect", "keep-alive", "date", "server")
