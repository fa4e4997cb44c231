"""The C library's allocator: freed memory is retained between steps, and returned at the end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterator

__all__ = ["retain_freed_memory"]

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 2**30
_AFTERWARDS = 2**26
_LARGEST_FROM_THE_HEAP = 2**25  # the most that glibc allows on 64 bits


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Let glibc retain what a step frees, up to 1 GiB, for the next step; return all of it at the end.

    By default it returns the top of the heap to the system as soon as a few megabytes are free there, and requests
    it again a millisecond later: every step then has a page fault for each page of its activations, which took a
    quarter of a step on two cores. With another C library, nothing is changed.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError, TypeError) as error:  # musl, macOS, Windows
        logger.debug("This C library's allocator is left as it is: %s.", error)
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_THE_HEAP)
    mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        mallopt(_TRIM_THRESHOLD, _AFTERWARDS)
        trim(0)
