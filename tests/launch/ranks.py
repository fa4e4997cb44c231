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
