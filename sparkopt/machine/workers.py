"""The workers of a pool: a thread for each process, which takes items, sends them and receives results."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from sparkopt.errors import LostProcessError
from sparkopt.machine.process import EndedError, WorkerProcess
from sparkopt.machine.runs import Run
from sparkopt.machine.worker import Failure, Returned

__all__ = ["Workers"]

logger = logging.getLogger(__name__)

MOST_HOMES = 1 << 16
"""Keys of items whose worker is remembered."""

CLOSED = LostProcessError("the pool was closed while it was in use")


class Workers:
    """Threads with a process each.

    The thread that starts a process is the one that speaks with it, and ends after it: Linux kills a process whose
    parent's *thread* is gone, which is how workers end with this process even if it is killed.

    Parameters
    ----------
    count : int
        How many there may be.
    idle_seconds : float
        Seconds after which one without work ends.
    imports : sequence of str
        Modules that processes import first.
    """

    def __init__(self, count: int, idle_seconds: float, imports: Sequence[str]) -> None:
        self._count, self._idle_seconds, self._imports = count, idle_seconds, imports
        self._changed = threading.Condition()
        self._runs: list[Run] = []
        self._homes: OrderedDict[Hashable, int] = OrderedDict()
        self._threads: dict[int, threading.Thread] = {}
        self._processes: dict[int, WorkerProcess] = {}
        self._busy: dict[int, Run] = {}
        self._idle: set[int] = set()
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes that run."""
        with self._changed:
            return sorted(process.pid for process in self._processes.values() if process.is_alive)

    def start(self, count: int) -> None:
        """Let there be so many threads with processes, or as many as there may be."""
        with self._changed:
            missing = [number for number in range(self._count) if number not in self._threads]
            for number in missing[: max(0, count - len(self._threads))]:
                thread = threading.Thread(target=self._serve, args=(number,), name=f"worker-{number}", daemon=True)
                self._threads[number] = thread
                thread.start()

    def submit(self, run: Run) -> None:
        """Let workers take a run's items."""
        with self._changed:
            run.assign(self._homes)
            if self._is_closed:
                run.cancel(CLOSED)
            self._runs.append(run)
            while len(self._homes) > MOST_HOMES:
                self._homes.popitem(last=False)
            self.start(len(self._busy) + run.waiting)
            self._changed.notify_all()

    def pin(self, run: Run) -> None:
        """Let each worker that there is take the item of its number."""
        with self._changed:
            run.assign({})
            for number in {*range(self._count)} - self._threads.keys():
                run.leave(number)
            self._runs.append(run)
            self._changed.notify_all()

    def interrupt(self, run: Run) -> None:
        """Stop a run: nothing begins any more, and processes in the middle of one of its items are killed."""
        with self._changed:
            run.cancel(KeyboardInterrupt())
            for number, busy_with in self._busy.items():
                if busy_with is run and number in self._processes:
                    self._processes[number].kill()

    def stop(self) -> list[threading.Thread]:
        """Kill all processes and let their threads end; return the threads."""
        with self._changed:
            self._is_closed = True
            for run in {*self._runs, *self._busy.values()}:
                run.cancel(CLOSED)
            for process in self._processes.values():
                process.kill()
            self._changed.notify_all()
            return list(self._threads.values())

    def forget(self) -> None:
        """Leave the workers to the process that has forked this one, where there are no such threads."""
        self._changed = threading.Condition()  # whoever held it is not here
        for process in self._processes.values():
            process.forget()
        self._threads, self._processes, self._runs = {}, {}, []

    def _serve(self, number: int) -> None:
        """Run a worker's thread."""
        process: WorkerProcess | None = None
        try:
            process = self._started(number)
            while (task := self._next(number)) is not None:
                process = self._apply(number, process, *task)
        except OSError as error:  # the system starts no more processes
            with self._changed:
                self._leave(number)
                if not self._threads:
                    for run in self._runs:
                        run.cancel(error)
        finally:
            if process is not None:
                process.close()

    def _leave(self, number: int) -> None:
        del self._threads[number]
        self._processes.pop(number, None)
        for run in self._runs:
            run.leave(number)

    def _started(self, number: int) -> WorkerProcess:
        process = WorkerProcess(self._imports)
        with self._changed:
            self._processes[number] = process
        return process

    def _next(self, number: int) -> tuple[Run, int] | None:
        """Wait for an item; None where there is no reason to wait longer."""
        until = time.monotonic() + self._idle_seconds
        with self._changed:
            while not self._is_closed:
                for run in self._runs:
                    index = run.take(number, self._homes, self._idle)
                    if index is not None:
                        self._busy[number] = run
                        return run, index
                self._runs = [run for run in self._runs if run.waiting]
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._idle.add(number)
                self._changed.wait(left)
                self._idle.discard(number)
            self._leave(number)  # before anybody counts on this thread
            return None

    def _apply(self, number: int, process: WorkerProcess, run: Run, index: int) -> WorkerProcess:
        """Run an item, and return the process, or the one that replaces it."""
        try:
            item = run.item(index)
        except Exception as error:  # noqa: BLE001  # it cannot be sent: whatever its own methods raise
            self._finish(number, run, index, Failure(error, ""))
            return process
        try:
            outcome: Returned | Failure = process.apply(run.number, run.function, item, run.surroundings)
        except EndedError as how:
            process.close()
            if not self._is_closed and not run.is_cancelled:
                logger.warning("a worker process ended: %s; its item runs again in another", how)
            self._lose(number, run, index, str(how))
        except Exception as error:  # noqa: BLE001  # a reply that cannot be read here
            process.close()
            self._finish(number, run, index, Failure(error, ""))
        else:
            self._finish(number, run, index, outcome)
            return process
        return process if self._is_closed else self._started(number)

    def _finish(self, number: int, run: Run, index: int, outcome: Returned | Failure) -> None:
        with self._changed:
            del self._busy[number]
            run.finish(index, outcome)

    def _lose(self, number: int, run: Run, index: int, how: str) -> None:
        with self._changed:
            del self._busy[number]
            self._processes.pop(number, None)
            run.lose(index, how)
            if run.waiting and run not in self._runs:
                self._runs.append(run)
            self._changed.notify_all()
