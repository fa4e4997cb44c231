"""What every rank of a training with Keras runs."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import Any

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.keras_backends import keras_on
from sparkopt.deep.keras_learner import KerasLearner
from sparkopt.deep.keras_mesh import joined_devices, mesh_of
from sparkopt.deep.keras_recipe import KerasRecipe
from sparkopt.deep.worker import RankResult, train
from sparkopt.errors import IncompatibleError
from sparkopt.launch import Communicator
from sparkopt.shards.index import Index

__all__ = ["train_keras"]


def train_keras(communicator: Communicator, config: TrainConfig, recipe: KerasRecipe) -> RankResult:
    """Train the recipe's model on this rank's share of the store, as ``sparkopt.deep.worker.train`` does.

    Under PyTorch the device is chosen as for its own networks; JAX and TensorFlow take theirs, and batches come by
    main memory.
    """
    keras = keras_on(recipe.backend)
    if recipe.backend == "torch":
        with keras.device("cpu") if config.device == "cpu" else contextlib.nullcontext():
            return train(communicator, config, recipe, KerasLearner)
    run = _on_jax if recipe.backend == "jax" else _on_tensorflow
    result = run(keras, communicator, replace(config, device="cpu"), recipe, config.device == "cpu")
    return replace(result, why=f"it is what {recipe.backend} takes by itself")


def _on_jax(
    keras: Any, communicator: Communicator, config: TrainConfig, recipe: KerasRecipe, is_cpu: bool
) -> RankResult:
    import jax

    is_joined = recipe.is_joined(communicator.size)
    if is_joined or communicator.size == 1 or config.outer_optimizer is not None:
        config = _reading_between_steps(config)
    with joined_devices(communicator) if is_joined else contextlib.nullcontext():
        mesh = mesh_of(communicator.info, "cpu" if is_cpu else None, is_joined)
        learner = functools.partial(KerasLearner, mesh=mesh)
        first = jax.local_devices(backend="cpu" if is_cpu else None)[0]
        with keras.device(first) if is_cpu else contextlib.nullcontext():
            result = train(communicator, config, recipe, learner)
        name = "cpu" if first.platform == "cpu" else f"{first.platform}:{first.id}"
        return replace(result, device=name if mesh is None else mesh.name)


def _reading_between_steps(config: TrainConfig) -> TrainConfig:
    """Return the settings without a thread that reads, for steps that are computed on JAX's threads.

    JAX returns before it has computed a step, so the next batch is read meanwhile; a thread of ours would contend
    with it for cores. Images are decoded ahead all the same, remote files are read ahead, and so are rows where a
    step waits for numbers of its own.
    """
    is_slow = config.pipeline is not None or not Index.load(config.store).location.is_local
    return config if is_slow or config.max_norm is not None else replace(config, prefetch=0)


def _on_tensorflow(
    keras: Any, communicator: Communicator, config: TrainConfig, recipe: KerasRecipe, is_cpu: bool
) -> RankResult:
    import tensorflow as tf

    every = tf.config.list_logical_devices()
    found = [one.name for one in every if one.device_type != "CPU" and not is_cpu] or [one.name for one in every]
    if len(found) > 1:
        raise IncompatibleError(
            f"TensorFlow shows {len(found)} devices to this process, of which KerasEstimator would leave all but one "
            "idle. Show it one (CUDA_VISIBLE_DEVICES, tf.config.set_visible_devices), or take backend='jax', which "
            "divides batches over them."
        )
    with keras.device("cpu:0") if is_cpu else contextlib.nullcontext():
        result = train(communicator, config, recipe, KerasLearner)
    return replace(result, device="cpu" if is_cpu or "CPU" in found[0] else str(found[0]))
