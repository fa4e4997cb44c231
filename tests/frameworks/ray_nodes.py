"""Ray on several nodes of this machine, of which one may be killed: what ``test_ray_nodes`` runs in another process.

``python -m tests.frameworks.ray_nodes NAME FOLDER`` prints what the function of that name returns, as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, PARTS, columns, here

Row = dict[str, Any]


def cluster_of(workers: int, **resources: int) -> tuple[Any, list[Any]]:
    """Start a node for the driver, which computes nothing, and others; return the cluster and these."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    _added(cluster, num_cpus=0, include_dashboard=False)
    nodes = [_added(cluster, **({"num_cpus": 1} | resources)) for _ in range(workers)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    return cluster, nodes


def _added(cluster: Any, **arguments: Any) -> Any:
    """Add a node; Ray gives each 30 seconds to start, which a machine in other use may not keep to."""
    for attempt in range(4):
        try:
            return cluster.add_node(**arguments)
        except Exception as error:  # Ray raises no other
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
    raise AssertionError


def frame(kind: str) -> Any:
    """A dataset whose blocks were made by tasks, so that they are on the nodes that ran them."""
    import ray

    rows = columns(kind)
    size = len(rows) // PARTS
    parts = [
        pa.Table.from_pandas(rows.iloc[start : start + size], preserve_index=False)
        for start in range(0, len(rows), size)
    ]
    return ray.data.from_arrow(parts).map_batches(_same, batch_format="pyarrow")


def _same(batch: pa.Table) -> pa.Table:
    time.sleep(0.2)  # so that one node does not do all of it
    return batch


def _fit(rows: Any, callback: Any = None) -> Any:
    callbacks = [] if callback is None else [callback]
    estimator = LogisticRegression(
        featuresCols=NAMES, optimizer="lbfgs", maxIter=15, regParam=0.01, tol=0.0, callbacks=callbacks
    )
    return estimator.fit(rows)


def fit(folder: str) -> Row:
    """Train and score on three nodes."""
    cluster_of(3)
    rows = frame("columns")
    found, expected = _fit(rows), _fit(here(rows))
    scored = found.transform(rows).to_pandas().sort_values("id")
    other = expected.transform(here(rows)).to_arrow().to_pandas()
    return {
        "same": bool(np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())),
        "scores": bool(np.array_equal(scored["prediction"], other["prediction"])),
        "backend": found.summary.receipt.backend,
    }


def killed(folder: str) -> Row:
    """Kill a node in the middle of a fit."""
    cluster, nodes = cluster_of(3)
    rows = frame("columns")
    expected = _fit(here(rows))
    gone: list[Any] = []

    def kill(progress: Any) -> None:
        if progress.record.step == 5:
            gone.append(nodes[0].node_id)
            cluster.remove_node(nodes[0], allow_graceful=False)

    found = _fit(rows, kill)
    return {
        "gone": len(gone),
        "same": bool(np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())),
        "steps": found.summary.totalIterations,
    }


def gpus(folder: str) -> Row:
    """Ask for a GPU for each rank, on nodes that say they have two."""
    from sparkopt.launch import RayLauncher

    cluster_of(2, num_cpus=2, num_gpus=2)
    return {"ranks": RayLauncher(4, resources={"gpu": 1}).run(_devices)}


def on_spark(folder: str) -> Row:
    """Start Ray in a Spark session's tasks, and run ranks and a fit there."""
    import ray
    from pyspark.sql import SparkSession
    from ray.util.spark import setup_ray_cluster, shutdown_ray_cluster

    from sparkopt.launch import RayLauncher

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        setup_ray_cluster(max_worker_nodes=2, num_cpus_head_node=0)  # a core each, as local mode has it
        ray.init(log_to_driver=False, ignore_reinit_error=True)
        ranks = RayLauncher(2).run(_rank)
        rows = ray.data.from_arrow(pa.Table.from_pandas(columns("columns"), preserve_index=False))
        found, expected = _fit(rows), _fit(here(rows))
        same = np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
        shutdown_ray_cluster()
    finally:
        spark.stop()
    return {"ranks": ranks, "same": bool(same)}


def _rank(communicator: Any) -> list[float]:
    return [communicator.rank, float(communicator.all_reduce(np.array([1.0 + communicator.rank]))[0])]


def _devices(communicator: Any) -> list[Any]:
    import ray

    node = ray.get_runtime_context().get_node_id()
    info = communicator.info
    return [info.rank, node, info.local_rank, list(info.accelerators), os.environ.get("CUDA_VISIBLE_DEVICES")]


def network(folder: str) -> Row:
    """Train a network on three nodes; kill the node of a rank in the middle, and start again from the checkpoint."""
    import torch

    from sparkopt.deep import TorchEstimator
    from tests.frameworks.test_networks import Net

    cluster, nodes = cluster_of(3)
    rows = here(frame("list"))
    sgd = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)
    settings: Row = {"loss": "multinomial", "optimizer": sgd, "launcher": "ray", "numProc": 2, "epochs": 3}
    settings |= {"batchSize": 20, "seed": 5}
    expected = TorchEstimator(module=Net, **settings).fit(rows)
    note, gone = Path(folder) / "node", list[str]()

    def kill() -> None:
        while not note.exists():
            time.sleep(0.05)
        gone.append(note.read_text())
        cluster.remove_node(next(node for node in nodes if node.node_id == gone[0]), allow_graceful=False)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    kept = {"checkpointDir": str(Path(folder) / "kept"), "checkpointInterval": 4, "maxRestarts": 1}
    found = TorchEstimator(module=functools.partial(noting_net(), str(note)), **settings, **kept).fit(rows)
    receipt = found.summary.receipt
    return {"same": found.weights == expected.weights, "restarts": receipt.restarts, "gone": len(gone)}


def noting_net() -> Any:
    """Return a network whose first process that comes to step 17 notes its node, and waits there to be killed."""
    from tests.frameworks.test_networks import Net

    class Noting(Net):
        def __init__(self, note: str) -> None:
            super().__init__()
            self._note = note

        def forward(self, x: Any) -> Any:
            if self.training and self._passes == 16 and not Path(self._note).exists():
                import ray

                part = Path(f"{self._note}.{os.getpid()}")
                part.write_text(ray.get_runtime_context().get_node_id())
                part.rename(self._note)
                time.sleep(120)
            return super().forward(x)

    return Noting


if __name__ == "__main__":
    result = globals()[sys.argv[1]](sys.argv[2])
    print("RESULT", json.dumps(result), flush=True)
