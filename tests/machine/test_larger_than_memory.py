"""More rows than the process tree has memory."""

from __future__ import annotations

import json

import pytest

from jobs.bench import larger_than_memory


@pytest.mark.usefixtures("minutes")
def test_rows_larger_than_the_memory_of_the_tree_are_trained(tmp_path, monkeypatch):
    """2 GB of rows where the tree may have 700 MB: what Python and its libraries need is 300 MB of that."""
    rows = larger_than_memory.generate(tmp_path / "rows", 2e9)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "blocks"))
    (tmp_path / "blocks").mkdir()
    peak = larger_than_memory.train(tmp_path / "rows", 700_000_000, tmp_path)
    assert peak.allocated < 700_000_000
    assert peak.in_all is None or peak.in_all <= 700_000_000
    receipt = json.loads((tmp_path / "out" / "receipt.json").read_text())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0.75 * rows < receipt["rows"] < 0.85 * rows
    assert metrics["held_out"]["areaUnderROC"] > 0.7
    assert list((tmp_path / "blocks").iterdir()) == []
