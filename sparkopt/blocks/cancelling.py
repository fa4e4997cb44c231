"""Fits that are cancelled: ``cancelAllJobs``, ``cancelJobGroup`` and the like end them, between two passes too.

Spark cancels the jobs that run at that moment and forgets about it, so a call that comes between two passes of a fit
would be lost. While a fit runs, such calls of this process are therefore noted, and asked for before each pass.
"""

from __future__ import annotations

import threading
import weakref
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
_watched: WeakKeyDictionary[Any, _Watched] = WeakKeyDictionary()


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
        watched = _watched.setdefault(target, _Watched(target))
        watched.fits.append(mine)
        if len(watched.fits) == 1:
            watched.begin(calls)
    try:
        yield mine
    finally:
        with _lock:
            watched.fits.remove(mine)
            if not watched.fits:
                watched.end()
                _watched.pop(target, None)


class _Watched:
    """A session whose calls that cancel jobs also tell the fits that run."""

    def __init__(self, target: Any) -> None:
        self.fits: list[Cancellation] = []
        self._own: dict[str, tuple[Any, Any]] = {}
        self._target = weakref.ref(target)

    def begin(self, calls: dict[str, str]) -> None:
        """Put functions in front of the session's, or of those that its user has put there."""
        target = self._target()
        for name, how in calls.items():
            if hasattr(target, name):
                noting = _noting(getattr(target, name), name, how, self.fits)
                self._own[name] = (noting, vars(target).get(name))
                setattr(target, name, noting)

    def end(self) -> None:
        """Put back what was there; a function that came in front of ours since then stays."""
        target = self._target()
        for name, (noting, before) in self._own.items():
            if vars(target).get(name) is not noting:
                continue
            if before is None:
                delattr(target, name)
            else:
                setattr(target, name, before)


def _noting(cancel: Callable[..., Any], name: str, how: str, fits: list[Cancellation]) -> Callable[..., Any]:
    """Return the session's own function, which also tells the fits that run."""

    def noting(*names: Any, **options: Any) -> Any:
        for fit in [*fits]:
            fit.note(name, how, names or tuple(options.values()))
        return cancel(*names, **options)

    return noting
