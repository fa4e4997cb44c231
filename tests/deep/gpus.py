"""On one executor with two made-up GPUs: what ranks are given. Run by test_gpus.py; prints one line of JSON."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import torch
from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

from sparkopt.deep import TorchEstimator
from sparkopt.errors import ParameterError
from sparkopt.launch import HorovodLauncher, TorchLauncher, run
from sparkopt.launch.session import read_profile, session
from tests.launch import ranks

ROOT = Path(__file__).parents[2]


def main() -> None:
    script, by_task, *launchers = sys.argv[1:]
    profile = {key: value for key, value in read_profile(ROOT / "conf" / "gpu.conf").items() if "resource" in key}
    settings = {
        **profile,
        "spark.worker.resource.gpu.amount": "2",
        "spark.worker.resource.gpu.discoveryScript": script,
        "spark.executor.resource.gpu.amount": "2",
        "spark.executor.resource.gpu.discoveryScript": script,
        "spark.task.resource.gpu.amount": by_task,
        "spark.master": "local-cluster[1,2,1024]",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2.properties",
    }
    chips = Path(script).with_name("tpus.sh")
    chips.write_text(Path(script).read_text().replace('"gpu"', '"tpu"').replace('"0", "1"', '"4", "5"'))
    chips.chmod(0o755)
    for part in ("worker", "executor"):
        settings |= {
            f"spark.{part}.resource.tpu.amount": "2",
            f"spark.{part}.resource.tpu.discoveryScript": str(chips),
        }
    if by_task == "0":
        del settings["spark.task.resource.gpu.amount"]
    spark = session(ROOT / "conf" / "local.conf", settings=settings)
    context = spark.sparkContext
    kinds = {"torch": TorchLauncher, "horovod": HorovodLauncher}
    found = {name: kinds[name](context, 2).run(ranks.accelerators) for name in launchers}
    found["tpu"] = [given.get("tpu") for given in run(ranks.resources, numProc=2, resource="tpu", session=spark)]
    try:
        run(ranks.resources, numProc=1, resource="npu", session=spark)
    except ParameterError as error:
        found["npu"] = str(error)
    asked = ResourceProfileBuilder().require(TaskResourceRequests().resource("gpu", 2)).build
    found["both"] = TorchLauncher(context, 1, profile=asked).run(ranks.accelerators)
    try:
        TorchLauncher(context, 2, profile=asked, start_timeout=0.5).run(ranks.accelerators)
    except ParameterError as error:
        found["too many"] = str(error)
    df = spark.createDataFrame([([1.0], 2.0), ([2.0], 1.0)], "features array<float>, label double")
    try:
        TorchEstimator(module=functools.partial(torch.nn.Linear, 1, 1), device="cuda", numProc=2).fit(df)
    except ParameterError as error:
        found["error"] = str(error)
    print("RESULT " + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main()
