"""Every command on a Spark Connect server, by SPARK_REMOTE and by ``--remote``, with paths as users type them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.jobs.cli import COMMANDS
from tests.connect.conftest import ENVIRONMENT

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(900)]

CASES: dict[str, tuple[list[str], str, dict[str, object]]] = {
    "train": (
        ["--parquet", "rows.parquet", "--features", "features", "--label", "label", "--loss", "logistic"],
        "manifest.json",
        {"status": "complete"},
    ),
    "score": (["--model", "out/train", "--parquet", "rows.parquet", "--keep", "id"], "_manifest.json", {"rows": 300}),
    "evaluate": (
        ["--model", "out/train", "--parquet", "rows.parquet", "--label", "label"],
        "metrics.json",
        {"rows": 300},
    ),
    "preprocess-images": (["--input", "pictures", "--size", "8"], "_manifest.json", {"good": 20}),
    "train-deep": (
        ["--images", "pictures", "--image-size", "8", "--widths", "8,8", "--epochs", "2"],
        "receipt.json",
        {"processes": 2, "launcher": "torch"},
    ),
}
"""Flags of each command, a file of its output, and what is in that."""

NETWORK = ["--launcher", "torch", "--processes", "2", "--store-path", "shared"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and pictures; the server's own is another one."""
    folder, rng = tmp_path_factory.mktemp("commands"), np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    columns = {"id": np.arange(300), "features": list(X), "label": (X[:, 0] > X[:, 1]).astype(float)}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    for shade, name in ((30, "dark"), (220, "light")):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            picture = np.full((12, 12, 3), shade + rng.integers(0, 20), np.uint8)
            cv2.imwrite(str(folder / "pictures" / name / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def command(server: str, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command without Java, with the server in the environment or as a flag."""
    plain = {key: value for key, value in ENVIRONMENT.items() if key != "JAVA_HOME"}

    def run(name: str, *flags: str, by_flag: bool = False, refused: bool = False) -> Any:
        more, environment = (["--remote", server], plain) if by_flag else ([], {**plain, "SPARK_REMOTE": server})
        line = [sys.executable, "-m", "sparkopt.jobs.cli", name, *flags, *more]
        if refused:
            line = [sys.executable, "-m", "tests.connect.on_serverless", server, "command", name, *flags]
        return subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def test_the_table_has_every_command_that_reads_rows():
    assert set(CASES) == set(COMMANDS) - {"compare"}


@pytest.mark.parametrize("name", CASES)  # in this order: some read what others have written
def test_a_command_runs_on_connect(command, folder, name):
    flags, file, expected = CASES[name]
    flags = [*flags, *(NETWORK if name == "train-deep" else [])]
    done = command(name, *flags, "--output", f"out/{name}", by_flag=name in ("score", "preprocess-images"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "CANNOT_" not in done.stderr  # settings that the server refuses are not sent
    found = json.loads((folder / "out" / name / file).read_text())
    values = {**found, **found.get("metrics", {})}
    assert expected.items() <= values.items()


@pytest.mark.parametrize("name", CASES)
def test_a_command_runs_where_the_server_refuses_what_serverless_compute_does(command, folder, name):
    flags, file, expected = CASES[name]
    flags = [flag.replace("out/train", "serverless/train") for flag in flags]
    flags += NETWORK if name == "train-deep" else []
    done = command(name, *flags, "--output", f"serverless/{name}", refused=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    found = json.loads((folder / "serverless" / name / file).read_text())
    assert expected.items() <= {**found, **found.get("metrics", {})}.items()
    *_, refused = done.stderr.strip().splitlines()
    assert refused.startswith("REFUSED ")
    assert (name == "train") <= ("CACHE TABLE" in json.loads(refused.removeprefix("REFUSED ")))


def test_an_output_that_exists_is_one_line(command):
    flags, _, _ = CASES["score"]
    done = command("score", *flags, "--handle-invalid", "keep", "--output", "out/score")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("sparkopt score: error: out/score exists.")
    assert "Traceback" not in done.stderr


def test_the_same_run_again_has_nothing_to_do(command):
    flags, _, _ = CASES["score"]
    done = command("score", *flags, "--output", "out/score")
    assert done.stdout.startswith("nothing to do")
