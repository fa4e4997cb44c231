"""On one kind of cluster: fit, score, search and train networks with every engine, and say what each did.

Run by test_every_cluster.py: ``every_cluster.py MASTER FOLDER SETTINGS``, which is JSON; prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path

from jobs.bench.network import Cluster
from sparkopt.engines.selection import ENGINES
from sparkopt.launch.session import session
from tests import jvm
from tests.connect.connect_data import dense, fitted, outcome, searched, trained


def main(master: str, folder: str, given: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    with ExitStack() as resources:
        settings = {"spark.master": master}
        if master == "standalone":
            settings = resources.enter_context(Cluster.up(2, loopback=True)).settings
        memory = {"spark.executor.memory": "1g", "spark.driver.memory": "1g"}
        profile = Path(__file__).parents[2] / "conf" / "local.conf"
        spark = session(profile, settings={**memory, **jvm.EXECUTORS, **settings, **json.loads(given)})
        df = dense(spark, 2)
        found = {
            "fits": {engine: outcome(lambda engine=engine: fitted(engine, df)) for engine in ENGINES},
            "searches": {engine: outcome(lambda engine=engine: searched(spark, engine)) for engine in ENGINES},
            "networks": {
                "torch": outcome(lambda: trained(df, folder)),
                "local": outcome(lambda: trained(df, folder, launcher="local", numProc=1)),
            },
        }
        print("RESULT " + json.dumps(found))
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
