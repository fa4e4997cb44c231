"""A Spark job in a thread of its own, so that the caller can exchange messages with its tasks."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pyspark import InheritableThread

__all__ = ["BackgroundJob"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class BackgroundJob(Generic[T]):
    """Runs ``action``, which starts Spark jobs, and keeps what it returns or raises.

    Parameters
    ----------
    context : SparkContext
        Where the jobs run. They carry a tag in addition to the caller's job group: what cancels the group cancels
        them.
    action : callable
        Called without arguments, in the new thread.
    """

    def __init__(self, context: Any, action: Callable[[], T]) -> None:
        self._context, self._action = context, action
        self._tag = f"sparkopt-{uuid.uuid4().hex}"
        self._results: list[T] = []
        self._failure: BaseException | None = None
        self._thread = InheritableThread(target=self._run, name="sparkopt-job", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._context.addJobTag(self._tag)
        try:
            self._results.append(self._action())
        except Exception as error:  # noqa: BLE001  # raised again in the caller's thread, by ``result``
            self._failure = error

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait until it ends, this long at most; return whether it has ended."""
        self._thread.join(timeout=seconds)
        return not self.alive

    def result(self) -> T:
        """Wait for the end and return what the action returned, or raise what it raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._results[0]

    def cancel(self, grace: float = 30.0) -> None:
        """End its tasks, and wait for it; harmless where it has ended."""
        if self.alive:
            self._context.cancelJobsWithTag(self._tag)
            if not self.wait(grace):
                logger.warning("a Spark job has not ended %g s after it was cancelled", grace)
