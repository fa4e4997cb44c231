"""Networks that the tests train; Keras is imported where they are built, since its backend is chosen by then."""

from __future__ import annotations

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
