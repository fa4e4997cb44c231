"""Encrypted connections, where Spark's own are: TLS without certificates, bound to the key of the run.

Both ends have proved that they know the run's key before (``handshake``). Then they agree on keys by an anonymous
elliptic-curve exchange (TLS 1.2), and prove again that they know the run's key, this time together with what is
unique to the exchange (RFC 5929, ``tls-unique``): somebody in the middle has two exchanges, and can prove neither.
Each message is encrypted as a whole, so that whoever waits for a connection waits for whole messages.
"""

from __future__ import annotations

import hmac
import io
import ssl
import threading
from functools import cache
from multiprocessing import AuthenticationError, connection
from typing import Any

__all__ = ["EncryptedConnection", "can_encrypt", "encrypted"]

_CIPHERS = "AECDH-AES256-SHA:@SECLEVEL=0"
"""Keys by an anonymous exchange; the level forbids them otherwise, since by themselves they authenticate nobody."""
_STEP_BYTES = 1 << 16
"""Most bytes of a message of the exchange."""
_PROOF_BYTES = 32
_RECORD_BYTES = 1 << 14
_RECORD_MORE = 128
"""Bytes of a record of TLS, and how many more it takes when it is encrypted, at most."""


@cache
def can_encrypt() -> bool:
    """Whether this machine's OpenSSL has the anonymous exchange; some distributions leave it out."""
    try:
        _context(is_driver=True)
    except ssl.SSLError:
        return False
    return "tls-unique" in ssl.CHANNEL_BINDING_TYPES


def _context(is_driver: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_driver else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the run's key is what is verified
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2  # which has the binding
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(_CIPHERS)
    return context


class EncryptedConnection(connection.Connection):
    """A connection whose messages are encrypted; made by ``encrypted``."""

    def __init__(self, handle: int, is_driver: bool) -> None:
        super().__init__(handle)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(is_driver).wrap_bio(self._incoming, self._outgoing, server_side=is_driver)
        self._tls_lock, self._send_lock = threading.Lock(), threading.Lock()  # OpenSSL's object serves one at a time

    def agree(self, key: bytes, is_driver: bool, seconds: float) -> None:
        """Agree on keys, and prove that both ends know the run's.

        Raises
        ------
        AuthenticationError
            Where the other end does not.
        OSError, EOFError
            Where it does not answer.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                is_done = False
            else:
                is_done = True
            if step := self._outgoing.read():
                super()._send_bytes(step)  # type: ignore[misc]
            if is_done:
                break
            if not self.poll(seconds):
                raise TimeoutError("the other end did not answer")
            found = super()._recv_bytes(_STEP_BYTES)  # type: ignore[misc]
            if found is None:
                raise OSError("a message of the exchange is too long")
            self._incoming.write(found.getvalue())
        binding = self._tls.get_channel_binding("tls-unique")
        assert binding is not None  # noqa: S101  # the exchange is complete
        mine, other = (b"driver", b"caller") if is_driver else (b"caller", b"driver")
        self.send_bytes(_proof(key, mine, binding))
        if not self.poll(seconds):
            raise TimeoutError("the other end did not answer")
        if not hmac.compare_digest(self.recv_bytes(_PROOF_BYTES), _proof(key, other, binding)):
            raise AuthenticationError("the other end of an encrypted connection does not know this run's key")

    def _send_bytes(self, message: Any) -> None:
        """Encrypt a message, and send it; called by ``send`` and ``send_bytes``."""
        with self._send_lock:
            with self._tls_lock:
                self._tls.write(len(message).to_bytes(8, "big"))
                if len(message):
                    self._tls.write(message)
                sealed = self._outgoing.read()
            super()._send_bytes(sealed)  # type: ignore[misc]

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        """Receive a message, and decrypt it; None where it is longer than ``maxsize``. Called by ``recv…``."""
        most = None if maxsize is None else maxsize + _RECORD_MORE * (2 + maxsize // _RECORD_BYTES)
        sealed: io.BytesIO | None = super()._recv_bytes(most)  # type: ignore[misc]
        if sealed is None:
            return None
        with self._tls_lock:
            self._incoming.write(sealed.getbuffer())
            try:
                size, opened = int.from_bytes(self._tls.read(8), "big"), io.BytesIO()
                while opened.tell() < size:
                    opened.write(self._tls.read(size - opened.tell()))
            except ssl.SSLError as error:  # altered on its way
                raise OSError(f"a message of an encrypted connection was altered: {error.reason}") from error
        opened.seek(0)
        return None if maxsize is not None and size > maxsize else opened


def encrypted(plain: Any, key: bytes, is_driver: bool, seconds: float) -> EncryptedConnection:
    """Return the encrypted connection over a plain one, whose descriptor it takes; closed where that fails.

    Parameters
    ----------
    plain : Connection
        Both ends have proved that they know the key.
    key : bytes
        The run's.
    is_driver : bool
        Which end this is.
    seconds : float
        How long to wait for each message of the other end.
    """
    handle = plain.fileno()
    plain._handle = None  # it belongs to the new connection
    made = EncryptedConnection(handle, is_driver)
    try:
        made.agree(key, is_driver, seconds)
    except BaseException:
        made.close()
        raise
    return made


def _proof(key: bytes, side: bytes, binding: bytes) -> bytes:
    return hmac.digest(key, b"encrypted " + side + binding, "sha256")
