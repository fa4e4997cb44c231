"""Each notebook runs from its first cell to its last, without a screen, in a process of its own.

The quickstart runs once more on Spark Connect, and all of them as they are on a server that refuses what serverless
compute refuses. A widget is set, as a job would set it, where less of the same will do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.connect.conftest import server  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("jvms")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}
"""As a notebook server would have them: two cores, loopback only, few shuffle partitions."""
RUNS = {path.stem: (path, {}) for path in NOTEBOOKS}
RUNS["deep"] = (ROOT / "notebooks/deep.ipynb", {"SPARKOPT_LAUNCHERS": "local torch"})
RUNS["quickstart on Connect"] = (ROOT / "notebooks/quickstart.ipynb", {"SPARK_REMOTE": "local[2]", "SPARK_TESTING": "1"})


@pytest.mark.parametrize(
    ("path", "settings"),
    [pytest.param(*run, id=name) for name, run in RUNS.items()],
)
def test_runs_headless(path, settings, tmp_path):
    run = executed(path, settings, tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip()


@pytest.mark.usefixtures("minutes")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_runs_where_the_server_refuses_what_serverless_compute_does(server, name, tmp_path):
    path, settings = RUNS[name]
    run = executed(path, settings, tmp_path, ["-m", "tests.connect.on_serverless", server, "cells"], seconds=1100)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip()
    assert run.stderr.strip().splitlines()[-1].startswith("REFUSED ")


def executed(
    path: Path, settings: dict[str, str], folder: Path, by: Sequence[str] = (), seconds: float = 400
) -> subprocess.CompletedProcess[str]:
    """Run a notebook's cells, by Python or by what a module of these tests puts around them."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    script = folder / f"{path.stem}.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "PYSPARK_SUBMIT_ARGS": " ".join([*(f"--conf {key}={value}" for key, value in SETTINGS.items()), "pyspark-shell"]),
        **settings,
    }
    command = [sys.executable, *by, str(script)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
