"""Fits that are cancelled: ``cancelAllJobs``, ``cancelJobGroup`` and the like end them, between two passes too.

Spark cancels the jobs that run at that moment and forgets about it, so a call that comes between two passes of a fit
would be lost. While a fit runs, such calls of this process are therefore noted, and asked for before each pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sparkopt.blocks.backend import is_connect
from sparkopt.errors import FitCancelledError

__all__ = ["Cancellation", "cancellable"]

GROUP = "spark.jobGroup.id"
_EVERY, _BY_GROUP, _BY_TAG = "every", "group", "tag"
_CLASSIC = {
    "cancelAllJobs": _EVERY,
    "cancelJobGroup": _BY_GROUP,
    "cancelJobGroupAndFutureJobs": _BY_GROUP,
    "cancelJobsWithTag": _BY_TAG,
    "cancelJobsWithTagAndFutureJobs": _BY_TAG,
}
_CONNECT = {"interruptAll": _EVERY, "interruptTag": _BY_TAG}

_lock = threading.Lock()
_watched: WeakKeyDictionary[Any, list[Cancellation]] = WeakKeyDictionary()


class Cancellation:
    """Whether a fit's jobs were cancelled.

    Parameters
    ----------
    group : str or None
        The job group of the thread that fits.
    tags : frozenset of str
        Its job tags.
    """

    def __init__(self, group: str | None, tags: frozenset[str]) -> None:
        self._group, self._tags, self._call = group, tags, ""

    def check(self) -> None:
        """Raise an error where they were.

        Raises
        ------
        FitCancelledError
            Naming the call.
        """
        if self._call:
            raise FitCancelledError(
                f"the fit was cancelled by {self._call}. With checkpointDir the same call resumes."
            )

    def note(self, call: str, how: str, names: tuple[Any, ...]) -> None:
        """Note a call that cancels jobs, if it means this fit's."""
        name = str(names[0]) if names else ""
        if how == _EVERY or (how == _BY_GROUP and name == self._group) or (how == _BY_TAG and name in self._tags):
            self._call = call if how == _EVERY else f"{call}({name!r})"


@contextmanager
def cancellable(session: Any | None) -> Iterator[Cancellation]:
    """Yield what tells whether the jobs of this thread were cancelled since.

    Parameters
    ----------
    session : SparkSession or None
        The session; None where Spark does not run the fit.
    """
    if session is None:
        yield Cancellation(None, frozenset())
        return
    if is_connect(session):
        target, calls, mine = session, _CONNECT, Cancellation(None, frozenset(session.getTags()))
    else:
        target, calls = session.sparkContext, _CLASSIC
        tags = target.getJobTags()  # a set of the JVM's: to find its end takes 80 calls
        mine = Cancellation(target.getLocalProperty(GROUP), frozenset(tags) if len(tags) else frozenset())
    with _lock:
        known = _watched.setdefault(target, [])
        known.append(mine)
        if len(known) == 1:
            for name, how in calls.items():
                if hasattr(target, name):
                    setattr(target, name, _noting(getattr(target, name), name, how, known))
    try:
        yield mine
    finally:
        with _lock:
            known.remove(mine)
            if not known:
                for name in calls:
                    vars(target).pop(name, None)
                _watched.pop(target, None)


def _noting(cancel: Callable[..., Any], name: str, how: str, fits: list[Cancellation]) -> Callable[..., Any]:
    """Return the session's own function, which also tells the fits that run."""

    def noting(*names: Any, **options: Any) -> Any:
        for fit in [*fits]:
            fit.note(name, how, names or tuple(options.values()))
        return cancel(*names, **options)

    return noting
