#!/usr/bin/env python
"""Time epochs of networks of Keras: KerasEstimator beside plain ``model.fit`` on the same arrays and backend.

    KERAS_BACKEND=jax python jobs/bench/keras_epoch.py --rows 20000

Both train the same network with Adam and batches of 64 rows, in turn, in one process. Seconds are medians of epochs,
without a fit's first, which compiles.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, RATE = 64, 1e-3
FEATURES = 784


def perceptron() -> Any:
    """Build two hidden layers of 256."""
    from keras import Input, Sequential, layers

    hidden = [layers.Dense(256, activation="relu") for _ in range(2)]
    return Sequential([Input((FEATURES,)), *hidden, layers.Dense(10)])


def convolutional() -> Any:
    """Build a small convolutional network with dropout and batch normalisation, on images of 28 x 28."""
    from keras import Input, Sequential, layers

    image = [Input((FEATURES,)), layers.Reshape((28, 28, 1)), layers.Conv2D(8, 3, activation="relu")]
    inner = [layers.BatchNormalization(), layers.MaxPooling2D(), layers.Conv2D(16, 3, activation="relu")]
    return Sequential([*image, *inner, layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(10)])


NETWORKS: dict[str, Callable[[], Any]] = {"perceptron": perceptron, "convolutional": convolutional}


def plain(build: Callable[[], Any], X: Any, y: Any, epochs: int) -> list[float]:
    """Return seconds of each epoch of Keras's own loop."""
    import keras

    begun: list[float] = []
    mark = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begun.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: begun.append(time.perf_counter()),
    )
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss=loss)
    model.fit(X, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[mark])
    return [end - begin for begin, end in zip(begun[::2], begun[1::2], strict=True)]


def ours(build: Callable[[], Any], X: Any, y: Any, epochs: int) -> list[float]:
    """Return seconds of each epoch of KerasEstimator's, in this process."""
    from sparkopt.deep import KerasEstimator

    settings = {"optimizer": "adam", "stepSize": RATE, "batchSize": BATCH, "epochs": epochs, "seed": 1}
    estimator = KerasEstimator(module=build, loss="multinomial", launcher="local", **settings)
    estimator.progress = False
    return [record["seconds"] for record in estimator.fit((X, y)).summary.history]


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=20_000)
    flags.add_argument("--epochs", type=int, default=8)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    args = flags.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(args.rows, FEATURES)).astype(np.float32)
    y = rng.integers(0, 10, args.rows)
    print(f"\n{args.rows:,} rows, batches of {BATCH}, Keras on {os.environ['KERAS_BACKEND']}, {args.runs} runs\n")
    print("| network | KerasEstimator s | plain Keras s | times plain (range) |")
    print("| --- | --- | --- | --- |")
    for name in args.networks:
        sides = [functools.partial(side, NETWORKS[name], X, y) for side in (ours, plain)]
        found = [[statistics.median(side(args.epochs)[1:]) for side in sides] for _ in range(args.runs)]
        ratios = [own / other for own, other in found]
        own, other = (statistics.median(seconds) for seconds in zip(*found, strict=True))
        spread = f"**{statistics.median(ratios):.2f}x** ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"| {name} | {own:.2f} | {other:.2f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
