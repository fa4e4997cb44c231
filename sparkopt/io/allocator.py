"""The C library's allocator: freed memory is retained between steps, and returned at the end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable, Iterator

__all__ = ["keep_freed_memory", "retain_freed_memory"]

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 2**30
_AFTERWARDS = 2**26
_LARGEST_FROM_THE_HEAP = 2**25  # the most that glibc allows on 64 bits


def keep_freed_memory(most: int = _AFTERWARDS) -> None:
    """Let glibc keep up to ``most`` bytes of what this process frees, for what it needs next.

    By default it returns the top of the heap to the system as soon as a few hundred kilobytes are free there, and
    requests it again a millisecond later: an image may then have a page fault for each page of its pixels. With
    another C library, nothing is changed.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_THE_HEAP)
        mallopt(_TRIM_THRESHOLD, most)


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Let glibc retain what a step frees, up to 1 GiB, for the next step; return all of it at the end.

    A step on two cores took a quarter more time without this.
    """
    keep_freed_memory(_KEPT)
    try:
        yield
    finally:
        keep_freed_memory()
        trim = _function("malloc_trim")
        if trim is not None:
            trim(0)


def _function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library; None where it has none of that name."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError) as error:  # musl, macOS, Windows
        logger.debug("This C library's allocator is left as it is: %s.", error)
        return None
    return found
