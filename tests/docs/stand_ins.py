"""What stands in for the places and machines that examples name, when the tests run them. Nothing else is changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

DOCSTRINGS = {'"photos"': '"{folder}/photos"', '"/data/rows-of-two-fits"': '"{folder}/rows-of-two-fits"'}
"""In docstrings: text, and what is run instead; ``{folder}`` is a folder of the test."""

PAGES: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        '"photos"': '"{folder}/photos"',
        '"/models/churn"': '"{folder}/churn"',
        '"s3://models/churn"': '"{folder}/checkpoints/churn"',
        '"s3://models/digits"': '"{folder}/checkpoints/digits"',
        'launcher="horovod"': 'launcher="local"',  # Horovod's own tests are in tests/deep
        "numProc=2": "numProc=1",
        "epochs=8": "epochs=1",
    },
    "docs/getting-started/own-table.md": {'"/data/rows"': '"{folder}/rows"', '"/models/churn"': '"{folder}/churn"'},
    "docs/guides/csv-to-scores.md": {'"/data/': '"{folder}/', '"/models/left"': '"{folder}/left"'},
    "docs/guides/images.md": {'"photos"': '"{folder}/photos"'},
    "docs/guides/jobs.md": {'"/data/': '"{folder}/data/', '"/models/': '"{folder}/models/'},
    "docs/guides/networks.md": {
        'launcher="horovod"': 'launcher="local"',
        "numProc=2": "numProc=1",
        '"s3://models/digits"': '"{folder}/checkpoints"',
        '"/models/digits"': '"{folder}/digits"',
        '"/data/': '"{folder}/data/',
    },
    "docs/guides/online.md": {'"/models/': '"{folder}/', '"/data/': '"{folder}/'},
    "docs/guides/own-loop.md": {"numProc=2": 'launcher="local"', '"s3://models/own"': '"{folder}/own"'},
    "docs/guides/nightly.md": {
        '"s3://models/churn"': '"{folder}/checkpoints"',
        '"/data/': '"{folder}/data/',
        '"/models/': '"{folder}/models/',
    },
    "docs/guides/searches.md": {'"/models/': '"{folder}/'},
    "docs/migration/horovod-spark.md": {
        "HorovodLauncher(spark.sparkContext, 2)": "LocalLauncher()",
        'launcher="horovod"': 'launcher="local"',
        "numProc=2": "numProc=1",
    },
    "docs/migration/orca.md": {'launcher="torch"': 'launcher="local"', "numProc=2": "numProc=1"},
    "docs/one-machine.md": {'"/data/': '"{folder}/'},
    "docs/reference/codecs.md": {'"/data/small"': '"{folder}/small"'},
}
"""The same by page."""


def require_onnx(code: str) -> None:
    """Skip a test of code with models of ONNX where its packages, an extra, are not installed."""
    if "toOnnx(" in code or "OnnxModel(" in code:
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")


def stood_in(code: str, table: Mapping[str, str], folder: Path) -> str:
    """Return the code as it is run."""
    for text, instead in table.items():
        code = code.replace(text, instead.replace("{folder}", str(folder)))
    return code
