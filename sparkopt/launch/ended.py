"""Why a rank has ended: what it reported, or that it was lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from sparkopt.errors import LostRankError, RankError
from sparkopt.io.filesystem import brief
from sparkopt.launch.channel import Channel

__all__ = ["why_ended"]

_GRACE = 2.0
"""Seconds that the other ranks have to report why one of them ended."""


def why_ended(
    channel: Channel, processes: int, lost: Callable[[], tuple[int, str] | None], error: BaseException | None
) -> Exception:
    """Return why a rank has ended: what one reported, or that one was lost, which others may have noticed first.

    Parameters
    ----------
    channel : Channel
        Where ranks report failures.
    processes : int
        Number of ranks.
    lost : callable
        Returns the first rank whose process has ended unexpectedly, and what is known of that; None if there is none.
    error : Exception or None
        What the process of the rank that ended has raised; None where it was lost.
    """
    deadline = time.monotonic() + _GRACE
    while True:
        failure = channel.failure()
        if failure is not None and not failure.is_echo:
            return failure.error()
        found = lost()
        if found is not None:
            return LostRankError(f"a process of {processes} ended unexpectedly, rank {found[0]}: {found[1]}")
        if failure is None and error is not None:  # the task could not be unpickled, say
            return RankError(f"a process failed before its rank began: {type(error).__name__}: {brief(error)}")
        if failure is not None and time.monotonic() > deadline:
            return failure.error()
        time.sleep(0.02)
