"""Ray on several nodes, each with its own processes and memory: placement, GPUs, and nodes that are killed."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make test-ray")


def _run(name: str, folder: Path, **variables: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.frameworks.ray_nodes", name, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=600, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def test_fits_and_scores_on_three_nodes(tmp_path: Path):
    found = _run("fit", tmp_path)
    assert found["same"]
    assert found["scores"]
    assert "nodes" in found["backend"]


def test_a_node_that_is_killed_changes_no_bit(tmp_path: Path):
    assert _run("killed", tmp_path) == {"gone": 1, "same": True, "steps": 15}


def test_each_rank_has_the_gpu_that_ray_gives(tmp_path: Path):
    ranks = _run("gpus", tmp_path)["ranks"]
    assert [rank for rank, *_ in ranks] == [0, 1, 2, 3]
    by_node: dict[str, list[Any]] = {}
    for _, node, local_rank, given, visible in ranks:
        assert given == [visible]
        by_node.setdefault(node, []).append((local_rank, visible))
    assert sorted(map(sorted, by_node.values())) == [[(0, "0"), (1, "1")]] * 2 or all(
        sorted(local for local, _ in found) == [0, 1] and sorted(one for _, one in found) == ["0", "1"]
        for found in by_node.values()
    )


def test_a_network_continues_on_another_node(tmp_path: Path):
    pytest.importorskip("torch", reason="PyTorch is not installed here")
    assert _run("network", tmp_path) == {"same": True, "restarts": 1, "gone": 1}


def test_ray_on_spark_needs_nothing_more(tmp_path: Path, jvms: None):
    pytest.importorskip("torch", reason="PyTorch is not installed here")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # Ray starts its command
    found = _run("on_spark", tmp_path, **token, PYSPARK_PYTHON=sys.executable, PATH=path)
    assert found == {"ranks": [[0, 3.0], [1, 3.0]], "same": True}
