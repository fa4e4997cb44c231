#!/usr/bin/env python
"""Measure compression of what a job communicates and stores: sums, shuffles, caches, broadcasts, Arrow and Parquet.

    python jobs/bench/transport.py --a9a FILE

Two tables. The first takes sums as partitions make them (a9a's, where its LIBSVM file is given, the digits', those of
dense and of sparse rows) through Arrow IPC with each of its codecs, and through what the package does. The second
moves 32 MB of random float64, of JPEG files and of decoded pixels through each of Spark's own channels on this
machine, with each codec that Spark has for them.
"""

from __future__ import annotations

import argparse
import gc
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse
from sklearn.datasets import load_digits, load_sample_images, load_svmlight_file

from sparkopt import losses
from sparkopt.blocks.block import Block
from sparkopt.codecs.gradient import Sparse
from sparkopt.launch.session import session
from sparkopt.objective.kernels import evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.optim.request import Gradients

MEGABYTE, RUNS, CONTENT = 1e6, 3, 32_000_000
WIDE = 1_000_000
ROOT = Path(__file__).parents[2]


def sums(a9a: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a partition's gradient at random coefficients, over the features as stored."""
    rng = np.random.default_rng(0)
    if a9a is not None:
        X, y = load_svmlight_file(str(a9a), n_features=123)
        yield "a9a, logistic", _gradient(losses.Logistic(), sparse.csr_array(X)[:8000], (y[:8000] > 0).astype(float))
    digits = load_digits()
    yield "digits, multinomial", _gradient(losses.Multinomial(10), digits.data, digits.target.astype(float))
    y = (rng.random(64) > 0.5).astype(float)
    yield "dense rows x 1,000,000", _gradient(losses.Logistic(), rng.normal(size=(64, WIDE)).astype(np.float32), y)
    columns = (WIDE * rng.random((6250, 50)) ** 3).astype(np.int32)  # as in sparse.py, a partition of 32
    rows = np.repeat(np.arange(6250), 50)
    X = sparse.csr_array((np.ones(rows.size), (rows, columns.ravel())), (6250, WIDE))
    yield "sparse rows x 1,000,000", _gradient(losses.Logistic(), X, (rng.random(6250) > 0.5).astype(float))


def _gradient(loss: losses.Loss, X: np.ndarray | sparse.csr_array, y: np.ndarray) -> np.ndarray:
    objective = LinearObjective(loss, X.shape[1])
    coef = 0.01 * np.random.default_rng(1).normal(size=(1, objective.size))
    cuts = np.array_split(np.arange(len(y)), 4)  # several blocks: sums of float32 blocks are float64
    blocks = [Block(X[rows], y[rows]) for rows in cuts]
    return evaluate([objective], Query(Gradients(coef), feature_coordinates=True), blocks).gradient[0]


def through_arrow(codec: str | None) -> tuple[Callable, Callable]:
    """Return functions that encode a vector as an Arrow IPC stream of one column, and decode it."""
    options = pa.ipc.IpcWriteOptions(compression=codec)

    def encode(vector: np.ndarray) -> pa.Buffer:
        batch = pa.record_batch([pa.array(vector)], ["sum"])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        return sink.getvalue()

    return encode, lambda data: pa.ipc.open_stream(data).read_all().column(0).to_numpy()


ENCODINGS = {
    "pickled array": (lambda vector: pickle.dumps(vector, 5), pickle.loads),
    "Arrow IPC": through_arrow(None),
    "Arrow IPC, lz4": through_arrow("lz4"),
    "Arrow IPC, zstd": through_arrow("zstd"),
    "without zeros": (Sparse().pack, Sparse().decode),
}


def compare_sums(a9a: Path | None) -> None:
    """Print the first table."""
    print("\n| sum | KB | encoded as | smaller by | encode and decode, ms | pays below, MB/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, vector in sums(a9a):
        plain = 0.0
        for encoding, (encode, decode) in ENCODINGS.items():
            data = encode(vector)
            np.testing.assert_array_equal(decode(data), vector)
            seconds = median(lambda: decode(encode(vector)))  # noqa: B023
            plain = plain or seconds
            saved, spent = vector.nbytes - len(data), seconds - plain
            pays = f"{saved / spent / MEGABYTE:,.0f}" if saved > 0 and spent > 0 else "never" if saved <= 0 else "any"
            ratio = f"{vector.nbytes / len(data):.2f}x"
            print(f"| {name} | {vector.nbytes / 1e3:,.1f} | {encoding} | {ratio} | {seconds * 1e3:.3f} | {pays} |")


def median(call: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def contents(folder: Path) -> dict[str, Path]:
    """Write the contents as uncompressed Parquet files."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(CONTENT // 800, 100))
    photographs = load_sample_images().images
    crops, files = [], []
    while sum(map(len, files)) < CONTENT:
        image = photographs[len(files) % 2]
        top, left = rng.integers(0, image.shape[0] - 200), rng.integers(0, image.shape[1] - 200)
        crop = np.ascontiguousarray(image[top : top + 200, left : left + 200])
        files.append(cv2.imencode(".jpeg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        if len(crops) * crop.nbytes < CONTENT:
            crops.append(crop.tobytes())
    columns = {
        "float64 features": pa.array([row.tobytes() for row in numbers], pa.binary()),
        "JPEG files": pa.array(files, pa.binary()),
        "pixels": pa.array(crops, pa.binary()),
    }
    for name, column in columns.items():
        pq.write_table(pa.table({"value": column}), folder / f"{name}.parquet", compression="none")
    return {name: folder / f"{name}.parquet" for name in columns}


CHANNELS = ("shuffle", "shuffle.spill", "broadcast", "rdd")
CORE = {
    codec: {f"spark.{channel}.compress": str(codec != "none").lower() for channel in CHANNELS}
    | ({} if codec == "none" else {"spark.io.compression.codec": codec})
    for codec in ("none", "lz4", "zstd")
}


def compare_channels(folder: Path) -> None:
    """Print the second table."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    paths = contents(folder)
    for codec in ("none", *CORE):  # the first time round the JVM warms up; its figures are replaced
        spark = session(ROOT / "conf/local.conf", "sparkopt bench", CORE[codec])
        for name, path in paths.items():
            df = spark.read.parquet(str(path)).repartition(4).persist(StorageLevel.MEMORY_ONLY)
            df.count()
            found.setdefault((name, "shuffle"), {})[codec] = shuffle(spark, df)
            found.setdefault((name, "cache of an RDD"), {})[codec] = cache(spark, df)
            found.setdefault((name, "broadcast"), {})[codec] = broadcast(spark, path.read_bytes())
            found.setdefault((name, "Arrow to Python"), {})[codec] = arrow(spark, df, codec)
            found.setdefault((name, "Parquet"), {})[codec] = parquet(spark, df, folder / f"{name}-{codec}", codec)
            df.unpersist(blocking=True)
            cells = ", ".join(f"{channel} {by[codec]}" for (of, channel), by in found.items() if of == name)
            print(f"{name}, {codec}: {cells}", file=sys.stderr, flush=True)
        spark.stop()
        gc.collect()
    print(f"\n{CONTENT / MEGABYTE:.0f} MB, encoded MB and seconds, {RUNS} runs, medians\n")
    print(f"| content | channel | {' | '.join(CORE)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in CORE)} |")
    for (name, channel), cells in found.items():
        print(f"| {name} | {channel} | {' | '.join(cells[codec] for codec in CORE)} |")


def cell(size: float | None, seconds: float) -> str:
    """Return MB and seconds."""
    return (f"{size / MEGABYTE:.1f}, " if size is not None else "") + f"{seconds:.2f} s"


def shuffle(spark: SparkSession, df: DataFrame) -> str:
    """Repartition, and count what the map side wrote."""

    def repartition() -> None:
        df.repartition(4).write.format("noop").mode("overwrite").save()

    before = written(spark)
    repartition()
    return cell(written(spark) - before, median(repartition))


def written(spark: SparkSession) -> int:
    """Return the bytes that shuffles have written so far."""
    context = spark._jsc.sc()
    context.listenerBus().waitUntilEmpty()
    executors = context.statusStore().executorList(True)
    return sum(executors.apply(index).totalShuffleWrite() for index in range(executors.size()))


def cache(spark: SparkSession, df: DataFrame) -> str:
    """Cache rows serialized, as Python stores them."""

    def keep() -> float:
        rdd = df.rdd.map(lambda row: bytes(row[0])).persist(StorageLevel.MEMORY_ONLY)
        rdd.count()
        size = sum(info.memSize() for info in spark._jsc.sc().getRDDStorageInfo() if info.id() == rdd.id())
        rdd.unpersist(blocking=True)
        return size

    return cell(keep(), median(keep, 1))


def broadcast(spark: SparkSession, data: bytes) -> str:
    """Send bytes to the tasks."""
    context = spark.sparkContext

    def send() -> None:
        shared = context.broadcast(data)
        context.parallelize(range(2), 2).map(lambda _: len(shared.value)).collect()
        shared.destroy()

    return cell(None, median(send))


def arrow(spark: SparkSession, df: DataFrame, codec: str) -> str:
    """Send every row to Python; not by lz4, which is plain Java in the JVM: over a minute for 1 MB of pixels."""
    if codec == "lz4":
        return "not run"
    spark.conf.set("spark.sql.execution.arrow.compression.codec", codec)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([sum(batch.num_rows for batch in batches)])], ["rows"])

    return cell(None, median(lambda: df.mapInArrow(count, "rows long").collect()))


def parquet(spark: SparkSession, df: DataFrame, folder: Path, codec: str) -> str:
    """Write and read."""
    name = {"lz4": "snappy"}.get(codec, codec)  # Spark's default there

    def write_and_read() -> None:
        df.write.mode("overwrite").option("compression", name).parquet(str(folder))
        spark.read.parquet(str(folder)).write.format("noop").mode("overwrite").save()

    seconds = median(write_and_read)
    return f"{name}: " + cell(sum(file.stat().st_size for file in folder.glob("*.parquet")), seconds)


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--a9a", type=Path, help="LIBSVM file of a9a, plain or gzip")
    flags.add_argument("--only", choices=["sums", "channels"], help="one of the two tables")
    args = flags.parse_args()
    if args.only != "channels":
        compare_sums(args.a9a)
    if args.only != "sums":
        with tempfile.TemporaryDirectory() as folder:
            compare_channels(Path(folder))


if __name__ == "__main__":
    main()
