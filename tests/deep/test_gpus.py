"""GPUs by Spark's resource scheduling: addresses from a discovery script of ours, on machines without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from sparkopt.errors import ParameterError
from sparkopt.launch.devices import check_request, choose
from tests.tiers import needs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "conf" / "gpus.py"


def discovered(**environment: str) -> dict:
    found = subprocess.run([str(SCRIPT)], env={**os.environ, **environment}, capture_output=True, check=True)
    return json.loads(found.stdout)


def test_the_discovery_script_tells_spark(tmp_path):
    assert discovered(CUDA_VISIBLE_DEVICES="4,6") == {"name": "gpu", "addresses": ["0", "1"]}
    assert discovered(CUDA_VISIBLE_DEVICES="")["addresses"] == []
    path = f"{tmp_path}:{os.environ['PATH']}"
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    for name, output in (
        ("rocm-smi", "GPU[0]\\t\\t: Device ID: 0x740f\\nGPU[1]\\t: Device ID: 0x740f"),
        ("nvidia-smi", "0\\n1\\n2"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{output}\\n'\n")
        (tmp_path / name).chmod(0o755)
        assert discovered(PATH=path)["addresses"] == [str(n) for n in range(output.count("\\n") + 1)]


@pytest.mark.usefixtures("jvms")
@pytest.mark.parametrize(
    ("by_task", "launchers"),
    [
        ("1", ["torch"]),
        pytest.param("1", ["horovod"], marks=needs("horovod")),
        ("0", ["torch"]),
    ],
)
def test_each_rank_gets_its_own(tmp_path, by_task, launchers):
    """By the session's settings for both launchers, and by a profile of the stage; without a CUDA build, an error."""
    script = tmp_path / "gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0", "1"]}\'\n')
    script.chmod(0o755)
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.deep.gpus", str(script), by_task, *launchers]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    for name in launchers:
        assert sorted(found[name]) == ([["0"], ["1"]] if by_task == "1" else [[], []]), name
    assert sorted(found["tpu"]) == [["4"], ["5"]]
    assert "spark.executor.resource.npu.amount is 0" in found["npu"]
    assert found["both"] == [["0", "1"]]
    assert "Spark has room for 1 with 2 gpu each" in found["too many"]
    assert "Spark offered this task GPU " in found["error"]
    assert "this PyTorch is built without CUDA" in found["error"]


SETTINGS = {
    "local mode": ("cuda", {"spark.master": "local[4]"}, False, 0),
    "given to tasks": ("cuda", {"spark.task.resource.gpu.amount": "1"}, False, 0),
    "by stage": ("cuda", {"spark.executor.resource.gpu.amount": "4"}, True, 1),
    "by stage, on its own": ("auto", {"spark.executor.resource.gpu.amount": "4"}, True, 1),
    "no stage": ("auto", {"spark.executor.resource.gpu.amount": "4"}, False, 0),
    "none": ("auto", {}, True, 0),
    "cpu": ("cpu", {"spark.executor.resource.gpu.amount": "4"}, True, 0),
}


@pytest.mark.parametrize(("kind", "settings", "by_stage", "gpus"), SETTINGS.values(), ids=SETTINGS)
def test_who_asks_for_gpus(kind, settings, by_stage, gpus):
    assert check_request(kind, {"spark.master": "yarn", **settings}, by_stage) == gpus


def test_a_gpu_that_no_task_gets_is_refused():
    settings = {"spark.master": "yarn", "spark.executor.resource.gpu.amount": "2"}
    with pytest.raises(ParameterError, match=r"spark.executor.resource.gpu.amount is 2. Start Spark with conf/gpu.c"):
        check_request("cuda", settings)


def test_an_idle_gpu_is_reported():
    device, why = choose("auto", ("3",))
    assert device != "cpu" or why.endswith("though Spark gave GPU 3 to this task")
