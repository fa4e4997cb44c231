"""One worker process, as its parent sees it: started without a fork, spoken to over two pipes, ended by a signal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence

from sparkopt.machine.messages import Frame
from sparkopt.machine.worker import (
    BOOTSTRAP,
    MOST_FUNCTIONS,
    THREADS,
    Failure,
    LogRecord,
    Order,
    Returned,
    Surroundings,
    Warned,
)

__all__ = ["EndedError", "WorkerProcess"]


PIPE_BYTES = 1 << 20
"""Bytes that a pipe holds."""


class EndedError(Exception):
    """The process ended in the middle of something; the message says how."""


class WorkerProcess:
    """A process that applies functions to items, one at a time.

    It inherits neither threads nor open files, and its numerical libraries have one thread each. On Linux the kernel
    kills it when the *thread* that started it ends: whoever makes one keeps it in a thread that lives as long.

    Parameters
    ----------
    imports : sequence of str
        Modules that it imports before the first item comes.
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        there, self._requests = _pipe()
        self._replies, theirs = _pipe()
        command = [sys.executable, "-c", BOOTSTRAP, str(os.getpid()), *sys.path]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                command,
                stdin=there,
                stdout=theirs,
                env={**os.environ, **THREADS},
                start_new_session=True,  # a terminal's Ctrl-C reaches the parent only
            )
        finally:
            os.close(there)
            os.close(theirs)
        self._surroundings: Surroundings | None = None
        self._functions: OrderedDict[int, None] = OrderedDict()
        self.imports(imports)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as the system knows."""
        return self._process.poll() is None

    def imports(self, modules: Sequence[str]) -> None:
        """Let it import modules while there is nothing else to do."""
        with contextlib.suppress(OSError):  # it is gone: the next item finds out
            Frame.of(self._order(0, False, tuple(modules))).write(self._requests)

    def apply(self, run: int, function: Frame, item: Frame, surroundings: Surroundings) -> Returned | Failure:
        """Apply a function to an item there.

        Raises
        ------
        EndedError
            Where the process ends first.
        """
        is_new = run not in self._functions
        changed = None if surroundings == self._surroundings else surroundings
        self._surroundings = surroundings
        try:
            Frame.of(Order(run, is_new, changed)).write(self._requests)
            if is_new:
                self._remember(run)
                function.write(self._requests)
            item.write(self._requests)
            while True:
                told = Frame.read(self._replies).load()
                if isinstance(told, Returned | Failure):
                    return told
                _pass_on(told)
        except (EOFError, OSError):
            raise EndedError(self._how_it_ended()) from None

    def kill(self) -> None:
        """End it now, from whatever thread; who waits for its reply is told."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """End it and wait for its end; harmless when repeated."""
        self.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this process's ends of the pipes, and leave the worker alone: it belongs to who forked us."""
        for pipe in (self._requests, self._replies):
            if pipe >= 0:
                with contextlib.suppress(OSError):
                    os.close(pipe)
        self._requests = self._replies = -1
        if self._process.returncode is None:
            self._process.returncode = 0

    def _order(self, run: int, has_function: bool, imports: tuple[str, ...] = ()) -> Order:
        return Order(run, has_function, None, imports)

    def _remember(self, run: int) -> None:
        """Keep the same functions in mind as the worker keeps."""
        self._functions[run] = None
        while len(self._functions) > MOST_FUNCTIONS:
            self._functions.popitem(last=False)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"it exited with code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name == "SIGKILL":
            return "it was killed by SIGKILL, as the system does with processes when memory is exhausted"
        return f"it was killed by {name}"


def _pipe() -> tuple[int, int]:
    """Make a pipe that takes more than the usual 64 KiB at once, where the system allows it."""
    ends = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ends


def _pass_on(told: LogRecord | Warned) -> None:
    if isinstance(told, LogRecord):
        told.log()
    else:
        told.warn()
