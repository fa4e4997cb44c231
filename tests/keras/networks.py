"""Networks that the tests train; Keras is imported where they are built, since its backend is chosen by then."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from sparkopt.deep import builder

TRACES: list[tuple[int, ...]] = []
"""Shapes of the batches that ``counting`` was called with: once for each trace, where steps are compiled."""


@builder
def mlp(dropout: float = 0.0, norm: bool = False):
    from keras import Input, Sequential, layers

    inner = [layers.BatchNormalization()] if norm else []
    last = [layers.Dropout(dropout, seed=7)] if dropout else []
    return Sequential([Input((5,)), layers.Dense(12, activation="tanh"), *inner, *last, layers.Dense(3)])


@builder
def cnn():
    from keras import Input, Sequential, layers

    image = [Input((6, 6, 1)), layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    return Sequential([*image, layers.GlobalAveragePooling2D(), layers.Dense(3)])


@builder
def two_inputs():
    from keras import Input, Model, layers

    user, price = Input((), dtype="int32"), Input((1,))
    joined = layers.Concatenate()([layers.Embedding(20, 4)(user), price])
    return Model([user, price], layers.Dense(1, kernel_regularizer="l2")(joined))


@builder
def unbuilt():
    """It knows the shape of its inputs once it is called."""
    from keras import Sequential, layers

    return Sequential([layers.Dense(4, activation="relu"), layers.Dense(1)])


@builder
def probable():
    from keras import Input, Sequential, layers

    return Sequential([Input((5,)), layers.Dense(3, activation="softmax")])


@builder
def counting():
    import keras

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            TRACES.append(tuple(inputs.shape))
            return inputs

    return keras.Sequential([keras.Input((5,)), Counting(), keras.layers.Dense(3)])


@builder
def adding():
    from keras import Input, Sequential, layers

    return Sequential([Input((5,)), layers.Dense(4, activity_regularizer="l2"), layers.Dense(3)])


@builder
def timed():
    """Batch normalisation of steps in time, which are no rows of the batch."""
    import keras

    class Folded(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def build(self, shape):
            self.norm.build((None, 1))

        def call(self, inputs, training=None):
            folded = self.norm(keras.ops.reshape(inputs, (-1, 1)), training=training)
            return keras.ops.reshape(folded, (-1, 5))

    return keras.Sequential([keras.Input((5,)), Folded(), keras.layers.Dense(3)])


@builder
def mortal(folder, victim):
    """As ``mlp``, but one process of JAX's kills itself once there is a checkpoint, if ``folder``/witness is not."""
    import keras

    class Mortal(keras.layers.Layer):
        def call(self, inputs, training=None):
            if training:  # what is compiled calls it once
                threading.Thread(target=_kill_itself, args=(Path(folder), victim), daemon=True).start()
            return inputs

    inner = [*mlp(dropout=0.2, norm=True).layers]
    return keras.Sequential([keras.Input((5,)), Mortal(), *inner])


def _kill_itself(folder: Path, victim: int) -> None:
    import jax

    if jax.process_index() != victim:
        return
    while not list((folder / "checkpoints").glob("epoch-00000[1-9]-*")):
        time.sleep(0.001)
    try:
        os.close(os.open(folder / "witness", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
