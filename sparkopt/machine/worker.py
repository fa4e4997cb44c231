"""What runs in a worker process: it takes functions and items from its parent's pipe, and sends results back.

It imports little of its own, since it is waited for. It ends with its parent: when the pipe is closed, and on Linux
at once, whatever it is doing.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from sparkopt.machine.messages import Frame
from sparkopt.values import dataclass

__all__ = ["BOOTSTRAP", "THREADS", "Failure", "LogRecord", "Order", "Returned", "Surroundings", "Warned", "in_worker"]

BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from sparkopt.machine.worker import main; main(int(sys.argv[1]))"
"""What the interpreter runs, given the parent's number and ``sys.path``: before that is set, nothing is imported."""

DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""

MOST_FUNCTIONS = 8
"""Functions that a worker keeps: those of runs at the same time."""


@dataclass(frozen=True)
class Surroundings:
    """What functions find around them, in a worker as in the parent.

    Attributes
    ----------
    folder : str
        The working directory.
    path : tuple of str
        ``sys.path``.
    environment : mapping
        Environment variables.
    levels : mapping
        Levels of loggers, where they have one.
    """

    folder: str
    path: tuple[str, ...]
    environment: Mapping[str, str]
    levels: Mapping[str, int]

    @classmethod
    def here(cls) -> Surroundings:
        """Return those of this process."""
        known = list(logging.root.manager.loggerDict.items())
        levels = {name: found.level for name, found in known if isinstance(found, logging.Logger) and found.level}
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # it was deleted
            folder = ""
        return cls(folder, tuple(sys.path), dict(os.environ), {"root": logging.root.level, **levels})

    def enter(self) -> None:
        """Make this process's like them; limits of threads stay as they are."""
        if self.folder:
            os.chdir(self.folder)
        sys.path[:] = self.path
        os.environ.update({name: value for name, value in self.environment.items() if name not in THREADS})
        for name in os.environ.keys() - self.environment.keys() - THREADS.keys():
            del os.environ[name]
        for name, level in self.levels.items():
            logging.getLogger(None if name == "root" else name).setLevel(level)


THREADS = dict.fromkeys(
    (
        "OMP_NUM_THREADS",  # Arrow too
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)
"""Environment variables that limit the threads of numerical libraries, which read them as they are imported."""


@dataclass(frozen=True)
class Order:
    """What comes before a function and its item.

    Attributes
    ----------
    run : int
        Which call of the pool it is; 0 where there is neither a function nor an item.
    has_function : bool
        Whether the function follows: it does once for each worker.
    surroundings : Surroundings or None
        Those of the parent, where they have changed.
    imports : tuple of str
        Modules to import before there is something to do.
    """

    run: int
    has_function: bool = False
    surroundings: Surroundings | None = None
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Returned:
    """What a function returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """What a function raised: the error, and the trace of its frames as text."""

    error: BaseException
    trace: str


@dataclass(frozen=True)
class LogRecord:
    """A record of a worker's logger, for the parent's of the same name."""

    attributes: Mapping[str, Any]

    def log(self) -> None:
        """Give it to the logger, as if it had been made here."""
        record = logging.makeLogRecord(dict(self.attributes))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


@dataclass(frozen=True)
class Warned:
    """A warning of a worker."""

    message: str
    category: type[Warning]
    filename: str
    line: int

    def warn(self) -> None:
        """Warn here."""
        warnings.warn_explicit(self.message, self.category, self.filename, self.line)


@dataclass
class _State:
    """Whether this process is a worker."""

    is_worker: bool = False


_state = _State()


def in_worker() -> bool:
    """Whether this process is a worker: its functions start no workers of their own."""
    return _state.is_worker


def main(parent: int) -> None:
    """Serve the parent until it is gone."""
    _end_with(parent)
    _state.is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what functions print must not be taken for a reply
    try:
        _Server(requests, replies).serve()
    except (EOFError, BrokenPipeError):  # the parent is gone, or has no more to do
        os._exit(0)


def _end_with(parent: int) -> None:
    """End at once when the parent does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone already
        os._exit(0)


@dataclass
class _Server:
    """The loop of a worker."""

    requests: int
    replies: int
    functions: OrderedDict[int, Callable[[Any], Any]] = field(default_factory=OrderedDict)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def serve(self) -> None:
        logging.root.addHandler(_ToParent(self))
        warnings.simplefilter("default")  # once for each line; the parent's filters decide
        warnings.showwarning = self._warn  # type: ignore[assignment]
        while True:
            order: Order = Frame.read(self.requests).load()
            if order.surroundings is not None:
                order.surroundings.enter()
            if order.imports:
                _import_all(order.imports)
            if order.run:
                self._reply(order)

    def send(self, frame: Frame) -> None:
        with self._writing:
            frame.write(self.replies)

    def _reply(self, order: Order) -> None:
        function = Frame.read(self.requests) if order.has_function else None
        item = Frame.read(self.requests)
        try:
            if function is not None:
                self._keep(order.run, function.load())
            reply = _pickled(Returned(self.functions[order.run](item.load())))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # raised again by the parent
            reply = _failure(error)
        self.send(reply)

    def _keep(self, run: int, function: Callable[[Any], Any]) -> None:
        self.functions[run] = function
        while len(self.functions) > MOST_FUNCTIONS:
            self.functions.popitem(last=False)

    def _warn(self, message: Warning | str, category: type[Warning], filename: str, line: int, *_: Any) -> None:
        self.send(_pickled(Warned(str(message), category, filename, line)))


class _ToParent(logging.Handler):
    """Sends records to the parent."""

    def __init__(self, server: _Server) -> None:
        super().__init__()
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else record.exc_text
        told = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": trace}
        plain = {name: value for name, value in told.items() if isinstance(value, str | int | float | None)}
        self._server.send(Frame.of(LogRecord(plain)))


def _import_all(names: Sequence[str]) -> None:
    """Import ahead of need, looking for no garbage, without Arrow's functions, which many tasks do not call."""
    gc.disable()
    from sparkopt.io.imports import postponed

    with postponed("pyarrow.compute"):
        for name in names:
            _import(name)
    gc.freeze()  # modules stay
    gc.enable()


def _import(name: str) -> None:
    """Import ahead of need; the function that needs it says what is wrong with it."""
    try:
        importlib.import_module(name)
    except ImportError:
        logging.getLogger(__name__).debug("%s cannot be imported", name)


def _pickled(value: Any) -> Frame:
    """Pickle a result: classes of the user's script were sent by value, and go back so."""
    try:
        return Frame.of(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        from pyspark.cloudpickle import dumps

        return Frame.of(value, dumps)


def _failure(error: BaseException) -> Frame:
    trace = "".join(traceback.format_exception(error))
    try:
        frame = _pickled(Failure(error, trace))
        frame.load()  # there are errors that can be pickled, but not made again
    except Exception:  # noqa: BLE001  # whatever its own methods raise
        plain = RuntimeError("".join(traceback.format_exception_only(error)).strip())
        return Frame.of(Failure(plain, trace))
    return frame
