"""The examples of docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

MODULES = [
    "cluster.devices",
    "cluster.launch.communicator",
    "cluster.launch.torch_launcher",
    "deep.estimator",
    "deep.modules",
    "deep.networks",
    "deep.powersgd",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(spark, name):
    module = importlib.import_module(f"sparkopt.{name}")
    found = doctest.testmod(module, extraglobs={"spark": spark, "np": np})
    assert found.attempted
    assert not found.failed
