"""Keras is in an environment of its own, one process a backend: `make test-keras`."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session")
def keras():
    """Keras on the backend that KERAS_BACKEND names."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed here: make test-keras")
    import keras

    return keras


@pytest.fixture(scope="session")
def backend(keras):
    return keras.backend.backend()
