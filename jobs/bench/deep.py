#!/usr/bin/env python
"""Compare training through sparkopt's launchers with a plain two-process PyTorch loop on tensors in memory.

    spark-submit --properties-file conf/local.conf jobs/bench/deep.py --data ../shared/data/mnist-10k

Images come as PNG bytes in a DataFrame, and are decoded while the network computes: in the first epoch, after which
they are cached (``cacheBytes``), or in every epoch. The plain loop has decoded images in memory. All train the same
network on equally many rows per step. Three tables, all of one run:

- seconds of an epoch, the median of all but a fit's first, the loops in turn;
- rows per second of a process's input pipeline alone, and of the network alone;
- seconds until a function has run on two connected ranks, compared with TorchDistributor.

Without MNIST's files it takes scikit-learn's digits, enlarged to 28 x 28.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import DataFrame, SparkSession

from sparkopt import images
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.networks import ConvNet
from sparkopt.launch import Communicator, HorovodLauncher, TorchLauncher
from sparkopt.launch.session import session
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store

PIPELINE = images.Compose([images.Decode("gray"), images.Rescale(1 / 255)])
CACHE = 2**28
FITS = {
    "horovod": ("horovod", CACHE),
    "torch": ("torch", CACHE),
    "horovod, decoding in every epoch": ("horovod", 0),
    "torch, decoding in every epoch": ("torch", 0),
}
"""Launcher, and bytes of decoded images that are kept."""


def load(folder: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Return a name, images (n, 28, 28) of uint8, and labels."""
    if folder.is_dir():
        pixels, labels = (
            np.frombuffer(gzip.decompress(next(folder.glob(f"*{kind}*.gz")).read_bytes()), np.uint8)[start:]
            for kind, start in (("images", 16), ("labels", 8))
        )
        return "MNIST-10k", pixels.reshape(-1, 28, 28), labels.astype(np.int64)
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    enlarged = [cv2.resize((row.reshape(8, 8) * 15).astype(np.uint8), (28, 28)) for row in small]
    return "digits", np.stack(enlarged), labels.astype(np.int64)


def frame(spark: SparkSession, pixels: np.ndarray, labels: np.ndarray) -> DataFrame:
    """Return the images as PNG."""
    png = [bytearray(cv2.imencode(".png", image)[1].tobytes()) for image in pixels]
    return spark.createDataFrame(pd.DataFrame({"content": png, "label": labels})).repartition(4).cache()


def fit(df: DataFrame, launcher: str, cache: int, epochs: int, batch_size: int) -> list[dict[str, Any]]:
    """Train through a launcher; return the history."""
    estimator = TorchEstimator(
        module=functools.partial(ConvNet, 10),
        loss="multinomial",
        optimizer="adamw",
        stepSize=3e-3,
        featuresCol="content",
        imagePipeline=PIPELINE,
        launcher=launcher,
        numProc=2,
        epochs=epochs,
        batchSize=batch_size,
        cacheBytes=cache,
    )
    estimator.progress = False
    return estimator.fit(df).summary.history


def plain(data: str, epochs: int, batch_size: int) -> list[dict[str, Any]]:
    """Run the plain loop; return its history."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("plain_ddp.py"))
    arguments = [script, data, str(epochs), str(batch_size)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        sys.exit(f"the plain loop failed:\n{done.stderr[-3000:]}")
    found = json.loads(results[0].removeprefix("RESULT "))
    return [{"seconds": seconds, "loss": found["loss"]} for seconds in found["seconds"]]


def consume(communicator: Communicator, config: TrainConfig) -> float:
    """Read an epoch's batches and discard them; return rows per second."""
    import torch

    from sparkopt.deep.data_loader import RankDataLoader

    rows = RankDataLoader(config, communicator, torch.device("cpu"))
    for epoch in range(2):  # the first time warms up
        communicator.barrier()
        begin, count = time.perf_counter(), 0
        with rows.training(epoch, 0) as batches:
            for batch in batches:
                count += batch.counted
        seconds = time.perf_counter() - begin
    return count / seconds


def pipeline_alone(spark: SparkSession, df: DataFrame, batch_size: int) -> float:
    """Return rows per second of a process, two at a time, which decode every image."""
    with tempfile.TemporaryDirectory() as folder:
        index = write_store(df, Fields.of(df.schema, "content", "label"), f"{folder}/rows")
        config = TrainConfig(index.uri, 1, batch_size, 2, pipeline=PIPELINE.to_json(), cache_bytes=0)
        return statistics.mean(TorchLauncher(spark.sparkContext, 2).run(consume, config))


def meet(communicator: Communicator) -> int:
    """Return the number of connected ranks."""
    communicator.barrier()
    return communicator.size


def meet_plainly() -> int:
    """Return the number of ranks, as a function for TorchDistributor."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    distributed.all_reduce(torch.zeros(1))
    size = distributed.get_world_size()
    distributed.destroy_process_group()
    return size


def starts(spark: SparkSession, runs: int) -> dict[str, list[float]]:
    """Return seconds of each launcher's runs, in turn."""
    context = spark.sparkContext
    launchers: dict[str, Callable[[], Any]] = {
        "torch": lambda: TorchLauncher(context, 2).run(meet),
        "horovod": lambda: HorovodLauncher(context, 2).run(meet),
        "TorchDistributor": lambda: TorchDistributor(2, local_mode=False, use_gpu=False).run(meet_plainly),
    }
    seconds: dict[str, list[float]] = {name: [] for name in launchers}
    for _ in range(runs):
        for name, launch in launchers.items():
            begin = time.perf_counter()
            launch()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def run(spark: SparkSession, args: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    name, pixels, labels = load(args.data)
    df = frame(spark, pixels, labels)
    histories: dict[str, list[list[dict[str, Any]]]] = {"plain": [], **{name: [] for name in FITS}}
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data.npz"
        np.savez(data, images=pixels, labels=labels)
        for _ in range(args.rounds):
            histories["plain"].append(plain(data, args.epochs, args.batch_size))
            for who, (launcher, cache) in FITS.items():
                histories[who].append(fit(df, launcher, cache, args.epochs, args.batch_size))
    seconds = {
        who: [statistics.median(record["seconds"] for record in history[1:]) for history in found]
        for who, found in histories.items()
    }
    print(f"\n{name}: {len(labels):,} images of 28 x 28 as PNG, 2 processes, batches of {args.batch_size} each\n")
    print("| loop | epoch s | of the plain loop's (range) | loss of the last epoch |\n| --- | --- | --- | --- |")
    for who, found in seconds.items():
        ratios = [own / other for own, other in zip(found, seconds["plain"], strict=True)]
        span = f"**{statistics.median(ratios):.2f}x** ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"| {who} | {statistics.median(found):.2f} | {span} | {histories[who][0][-1]['loss']:.3f} |")
    given, taken = pipeline_alone(spark, df, args.batch_size), len(labels) / 2 / statistics.median(seconds["plain"])
    print("\n| rows/s of a process | |\n| --- | --- |")
    print(
        f"| input pipeline alone | {given:,.0f} |\n| network alone | {taken:,.0f} |\n| ratio | {given / taken:.1f}x |"
    )
    print("\n| starting two ranks | first s | median s |\n| --- | --- | --- |")
    for who, found in starts(spark, args.starts).items():
        print(f"| {who} | {found[0]:.1f} | {statistics.median(found):.1f} |")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, default=Path("../shared/data/mnist-10k"), help="default: %(default)s")
    flags.add_argument("--epochs", type=int, default=3, help="of a fit, at least 2 (default: %(default)s)")
    flags.add_argument("--rounds", type=int, default=2, help="fits of each loop (default: %(default)s)")
    flags.add_argument("--starts", type=int, default=2, help="of each launcher (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=64, help="of a process (default: %(default)s)")
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    run(spark, args)
    spark.stop()


if __name__ == "__main__":
    main()
