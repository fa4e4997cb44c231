"""Actors of Ray that stay: the passes of a long fit without a new task for each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from sparkopt.machine.cluster import Call, Outcome

__all__ = ["Actors", "called", "node_id"]

STAY_AFTER = 50
"""Passes by tasks before actors are started: to start them takes about as long as these passes lose."""

INLINE = 1 << 16
"""Bytes up to which a function travels with each call, instead of once through Ray's store."""


class Actors:
    """Actors on the nodes, one for each task that runs there at the same time; all fits of this process share them.

    They ask Ray for no core: those would be kept from the tasks that read rows, of this fit and of others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def _clear(self, job: str = "") -> None:
        self._job, self._passes = job, 0
        self._by_node: dict[Hashable, list[Any]] = {}
        self._starting: list[Any] = []

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[tuple[Hashable | None, list[Any]]]
    ) -> list[list[Outcome]] | None:
        """Return the outcomes of tasks, each on its node; None where Ray's own tasks have to run them.

        That is so in the first passes, until actors are ready, and where one has died.
        """
        import ray
        from pyspark.cloudpickle import dumps, loads

        if not self._are_ready(tasks):
            return None
        pickled, used, running = dumps(function), Counter[Hashable](), []
        shared = pickled if len(pickled) <= INLINE else ray.put(pickled)
        for where, items in tasks:
            running.append(self._by_node[where][used[where]].call.remote(shared, dumps(items)))
            used[where] += 1
        try:
            return [loads(outcomes) for outcomes in ray.get(running)]
        except ray.exceptions.RayActorError:
            self._end()
            return None
        except BaseException:  # an interrupt too: nothing is computed in vain
            self._end()
            raise

    def _are_ready(self, tasks: Sequence[tuple[Hashable | None, list[Any]]]) -> bool:
        """Count a pass, start the actors that it needs if it is time, and return whether all are there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        job = str(ray.get_runtime_context().get_job_id())
        with self._lock:
            if job != self._job:  # another connection
                self._clear(job)
            self._passes += 1
            if self._passes <= STAY_AFTER:
                return False
            for where, count in Counter(where for where, _ in tasks).items():
                there = self._by_node.setdefault(where, [])
                while len(there) < count:
                    strategy = NodeAffinitySchedulingStrategy(where, soft=False)
                    one = ray.remote(_Staying).options(num_cpus=0, scheduling_strategy=strategy).remote()
                    there.append(one)
                    self._starting.append(one.ready.remote())
            if self._starting:
                _, self._starting = ray.wait(self._starting, num_returns=len(self._starting), timeout=0)
            return not self._starting

    def _end(self) -> None:
        import ray

        with self._lock:
            for one in [one for there in self._by_node.values() for one in there]:
                ray.kill(one)
            self._clear(self._job)


class _Staying:
    """An actor."""

    def ready(self) -> bool:
        """Return once it is there."""
        return True

    def call(self, pickled: bytes, items: bytes) -> bytes:
        """Return the outcomes of items."""
        return called(pickled, items)


def called(pickled: bytes, items: bytes, *rows: Any) -> bytes:
    """Return the outcomes, pickled: arrays that Ray itself sends are views of its store, which nobody may change."""
    from pyspark.cloudpickle import dumps, loads

    return bytes(dumps(Call(node_id)(loads(pickled), loads(items), *rows)))


def node_id() -> str:
    """Return the node that this process is on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
