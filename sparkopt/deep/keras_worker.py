"""What every rank of a training with Keras runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.keras_backends import keras_on
from sparkopt.deep.keras_learner import KerasLearner
from sparkopt.deep.keras_recipe import KerasRecipe
from sparkopt.deep.worker import RankResult, train
from sparkopt.launch import Communicator

__all__ = ["train_keras"]


def train_keras(communicator: Communicator, config: TrainConfig, recipe: KerasRecipe) -> RankResult:
    """Train the recipe's model on this rank's share of the store, as ``sparkopt.deep.worker.train`` does.

    Under PyTorch the device is chosen as for its own networks; JAX and TensorFlow take theirs, and batches come by
    main memory.
    """
    keras = keras_on(recipe.backend)
    if recipe.backend == "torch":
        with _on(keras, config.device, "cpu"):
            return train(communicator, config, recipe, KerasLearner)
    with _on(keras, config.device, "cpu:0"):
        result = train(communicator, replace(config, device="cpu"), recipe, KerasLearner)
    device = "cpu" if config.device == "cpu" else _device_of(recipe.backend)
    return replace(result, device=device, why=f"it is what {recipe.backend} takes by itself")


def _on(keras: Any, device: str, name: str) -> Any:
    return keras.device(name) if device == "cpu" else contextlib.nullcontext()


def _device_of(backend: str) -> str:
    """Return the backend's name of the device that it computes on."""
    if backend == "jax":
        import jax

        found = jax.devices()[0]
        return "cpu" if found.platform == "cpu" else f"{found.platform}:{found.id}"
    import tensorflow as tf

    others = [one for one in tf.config.list_logical_devices() if one.device_type != "CPU"]
    return str(others[0].name) if others else "cpu"
