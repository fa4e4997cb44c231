"""A mesh of all ranks in the tasks of two executors, two virtual devices each.   python -m tests.keras.tasks FOLDER

test_spark.py reads what is printed: trained without a loss, and with a rank that kills itself once.
"""

from __future__ import annotations

import functools
import json
import sys
import zlib
from pathlib import Path

from sparkopt.launch.session import session
from tests import jvm
from tests.keras import networks
from tests.keras.killed import CLASSES, X, estimator

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "spark.master": "local-cluster[2,1,1024]",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    **jvm.EXECUTORS,
    "spark.executorEnv.XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2.properties",
}


def main() -> None:
    folder = Path(sys.argv[1])
    spark = session(ROOT / "conf" / "local.conf", settings=SETTINGS)
    rows = [(row.tolist(), int(label)) for row, label in zip(X, CLASSES, strict=True)]
    df = spark.createDataFrame(
        rows, "features array<float>, label int"
    )  # in two partitions, of the same rows each time
    facts = {}
    for name in ("process", "ranks", "calm", "killed"):
        own = folder / name
        own.mkdir()
        if name == "calm":
            (own / "witness").touch()
        is_mortal = name in ("calm", "killed")
        module = functools.partial(networks.mortal, str(own), 0) if is_mortal else networks.mlp
        mesh, epochs = ("ranks", 12) if is_mortal else (name, 2)
        options = {"module": module, "epochs": epochs, "maxRestarts": int(is_mortal), "storePath": str(own / "rows")}
        model = estimator(str(own / "checkpoints"), 2, mesh, backend="jax", **options).fit(df)
        receipt = model.summary.receipt
        facts[name] = {
            "losses": model.summary.objectiveHistory,
            "weights": zlib.crc32(model.weights),
            **{key: getattr(receipt, key) for key in ("devices", "sent", "restarts", "resumed")},
        }
    print("RESULT " + json.dumps(facts))
    spark.stop()


if __name__ == "__main__":
    main()
