"""Decoders of small libraries, where they are installed: the samples that OpenCV gives, sooner and in less memory.

They hold Python's interpreter while they decode, and OpenCV does not: outside the main thread, where a thread that
decodes for a network would stop the one that trains, they are given small images only.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["may_hold", "optional_decoder"]

_LIMITS = "OPENCV_IO_MAX_IMAGE_"


@functools.cache
def optional_decoder(module: str, function: str) -> Callable[..., Any] | None:
    """Return a library's function, where it is installed, and OpenCV has no limits that only it knows."""
    if any(name.startswith(_LIMITS) for name in os.environ):
        return None
    try:
        found: Callable[..., Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError):
        return None
    return found


def may_hold(samples: int, most: int) -> bool:
    """Whether the interpreter may be held while so many samples are decoded: other threads stand still meanwhile.

    ``most`` is how many are decoded in a millisecond.
    """
    return samples <= most or threading.current_thread() is threading.main_thread()
