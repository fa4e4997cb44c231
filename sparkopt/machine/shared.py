"""A value that all workers need: written once, read once in each process."""

from __future__ import annotations

import mmap
import threading
import uuid
from collections import OrderedDict
from dataclasses import field
from pathlib import Path

from sparkopt.machine.folders import private_folders
from sparkopt.values import dataclass

__all__ = ["SharedValue"]

INLINE = 1 << 16
"""Bytes up to which a value travels with the function that needs it, once a worker, instead of through a file."""

MOST_KEPT = 16
"""Values that a process keeps mapped."""

_lock = threading.Lock()
_mapped: OrderedDict[str, bytes | memoryview] = OrderedDict()


@dataclass(frozen=True)
class SharedValue:
    """Bytes that every worker can read: pickled, it is a path, unless it is small.

    Large values are in a file of this process's private folder, which workers map into their memory.

    Examples
    --------
    >>> from sparkopt.machine import SharedValue
    >>> value = SharedValue.of(b"coefficients")
    >>> bytes(value.value)
    b'coefficients'
    >>> value.destroy()
    """

    path: str
    inline: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, value: bytes) -> SharedValue:
        """Share a value; ``destroy`` deletes it."""
        if len(value) <= INLINE:
            return cls("", value)
        path = private_folders()[0] / f"shared-{uuid.uuid4().hex}"
        path.write_bytes(value)
        return cls(str(path))

    @property
    def value(self) -> bytes | memoryview:
        """The bytes; of a large value, a view of its file."""
        if not self.path:
            return self.inline
        with _lock:
            if self.path not in _mapped:
                with open(self.path, "rb") as file:
                    _mapped[self.path] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            _mapped.move_to_end(self.path)
            while len(_mapped) > MOST_KEPT:
                _mapped.popitem(last=False)
            return _mapped[self.path]

    def destroy(self) -> None:
        """Delete it; who has it mapped keeps it. Harmless when repeated."""
        if self.path:
            with _lock:
                _mapped.pop(self.path, None)
            Path(self.path).unlink(missing_ok=True)
