"""A training whose driver is killed.   python -m tests.keras.killed FOLDER PROCESSES [MESH]

test_killed.py reads on.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time

import numpy as np

from tests.keras import networks

STEP = 13
RNG = np.random.default_rng(4)
X = RNG.normal(size=(160, 5)).astype(np.float32)
CLASSES = (X @ RNG.normal(size=(5, 3))).argmax(1)


def estimator(folder, processes, mesh="process", **options):
    """Return one with dropout, batch normalisation and Adam: ten steps an epoch on one process, five on two."""
    from sparkopt.deep import KerasEstimator

    given = {"module": functools.partial(networks.mlp, dropout=0.2, norm=True), "epochs": 4, **options}
    found = KerasEstimator(
        loss="multinomial",
        optimizer="adam",
        batchSize=16,
        numProc=processes,
        mesh=mesh,
        checkpointDir=folder,
        checkpointInterval=3,
        **given,
    )
    found.progress = False
    return found


def fitted(folder, processes, mesh="process", **options):
    """Train on a table."""
    return estimator(folder, processes, mesh, **options).fit((X, CLASSES))


def kill(progress):
    """Kill this process, once the ranks report a step."""
    if progress.record.step >= STEP:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    fitted(sys.argv[1], int(sys.argv[2]), *sys.argv[3:], callbacks=[kill])
