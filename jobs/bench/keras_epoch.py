#!/usr/bin/env python
"""Time epochs of networks of Keras: KerasEstimator beside plain ``model.fit`` on the same arrays and backend.

    KERAS_BACKEND=jax python jobs/bench/keras_epoch.py --rows 20000

Both train the same network with Adam and batches of 64 rows, in turn, in one process. Seconds, and those of all its
threads on processors, are medians of epochs, without a fit's first, which compiles. On a machine that has other work
to do the processors' seconds say more.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparkopt.deep import Logger

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


Seconds = list[tuple[float, float]]
"""Of epochs after the first: on the clock, and on processors."""


def now() -> tuple[float, float]:
    """Return seconds of the clock, and of this process on processors."""
    return time.perf_counter(), time.process_time()


def between(marks: list[tuple[float, float]]) -> Seconds:
    """Return what lies between the ends of epochs."""
    return [(end[0] - begin[0], end[1] - begin[1]) for begin, end in itertools.pairwise(marks)]


class Ends(Logger):
    """Notes the ends of epochs."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def open(self) -> None:
        """Do nothing."""

    def log(self, opened: None, values: Mapping[str, float], step: int) -> None:
        """Note the end of an epoch."""
        if "rate" in values:
            self.marks.append(now())

    def close(self, opened: None) -> None:
        """Do nothing."""


def plain(build: Callable[[], Any], X: Any, y: Any, epochs: int) -> Seconds:
    """Return seconds of Keras's own loop."""
    import keras

    marks: list[tuple[float, float]] = []
    mark = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: marks.append(now()))
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss=loss)
    model.fit(X, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[mark])
    return between(marks)


def ours(build: Callable[[], Any], X: Any, y: Any, epochs: int) -> Seconds:
    """Return seconds of KerasEstimator's, in this process."""
    from sparkopt.deep import KerasEstimator

    ends = Ends()
    settings = {"optimizer": "adam", "stepSize": RATE, "batchSize": BATCH, "epochs": epochs, "seed": 1}
    estimator = KerasEstimator(module=build, loss="multinomial", launcher="local", loggers=[ends], **settings)
    estimator.progress = False
    estimator.fit((X, y))
    return between(ends.marks)


def spread(ratios: Any) -> str:
    """Return the median of ratios, and their range."""
    return f"**{np.median(ratios):.2f}x** ({min(ratios):.2f}-{max(ratios):.2f})"


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
    print("| network | KerasEstimator s | plain Keras s | times plain (range) | on processors (range) |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.networks:
        sides = [functools.partial(side, NETWORKS[name], X, y) for side in (ours, plain)]
        found = np.array([[np.median(side(args.epochs), 0) for side in sides] for _ in range(args.runs)])
        own, other = np.median(found[:, :, 0], 0)
        clock, processors = (spread(found[:, 0, kind] / found[:, 1, kind]) for kind in (0, 1))
        print(f"| {name} | {own:.2f} | {other:.2f} | {clock} | {processors} |", flush=True)


if __name__ == "__main__":
    main()
