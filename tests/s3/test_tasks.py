"""Tasks on Spark reach the store that only the session knows: no key is in their environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyspark
import pytest

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SHADES = [30, 200] * 4


@pytest.fixture(scope="module")
def ran():
    """What the client reports, once."""
    return {}


@pytest.fixture
def found(store, ran):
    """What a process with executors of its own reports of a store that it knows by its session's settings."""
    if not ran:
        for number, shade in enumerate(SHADES):
            content = cv2.imencode(".png", np.full((6, 5), shade, np.uint8))[1].tobytes()
            with store.direct.open_output_stream(f"bucket/pictures/größe {number}.png") as stream:
                stream.write(content)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        environment = {**kept, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.s3.tasks_client", f"http://127.0.0.1:{store.port}"]
        environment |= {"AWS_EC2_METADATA_DISABLED": "true", "SPARK_LOCAL_IP": "127.0.0.1"}
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr[-3000:]
        assert "hidden" not in done.stderr + done.stdout
        ran |= json.loads(lines[0].removeprefix("RESULT ")) | {"left": store.files()}
    return ran


def test_columns_of_paths(found):
    pictures = found["pictures"]
    np.testing.assert_allclose(pictures["udf"], np.array(SHADES) / 255, atol=1e-6)
    assert pictures["stage"] == pictures["udf"]
    assert pictures["missing"].startswith("unreadable: ")


@pytest.mark.parametrize("launcher", ["local", "torch"])
def test_networks_keep_rows_and_checkpoints_there(found, launcher):
    outcome = found[launcher]
    calm, resumed = outcome["losses"]
    assert "Interrupt" in outcome["stopped"]
    assert resumed == calm
    assert outcome["resumed"].startswith("epoch-")
    assert len(found[f"pictures, {launcher}"]) == len(SHADES)


def test_no_rows_are_left(found):
    assert [key for key in found["left"] if key.startswith(("rows/", "images/"))] == []
