"""What sparkopt changes in Horovod while a run lasts: all of it, with the versions that it was written for.

Horovod is released rarely, and these parts of it have no setting. Each function below says what it is for. Where
Horovod has another version, a warning says so; where a part that is replaced does not exist, the run is refused.
``.ci/horovod`` builds a version of ``VERSIONS``, and changes the C++ standard that its build asks for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

from sparkopt.errors import IncompatibleError

__all__ = ["VERSIONS", "batch_threads", "patched_driver"]

logger = logging.getLogger(__name__)

VERSIONS = ("0.28.1",)
"""Versions of Horovod that the patches were written for and are tested with."""


@contextlib.contextmanager
def patched_driver() -> Iterator[None]:
    """Patch Horovod in the driver, for one run.

    Raises
    ------
    IncompatibleError
        Where this version of Horovod has no such part.
    """
    import horovod

    if horovod.__version__ not in VERSIONS:
        logger.warning(
            "Horovod %s: sparkopt's patches of it are for %s. If a run does not start or end, build that with "
            ".ci/horovod (make horovod).",
            horovod.__version__,
            ", ".join(VERSIONS),
        )
    with _close_servers(), _quiet_threads(), _start_in_any_thread():
        yield


@contextlib.contextmanager
def _close_servers() -> Iterator[None]:
    """Close the servers through which ranks find each other: Horovod leaves them listening, run after run."""
    from horovod.runner.http.http_server import RendezvousServer

    opened: list[Any] = []

    def start(server: Any, *args: Any) -> Any:
        port = original(server, *args)
        server._httpd.daemon_threads = True  # one that still waits for a rank does not keep the process from ending
        opened.append(server)
        return port

    with _replaced(RendezvousServer, "start", start) as original:
        try:
            yield
        finally:
            for server in opened:
                server.stop()
                server._httpd.server_close()


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep the traceback of Horovod's Spark job off the console: the launcher's own error says what failed."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and "run_spark" in args.thread.name:
            logger.debug("Horovod's Spark job ended: %s", args.exc_value)
        else:
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _start_in_any_thread() -> Iterator[None]:
    """Let Horovod start from other threads than the main one, where Python lets it handle no signals.

    It handles them to end its ranks; but ranks whose driver is gone end by themselves.
    """
    from horovod.runner import gloo_run

    if threading.current_thread() is threading.main_thread():
        yield
        return
    with _replaced(gloo_run, "register_shutdown_event", threading.Event):
        yield


@contextlib.contextmanager
def batch_threads() -> Iterator[None]:
    """Schedule the threads that Horovod starts on a rank's CPU as batch work: they interrupt no other thread.

    Horovod's ranks synchronise every millisecond, even where there is nothing to sum, and each time threads wake in
    turn in every process. On cores that compute, this took a sixth of a step; it takes almost nothing under
    ``SCHED_BATCH`` (sched(7)), which threads inherit. They get a core at once where nothing else runs on it, as while
    a step waits for its sums, and their share where others compete for it.
    """
    is_linux = hasattr(os, "SCHED_BATCH")
    if not is_linux or os.sched_getscheduler(0) != os.SCHED_OTHER:  # a policy that was set before stays
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # some sandboxes allow one policy only
        logger.debug("Horovod's threads are scheduled like all others: %s.", error)
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[Any]:
    """Replace a function of Horovod's for a while; yield the original."""
    import horovod

    original = getattr(owner, name, None)
    if original is None:
        raise IncompatibleError(
            f"Horovod {horovod.__version__} has no {owner.__name__}.{name}, which sparkopt replaces. Build "
            f"{', '.join(VERSIONS)} with .ci/horovod (make horovod), or use launcher='torch'."
        )
    setattr(owner, name, replacement)
    try:
        yield original
    finally:
        setattr(owner, name, original)
