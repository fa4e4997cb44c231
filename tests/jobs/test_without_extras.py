"""Commands where only the core is installed: --help works, and a run names the extra that it needs, before Spark."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sparkopt.jobs.cli import COMMANDS

OPTIONAL = [
    "cv2", "torch", "safetensors", "torchmetrics", "tensorboard", "matplotlib", "yaml", "mlflow", "imagecodecs",
    "soundfile", "sklearn", "grpc", "grpc_status", "zstandard", "google",
]  # fmt: skip
"""Modules of all extras."""

IMAGES = ["--images", "photos", "--output", "out"]
MODEL = ["--model", "m", *IMAGES]
NEEDS = {
    "train": (["train", *IMAGES], "cv2", "images"),
    "train --config": (["train", "--config", "job.yaml", "--parquet", "rows"], "yaml", "yaml"),
    "train-deep without OpenCV": (["train-deep", *IMAGES], "cv2", "images"),
    "train-deep with nothing": (["train-deep", *IMAGES], "cv2 torch", "deep"),
    "train-deep without PyTorch": (["train-deep", *IMAGES], "torch", "deep"),
    "train-deep without safetensors": (["train-deep", *IMAGES], "safetensors", "deep"),
    "preprocess-images": (["preprocess-images", "--input", "photos", "--output", "out"], "cv2", "images"),
    "score": (["score", *MODEL], "cv2", "images"),
    "evaluate": (["evaluate", *MODEL], "cv2", "images"),
}
"""A command line, the modules that are not there, and the extra that has them."""

CHILD = """
import contextlib, importlib.machinery, io, json, sys
absent, lines = json.loads(sys.argv[1])

class Finder(importlib.machinery.PathFinder):  # as if these modules were not installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in absent else super().find_spec(name, path, target)

sys.meta_path = [Finder if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
from sparkopt.jobs.cli import main
found = []
for line in lines:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(line)
        except SystemExit as end:
            code = end.code
    found.append((code, out.getvalue(), err.getvalue()))
if "pyspark" in sys.modules:
    from pyspark import SparkContext
    assert SparkContext._gateway is None, "a JVM was started"
print(json.dumps(found))
"""


def run(absent: list[str], lines: list[list[str]], folder) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each command line, in a process without these modules."""
    code = [sys.executable, "-c", CHILD, json.dumps([absent, lines])]
    done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All cases' results; cases that lack the same modules share a process."""
    folder, found = tmp_path_factory.mktemp("work"), {}
    (folder / "job.yaml").write_text("max_iter: 3\n")
    helps = [[name, "--help"] for name in COMMANDS]
    found.update(zip(COMMANDS, run(OPTIONAL, helps, folder), strict=True))
    for modules in {modules for _, modules, _ in NEEDS.values()}:
        cases = {case: line for case, (line, absent, _) in NEEDS.items() if absent == modules}
        results = run(modules.split(), list(cases.values()), folder)
        found.update(zip([f"needs {case}" for case in cases], results, strict=True))
    assert [path.name for path in folder.iterdir()] == ["job.yaml"]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_extra(command, ran):
    code, out, err = ran[command]
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: sparkopt {command} ")


@pytest.mark.parametrize("case", NEEDS)
def test_one_line_names_the_extra_before_spark_starts(case, ran):
    extra, (code, out, err) = NEEDS[case][2], ran[f"needs {case}"]
    assert (code, out) == (1, "")
    (said,) = err.splitlines()
    assert "which is not installed" in said
    assert f"extra {extra!r}" in said
