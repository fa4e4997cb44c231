"""Descriptions of Spark's jobs, by which its pages show them: ``sparkopt: pass 12 of LogisticRegression``.

On Spark Classic a job has one description, which is a property of the thread that starts it; the caller's own is
restored afterwards, and the job group stays the caller's. On Spark Connect, jobs have tags: one more is added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.classic import description_of, set_description
from sparkopt.blocks.jvm_errors import Py4JError

__all__ = ["described", "of_subject"]

logger = logging.getLogger(__name__)

_SUBJECT: ContextVar[str] = ContextVar("sparkopt_subject", default="")


@contextmanager
def of_subject(name: str) -> Iterator[None]:
    """Let descriptions within name what the jobs are for, such as an estimator."""
    token = _SUBJECT.set(name)
    try:
        yield
    finally:
        _SUBJECT.reset(token)


@contextmanager
def described(session: Any | None, what: str = "") -> Iterator[Callable[[str], None]]:
    """Describe the jobs that this thread starts within.

    Parameters
    ----------
    session : SparkSession or None
        Their session; None where Spark does not run them.
    what : str, default ""
        What they do; "" leaves that to the function that is yielded, which takes what the next ones do.
    """
    if session is None:
        yield _nothing
        return
    label = _Tag(session) if is_connect(session) else _Description(session)
    try:
        if what:
            label(what)
        yield label
    finally:
        label.close()


def _text(what: str) -> str:
    subject = _SUBJECT.get()
    return f"sparkopt: {what} of {subject}" if subject else f"sparkopt: {what}"


def _nothing(what: str) -> None:
    """Describe no job."""


class _Description:
    """The thread's description on Spark Classic."""

    def __init__(self, session: Any) -> None:
        self._session, self._before = session, description_of(session)

    def __call__(self, what: str) -> None:
        set_description(self._session, _text(what))

    def close(self) -> None:
        """Restore the caller's."""
        try:
            set_description(self._session, self._before)
        except (Py4JError, OSError) as error:  # the JVM has ended, which another error says
            logger.debug("the description of jobs is not restored: %s", error)


class _Tag:
    """The thread's own tag on Spark Connect, whose tags have no commas."""

    def __init__(self, session: Any) -> None:
        self._session, self._tag = session, ""

    def __call__(self, what: str) -> None:
        self.close()
        tag = _text(what).replace(",", ";")
        if tag not in self._session.getTags():
            self._session.addTag(tag)
            self._tag = tag

    def close(self) -> None:
        """Remove it."""
        if self._tag:
            self._session.removeTag(self._tag)
            self._tag = ""
