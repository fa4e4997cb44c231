"""Keras in this process: which backend it has, how a network is built, and rows that pad a batch.

A network of Keras runs on one backend a process: PyTorch, JAX or TensorFlow. The environment variable KERAS_BACKEND
chooses it when Keras is imported, so ranks and tasks of Spark import it with the driver's.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sparkopt.deep.randomness import seeded
from sparkopt.errors import IncompatibleError, MissingDependencyError, ParameterError

__all__ = ["BACKENDS", "Padding", "built", "config_of", "is_of_keras", "keras_on"]

BACKENDS = ("torch", "jax", "tensorflow")
_LOCK = threading.RLock()


def keras_on(backend: str | None = None) -> Any:
    """Return the package keras, imported with a backend; None is the one it has, or would choose itself.

    Raises
    ------
    IncompatibleError
        Where this process has imported it with another one.
    MissingDependencyError
        Where Keras or the backend is not installed.
    """
    with _LOCK:
        if "keras" not in sys.modules:
            return _imported(backend)
        import keras

        found = keras.backend.backend()
    if backend not in (None, found):
        raise IncompatibleError(
            f"backend={backend!r}, but this process has imported Keras on {found!r} already, and a process has one. "
            f"Set KERAS_BACKEND={backend} before Keras is imported; a new session of Spark has new processes."
        )
    return keras


def _imported(backend: str | None) -> Any:
    if importlib.util.find_spec("keras") is None:
        raise MissingDependencyError.of("sparkopt.deep.KerasEstimator", "Keras", "keras")
    before = os.environ.get("KERAS_BACKEND")
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    try:
        import keras
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent == "jax":
            raise MissingDependencyError.of("backend='jax'", "JAX", "jax") from error
        if absent == "tensorflow":
            raise MissingDependencyError.of("backend='tensorflow'", "TensorFlow", "tensorflow") from error
        raise
    finally:
        if backend is not None:
            os.environ.pop("KERAS_BACKEND")
            os.environ.update({} if before is None else {"KERAS_BACKEND": before})
    return keras


def is_of_keras(value: Any) -> bool:
    """Whether this is a layer or a model of Keras, or a module of PyTorch with one inside; Keras is not imported."""
    layer = getattr(sys.modules.get("keras"), "Layer", None)
    if layer is None:
        return False
    inner = value.modules() if isinstance(value, torch.nn.Module) else (value,)
    return any(isinstance(one, layer) for one in inner)


def config_of(value: Any) -> dict[str, Any]:
    """Return the settings of an object of Keras, without the warnings of its own use of NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found: dict[str, Any] = value.get_config()
    return found


def built(build: Callable[[], Any], seed: int) -> Any:
    """Return the model that a function builds, with Python's, NumPy's and PyTorch's generators seeded for it.

    Raises
    ------
    ParameterError
        Where it builds something else.
    """
    import keras

    with _LOCK, seeded(seed, torch.device("cpu")):
        before = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            model = build()
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
    if not isinstance(model, keras.Model):
        raise ParameterError(f"module must build a keras.Model. It builds a {type(model).__name__}.")
    return model


class Padding:
    """Keeps rows that pad a batch out of batch normalisation: its layers see them as masked.

    Parameters
    ----------
    model : keras.Model
        Built; its layers of batch normalisation are changed.

    Attributes
    ----------
    refusal : IncompatibleError or None
        Why it could not: Keras adds lines of its own to an error.
    """

    def __init__(self, model: Any) -> None:
        import keras

        self._counts: Any = None
        self.refusal: IncompatibleError | None = None
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.call = self._masked(layer, layer.call)

    @contextmanager
    def rows(self, counts: Any) -> Iterator[None]:
        """Say which rows count, a boolean tensor (rows,), while a model is called for training."""
        self._counts = counts
        try:
            yield
        finally:
            self._counts = None

    def _masked(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        from keras import ops

        def masked(inputs: Any, training: Any = None, mask: Any = None) -> Any:
            if self._counts is None or not training:
                return call(inputs, training=training, mask=mask)
            rows = self._counts.shape[0]
            if tuple(inputs.shape[:1]) != (rows,):
                self.refusal = IncompatibleError(
                    f"batch normalisation {layer.name!r} is given {tuple(inputs.shape)} of {rows} rows, so "
                    "rows that pad a batch cannot be told from the others. Take backend='torch', which pads none, or "
                    "another normalisation."
                )
                raise self.refusal
            counts = ops.reshape(self._counts, (rows, *[1] * (len(inputs.shape) - 2)))
            counts = ops.broadcast_to(counts, inputs.shape[:-1])
            return call(inputs, training=training, mask=counts if mask is None else ops.logical_and(mask, counts))

        return masked
