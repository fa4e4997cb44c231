"""A store on another machine may answer late, or never: who waits is told, and not for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["LIMIT", "NOTICES", "answered"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

NOTICES = (10.0, 30.0, 60.0, 120.0)
"""Seconds of silence after which a line says so."""
LIMIT = 180.0
"""Seconds of silence after which a store counts as unreachable."""


def answered(question: Callable[[], T], shown: str) -> T:
    """Return the answer to a question that is put to another machine.

    Parameters
    ----------
    question : callable
        One request, or a few.
    shown : str
        What is asked, as messages name it.

    Raises
    ------
    TimeoutError
        Where there is none within `LIMIT` seconds. What ``question`` raises is raised as it is.
    """
    answer: list[Any] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answer.append(question())
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            errors.append(error)

    asking = threading.Thread(target=ask, name="sparkopt-storage", daemon=True)
    begin = time.monotonic()
    asking.start()
    for seconds in (*NOTICES, LIMIT):
        asking.join(max(begin + seconds - time.monotonic(), 0.0))
        if errors:
            raise errors[0]
        if not asking.is_alive():
            return answer[0]  # type: ignore[no-any-return]
        if seconds < LIMIT:
            logger.warning("%s: no answer for %.0f s; it is waited for until %.0f s", shown, seconds, LIMIT)
    raise TimeoutError(f"no answer within {LIMIT:.0f} s. Check the address, the network and the proxy")
