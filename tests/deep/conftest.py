"""Small networks run on one thread: more would only wait for each other."""

from __future__ import annotations

import pytest
import torch
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def without_session(monkeypatch):
    """As in a process that has started none."""

    def active():
        raise PySparkRuntimeError("there is no session")

    monkeypatch.setattr(SparkSession, "active", active)


@pytest.fixture
def no_session(monkeypatch):
    without_session(monkeypatch)
