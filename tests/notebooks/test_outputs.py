"""The outputs that are committed with the notebooks: of every cell, small, and nothing from standard error."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 200 << 10
"""Bytes of a notebook, at most."""
KINDS = {"text/plain", "text/html", "image/png", "image/jpeg"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_small_and_quiet(path):
    assert path.stat().st_size <= LARGEST, "python .ci/notebooks.py writes small outputs"
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} <= {"stdout"}
    assert {kind for output in outputs for kind in output.get("data", {})} <= KINDS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_were_run_in_order(path):
    """In one fresh kernel, from the first to the last: python .ci/notebooks.py does so."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    printing = [cell for cell in cells if "print(" in "".join(cell["source"]) or ".show(" in "".join(cell["source"])]
    assert all(cell["outputs"] for cell in printing if "def " not in "".join(cell["source"]))
