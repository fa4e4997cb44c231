"""Files that show that they were altered: a line names the format, one has the SHA-256 of the rest, then the rest."""

from __future__ import annotations

import hashlib

from sparkopt.errors import CorruptDataError

__all__ = ["seal", "unseal"]


def seal(magic: bytes, body: bytes) -> bytes:
    r"""Return the content of a file.

    Parameters
    ----------
    magic : bytes
        The name and version of the format: one line, with its end.
    body : bytes
        What the file holds.

    Examples
    --------
    >>> unseal(b"numbers 1\n", seal(b"numbers 1\n", b"2 3 5"))
    b'2 3 5'
    """
    return magic + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unseal(magic: bytes, content: bytes) -> bytes:
    """Return the body that ``seal`` was given.

    Raises
    ------
    CorruptDataError
        Where the content is truncated, altered, or of another format.
    """
    if not content.startswith(magic):
        raise CorruptDataError(f"it is not of the format {magic.decode().strip()!r}")
    checksum, _, body = content[len(magic) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise CorruptDataError("it was truncated or altered: its checksum is wrong")
    return body
