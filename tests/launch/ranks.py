"""What ranks run in the tests: functions at module level, since they are pickled by name."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from sparkopt.errors import DataError


def collectives(communicator, start, scale=1.0):
    """Every collective once; the results in plain types."""
    rank = communicator.rank
    mine = np.array([start + rank, scale * rank])
    total = communicator.all_reduce(mine)
    counts = communicator.all_reduce(np.array([rank + 1], np.int64))
    narrow = communicator.all_reduce(np.full((2, 2), 0.5, np.float32))
    root = communicator.size - 1
    sent = communicator.broadcast(np.full(3, float(rank)), root)
    payloads = communicator.all_gather(bytes(range(3 * rank)))
    exchanged = communicator.exchange([bytes([rank, to]) * (1 + rank) for to in range(communicator.size)])
    communicator.barrier()
    communicator.report({"rank": rank, "total": total.tolist()})
    return {
        "rank": rank,
        "size": communicator.size,
        "name": communicator.name,
        "total": total.tolist(),
        "counts": counts.tolist(),
        "narrow": (narrow.dtype.name, narrow.tolist()),
        "untouched": mine.tolist(),
        "sent": sent.tolist(),
        "payloads": payloads,
        "exchanged": exchanged,
        "pid": os.getpid(),
        "batch": [int(thread) for thread in os.listdir("/proc/self/task") if _is_batch(int(thread))],
    }


def _is_batch(thread):
    return os.sched_getscheduler(thread) == os.SCHED_BATCH


def accelerators(communicator):
    """What Spark gave to the rank."""
    return communicator.info.accelerators


def resources(context):
    """What Spark gave to the rank of a run, by name."""
    return {name: list(addresses) for name, addresses in context.resources.items()}


def raise_on(communicator, rank, kind):
    """One rank fails; the others wait for it in a collective."""
    if communicator.rank == rank:
        raise {"value": ValueError, "data": DataError}[kind](f"bad row on rank {rank}")
    communicator.barrier()


def raise_while_others_sleep(communicator):
    """One rank fails; the others are busy outside any collective."""
    if communicator.rank == 0:
        raise ValueError("gone wrong")
    time.sleep(300)


def kill_rank(communicator, rank):
    """One rank is killed; the others wait for it in a collective."""
    if communicator.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    communicator.barrier()


def until_stopped(communicator, most):
    """Steps that were taken before all ranks agreed to stop."""
    for step in range(most):
        if communicator.rank == 0:
            communicator.report({"step": step})
        if communicator.all_reduce(np.array([float(communicator.stopping())]))[0]:
            return step
        time.sleep(0.02)
    return most


class DieOnce:
    """A callback that runs where the loop does: kills its rank after a step, the first time."""

    in_loop_process = True

    def __init__(self, marker, step):
        self.marker, self.step = marker, step

    def __call__(self, progress):
        if progress.record.step == self.step and not os.path.exists(self.marker):
            with open(self.marker, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


def sums(communicator, count):
    """Sums of random numbers, one after the other; every bit depends on all before it."""
    numbers = np.random.default_rng(communicator.rank).normal(size=1000)
    for _ in range(count):
        numbers = np.sin(communicator.all_reduce(numbers) + communicator.rank)
    return numbers.tolist()


def sums_with_another_key(communicator):
    """Prove once more who is there, with one key, then with a key of each rank's own."""
    from sparkopt.launch.meeting import ChannelStore, prove

    store = ChannelStore(communicator._driver, 10.0)
    prove(communicator.info, store, b"one key", 10.0)
    prove(communicator.info, store, b"key of rank %d" % communicator.rank, 10.0)


def sum_of_a_late_rank(communicator, seconds):
    """Let rank 1 come so many seconds late to a sum."""
    time.sleep(seconds * communicator.rank)
    return communicator.all_reduce(np.ones(1)).tolist()
