"""Fixtures of these tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A real MLflow with a store of its own."""
    found = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = found.get_tracking_uri()
    found.set_tracking_uri((tmp_path / "runs").as_uri())
    found.set_experiment("fits")
    yield found
    found.set_tracking_uri(before)
