"""How both ends of a connection prove that they know a run's key, before a byte is read further.

The driver sends a number that it has just drawn. The caller answers with one of its own, and with the HMAC (SHA-256)
of both under the key; then the driver proves the same. All three messages have a fixed length, so a stranger can
make neither end keep more than that; old answers are worth nothing, since the numbers are new; and neither end's
proof is the other's, so nobody can send one back.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import time
from multiprocessing import AuthenticationError

__all__ = ["ANSWER_BYTES", "Handshake", "answer"]

_GREETING = b"sparkopt connection 1\n"
_NUMBER_BYTES = 32
_PROOF_BYTES = 32

GREETING_BYTES = len(_GREETING) + _NUMBER_BYTES
ANSWER_BYTES = _NUMBER_BYTES + _PROOF_BYTES
"""All that is read of a caller before it has proved that it knows the key."""


class Handshake:
    """The driver's side of one handshake; it never waits.

    Parameters
    ----------
    caller : socket.socket
        Who called; made non-blocking.
    key : bytes
        The secret.
    seconds : float
        How long the caller has for its answer.
    """

    def __init__(self, caller: socket.socket, key: bytes, seconds: float) -> None:
        self.caller, self.deadline = caller, time.monotonic() + seconds
        self._key, self._number, self._received = key, secrets.token_bytes(_NUMBER_BYTES), b""
        caller.setblocking(False)
        caller.sendall(_GREETING + self._number)  # a new connection has room for it

    def advance(self) -> bool:
        """Read what has come of the answer; return whether it is there, and right.

        Raises
        ------
        AuthenticationError
            Where it is wrong.
        OSError
            Where the caller has gone.
        """
        part = self.caller.recv(ANSWER_BYTES - len(self._received))
        if not part:
            raise ConnectionError("it left without an answer")
        self._received += part
        if len(self._received) < ANSWER_BYTES:
            return False
        number, proof = self._received[:_NUMBER_BYTES], self._received[_NUMBER_BYTES:]
        if not hmac.compare_digest(proof, _proof(self._key, b"caller", self._number, number)):
            self.caller.sendall(bytes(_PROOF_BYTES))  # a task with the key of another run need not call again
            raise AuthenticationError("its answer is wrong")
        self.caller.sendall(_proof(self._key, b"driver", self._number, number))
        self.caller.setblocking(True)
        return True


def answer(driver: socket.socket, key: bytes) -> None:
    """Do the caller's side; the socket's time limit holds for each message.

    Raises
    ------
    AuthenticationError
        Where the other end is not a driver that knows the key.
    EOFError
        Where it has closed the connection: it is gone, or too many others called.
    """
    greeting = _read(driver, GREETING_BYTES)
    if not greeting.startswith(_GREETING):
        raise AuthenticationError("the process at the driver's address is not sparkopt's")
    number = secrets.token_bytes(_NUMBER_BYTES)
    numbers = greeting[len(_GREETING) :], number
    driver.sendall(number + _proof(key, b"caller", *numbers))
    if not hmac.compare_digest(_read(driver, _PROOF_BYTES), _proof(key, b"driver", *numbers)):
        raise AuthenticationError("the process at the driver's address does not know this run's key")


def _proof(key: bytes, side: bytes, drivers: bytes, callers: bytes) -> bytes:
    return hmac.digest(key, side + drivers + callers, "sha256")


def _read(driver: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = driver.recv(size - len(found))
        if not part:
            raise EOFError("the driver closed the connection")
        found += part
    return found
