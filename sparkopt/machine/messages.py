"""Messages between this process and its workers: pickled, with the arrays that they hold sent as they are.

Pickle's protocol 5 leaves the memory of NumPy arrays and Arrow buffers out of the pickled bytes. It is written to the
pipe from where it is, and read into the memory that the new array keeps: no copy is made on either side.

Both ends of a pipe are this process and one that it started: nobody else can write to it.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any

from sparkopt.values import dataclass

__all__ = ["Frame"]

HEAD = struct.Struct("<QQ")
SIZE = struct.Struct("<Q")
SMALL = 1 << 16
"""Bytes of a pickled object that are copied behind its head, so that both take one call."""
MOST_AT_ONCE = 1 << 30
"""Bytes of one call: systems refuse more than 2 GiB."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Frame:
    """One pickled object.

    Attributes
    ----------
    data : bytes-like
        The pickled object without its buffers.
    buffers : sequence of bytes-like
        The memory of its arrays.
    """

    data: Buffer
    buffers: Sequence[Buffer]

    @classmethod
    def of(cls, value: Any, dumps: Callable[..., bytes] = pickle.dumps) -> Frame:
        """Pickle a value."""
        buffers: list[pickle.PickleBuffer] = []
        data = dumps(value, protocol=5, buffer_callback=buffers.append)
        return cls(data, [buffer.raw() for buffer in buffers])

    def load(self) -> Any:
        """Return the object; its arrays keep the frame's memory."""
        return pickle.loads(self.data, buffers=self.buffers)  # noqa: S301  # from our own process, over our own pipe

    def write(self, pipe: int) -> None:
        """Write it to a pipe."""
        sizes = [SIZE.pack(memoryview(buffer).nbytes) for buffer in self.buffers]
        head = HEAD.pack(len(self.data), len(sizes)) + b"".join(sizes)
        parts = [head + self.data] if len(self.data) < SMALL else [head, self.data]  # one call for most messages
        for part in (*parts, *self.buffers):
            _write(pipe, part)

    @classmethod
    def read(cls, pipe: int) -> Frame:
        """Read one from a pipe.

        Raises
        ------
        EOFError
            Where the other end is closed.
        """
        length, count = HEAD.unpack(_read(pipe, HEAD.size))
        sizes = [size for (size,) in SIZE.iter_unpack(_read(pipe, SIZE.size * count))]
        return cls(_read(pipe, length), [_read(pipe, size) for size in sizes])


def _write(pipe: int, part: Buffer) -> None:
    rest = memoryview(part).cast("B")
    while rest.nbytes:
        rest = rest[os.write(pipe, rest[:MOST_AT_ONCE]) :]


def _read(pipe: int, size: int) -> bytearray:
    found = bytearray(size)
    rest = memoryview(found)
    while rest.nbytes:
        count = os.readv(pipe, [rest[:MOST_AT_ONCE]])
        if not count:
            raise EOFError("the other end of the pipe is closed")
        rest = rest[count:]
    return found
