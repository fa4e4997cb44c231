"""Fit on a cluster of two workers behind limited links, print what was found, and stay until interrupted.

Run by test_network.py: ``fit_on_network.py PARQUET ENGINE…``; without engines it only brings one worker up.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np

from jobs.bench.network import Cluster
from sparkopt import BlockStore, Columns, Stop, Trainer, losses, optim
from sparkopt.engines.selection import by_name
from sparkopt.launch.session import session
from sparkopt.validation import Interval
from tests import jvm

CLASSES, STEPS = 20, 12


def trainer(engine: str) -> Trainer:
    return Trainer(
        losses.Multinomial(CLASSES), optim.sgd(0.5), stop=Stop(STEPS, 0.0), engine=by_name(engine), progress=False
    )


def store_of(spark, path: str) -> BlockStore:
    return BlockStore.write(
        spark.read.parquet(path), Columns("features", "label"), Interval(0, CLASSES - 1, whole=True)
    )


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    path, *engines = sys.argv[1:]
    with Cluster.up(2 if engines else 1) as cluster:
        found: dict[str, object] = {"why_not": cluster.why_not}
        if engines:
            spark = session(
                Path(__file__).parents[2] / "conf" / "local.conf", settings={**cluster.settings, **jvm.EXECUTORS}
            )
            with store_of(spark, path) as store:
                for engine in engines:
                    before = cluster.traffic()
                    fit = trainer(engine).fit(store)
                    traffic = cluster.traffic() - before
                    found[engine] = {
                        "coefficients": np.append(fit.coefficients, fit.intercept).tolist(),
                        "engine": fit.receipt.engine,
                        "sent": fit.receipt.bytes["sent"],
                        "up": traffic.up,
                        "down": traffic.down,
                    }
            # after the fits: a session is there before its executors are
            known = spark.sparkContext._jsc.sc().getExecutorMemoryStatus().keys().mkString(" ").split()
            found["hosts"] = sorted(host.rpartition(":")[0] for host in known)
        print("RESULT " + json.dumps(found), flush=True)
        time.sleep(300)


if __name__ == "__main__":
    main()
