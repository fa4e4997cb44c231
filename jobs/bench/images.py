#!/usr/bin/env python
"""Time image preprocessing: sparkopt on all cores against bare OpenCV on one, and against the usual pandas UDF.

    spark-submit --properties-file conf/local.conf jobs/bench/images.py

Two sets of JPEGs (quality 90) made from scikit-learn's photographs: random parts of 256 × 384 pixels, and the whole
enlarged to 3000 × 4000. The bare loops hold their bytes in memory and discard each result. sparkopt is timed in
three set-ups: on bytes that Spark reads from Parquet ("sparkopt") and on paths that Spark's workers open ("files"),
which both return every result to Spark as a column, and in two training processes as TorchEstimator feeds them
("fed"), which return no pixel to Spark. Comparisons are repeated in turn; the result is the median of the ratios.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as SF
from pyspark.sql.functions import pandas_udf
from sklearn.datasets import load_sample_images

from sparkopt import images
from sparkopt.deep.config import TrainConfig
from sparkopt.launch import Communicator, TorchLauncher
from sparkopt.launch.session import session
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from sparkopt.typing import Array

SIMPLE = images.Compose([images.Decode(), images.Resize(224, 224), images.HorizontalFlip()])
EXACT = images.Compose([images.Decode(reduced=False), images.Resize(224, 224, "area"), images.HorizontalFlip()])
TRAINING = images.Compose(
    [
        images.Decode(),
        images.RandomResizedCrop(224, 224),
        images.RandomHorizontalFlip(),
        images.ColorJitter(0.2, 0.2, 0.2),
    ]
)
WARM_UP = 3
TURNED = (images.Rotate(12), images.Resize(320, 480), images.CenterCrop(256, 256), images.HorizontalFlip())


def write_sets(folder: Path, small: int, large: int) -> dict[str, Path]:
    """Write both sets once, as Parquet of bytes, one row group for every 1/8."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    folder.mkdir(parents=True, exist_ok=True)

    def part(index: int) -> bytes:
        top, left = int(rng.integers(427 - 256)), int(rng.integers(640 - 384))
        return images.encode(photographs[index % 2][top : top + 256, left : left + 384], "jpeg", 90)

    def whole(index: int) -> bytes:
        size = (4000, 3000)
        picture = cv2.resize(photographs[index % 2], size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noise = np.random.default_rng(index).integers(-6, 7, picture.shape, np.int16)  # as a sensor has
        return images.encode(np.clip(picture + noise, 0, 255).astype(np.uint8), "jpeg", 90)

    paths = {}
    for name, count, make in (("256x384", small, part), ("3000x4000", large, whole)):
        path = folder / f"{name}-{count}"
        if not path.exists():
            contents = [make(index) for index in range(count)]
            path.mkdir()
            for index, content in enumerate(contents):
                (path / f"{index}.jpg").write_bytes(content)
            for shard in range(8):
                table = pa.table({"id": np.arange(shard, count, 8), "content": contents[shard::8]})
                pq.write_table(table, path / f"part-{shard}.parquet", compression="none")
        paths[name] = path
    return paths


def contents(path: Path) -> list[bytes]:
    """Read a set into memory."""
    return pq.read_table(sorted(path.glob("*.parquet")))["content"].to_pylist()


def bare_simple(data: bytes) -> Array:
    """Do what EXACT does with nothing but OpenCV, to the same bytes but for means of x.5."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.flip(cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA), 1)


def bare_training(data: bytes, rng: np.random.Generator) -> Array:
    """Do what TRAINING does with OpenCV, step by step."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    top, left, height, width = TRAINING.transforms[1]._part(image.shape[:2], rng)
    image = image[top : top + height, left : left + width]
    shrinks = height >= 224 and width >= 224
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    brightness, contrast, saturation = 1 + rng.uniform(-0.2, 0.2, 3)
    image = cv2.convertScaleAbs(image, alpha=brightness)
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    image = cv2.addWeighted(image, contrast, image, 0, (1 - contrast) * mean)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, saturation, gray, 1 - saturation, 0)


def usual(work: Callable[[bytes], Array]) -> Callable[[str], Column]:
    """Wrap ``work`` as tutorials do: a pandas UDF that returns a flat array for each image."""

    def apply(column: pd.Series) -> pd.Series:
        cv2.setNumThreads(1)
        return column.map(lambda data: work(data).astype(np.float32).ravel())

    apply.__annotations__ = {"column": pd.Series, "return": pd.Series}
    return pandas_udf(apply, "array<float>")  # type: ignore[call-overload]  # stubs know no such annotation


def rate(count: int, action: Callable[[], object]) -> float:
    """Images per second."""
    begin = time.perf_counter()
    action()
    return count / (time.perf_counter() - begin)


def run(df: DataFrame) -> None:
    """Compute the rows and throw them away."""
    df.write.format("noop").mode("overwrite").save()


def batches(df: DataFrame, pipeline: images.Compose) -> DataFrame:
    """Run a pipeline as ImageTransformer does, leaving only the results."""
    function = images.BatchFunction(images.ImageKernel(pipeline), "content", "x", key_column="id")
    rows = df.select("id", "content")
    return rows.mapInArrow(function, function.schema(rows.schema))


def bare_rate(name: str, path: Path) -> float:
    """Images per second of one bare loop over a set; also the work of one process among others."""
    cv2.setNumThreads(1)
    data, rng = contents(path), np.random.default_rng(0)

    def loop() -> None:
        for one in data:
            _ = bare_training(one, rng) if name == "training" else bare_simple(one)

    return rate(len(data), loop)


def bare_together(pool: ProcessPoolExecutor, cores: int, name: str, path: Path) -> float:
    """Images per second of as many bare loops at once as there are cores: they share memory and caches."""
    return sum(pool.map(bare_rate, [name] * cores, [path] * cores))


def compare(rounds: int, actions: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each in turn, after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            value = action()
            if turn:
                rates[name].append(value)
    return rates


def ratio(rates: dict[str, list[float]], first: str, second: str) -> float:
    """Median over the rounds of first / second."""
    return statistics.median(a / b for a, b in zip(rates[first], rates[second], strict=True))


def ssim(first: Array, second: Array) -> float:
    """Mean structural similarity of the luma (Wang et al., 2004, equation 13; Gaussian window, sigma 1.5)."""
    x, y = (images.functional.to_grayscale(image)[..., 0].astype(np.float64) for image in (first, second))

    def blur(values: Array) -> Array:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(similarity.mean())


def peak_memory(df: DataFrame) -> float:
    """Return MiB that the largest Python worker had resident, while it ran the training pipeline."""

    def measure(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        function = images.BatchFunction(images.ImageKernel(TRAINING, "tensor"), "content", "x", key_column="id")
        for _ in function(batches):
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield pa.RecordBatch.from_arrays([pa.array([peak])], ["peak"])

    return float(max(row.peak for row in df.mapInArrow(measure, "peak double").collect()))


def read_set(spark: SparkSession, path: Path) -> DataFrame:
    """Read a set with a task for each of its eight files."""
    largest = max(file.stat().st_size for file in path.glob("*.parquet"))
    spark.conf.set("spark.sql.files.maxPartitionBytes", str(largest))
    return spark.read.parquet(f"{path}/*.parquet")


def paths_of(spark: SparkSession, path: Path, count: int) -> DataFrame:
    """Return the paths of a set's files, in eight tasks."""
    name = SF.concat(SF.lit(f"{path.resolve()}/"), SF.col("id").cast("string"), SF.lit(".jpg"))
    return spark.range(0, count, 1, 8).select("id", name.alias("content"))


def consume(communicator: Communicator, config: TrainConfig) -> float:
    """Take an epoch's batches as a training process does, and do nothing with them; return images per second."""
    import torch

    from sparkopt.deep.data_loader import RankDataLoader

    rows = RankDataLoader(config, communicator, torch.device("cpu"))
    communicator.barrier()
    begin, count = time.perf_counter(), 0
    with rows.training(0, 0) as batches:
        for batch in batches:
            count += batch.counted
    return count / (time.perf_counter() - begin)


def fed_rate(launcher: TorchLauncher, store: str, pipeline: images.Compose) -> float:
    """Images per second that all training processes together are fed with."""
    config = TrainConfig(store, 1, 8, launcher.processes, pipeline=pipeline.to_json(), cache_bytes=0)
    return sum(launcher.run(consume, config))


def column_part(df: DataFrame, path: Path, count: int, cores: int, rounds: int) -> None:
    """Compare the column of bytes alone, decoded, resized and flipped, with bare loops, after warming up.

    Java compiles for some rounds what it runs: its seconds would be counted, and a session that works for a minute
    has them once.
    """
    ours = batches(df, SIMPLE)
    for _ in range(WARM_UP):
        run(ours)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        actions = {
            "bare": lambda: bare_rate("simple", path),
            "sparkopt": lambda: rate(count, lambda: run(ours)),
            "together": lambda: bare_together(pool, cores, "simple", path),
        }
        rates = compare(rounds, actions)
    report("decode + resize 224 + flip, a column of bytes", rates, cores)


def spark_part(df: DataFrame, path: Path, count: int, cores: int, rounds: int) -> None:
    """Compare throughput on Spark with bare loops."""
    tasks = {
        "simple": ("decode + resize 224 + flip", SIMPLE, bare_simple),
        "exact": ("the same by means of areas, as INTER_AREA", EXACT, None),
        "training": ("training pipeline", TRAINING, lambda one: bare_training(one, np.random.default_rng(0))),
    }
    few_count = count // 8 if count > 1000 else count
    few = df.where(f"id < {count // 8}") if count > 1000 else df  # the usual UDF is too slow for more
    files = paths_of(df.sparkSession, path, count)
    launcher = TorchLauncher(df.sparkSession.sparkContext, cores)
    labelled = df.withColumn("label", SF.col("id") % 10)
    with (
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool,
        tempfile.TemporaryDirectory() as folder,
    ):
        store = write_store(labelled, Fields.of(labelled.schema, "content", "label"), f"{folder}/rows").uri
        for name, (title, pipeline, work) in tasks.items():
            ours, opened = batches(df, pipeline), batches(files, pipeline)
            actions = {
                "bare": lambda name=name: bare_rate(name, path),
                "sparkopt": lambda rows=ours: rate(count, lambda: run(rows)),
                "files": lambda rows=opened: rate(count, lambda: run(rows)),
                "fed": lambda pipeline=pipeline: fed_rate(launcher, store, pipeline),
            }
            if work is not None:
                theirs = few.select(usual(work)("content"))
                actions["together"] = lambda name=name: bare_together(pool, cores, name, path)
                actions["usual"] = lambda theirs=theirs: rate(few_count, lambda: run(theirs))
            report(title, compare(rounds, actions), cores)


def report(title: str, rates: dict[str, list[float]], cores: int) -> None:
    """Print the ratios of each set-up to the bare loops and to the usual UDF."""
    print(f"  {title}")
    peers = {"together": f"{cores} bare loops at once", "usual": "the usual pandas UDF"}
    for way in (name for name in ("sparkopt", "files", "fed") if name in rates):
        found = [ratio(rates, way, "bare") / cores, *(b / a / cores for a, b in zip(rates["bare"], rates[way]))]  # noqa: B905
        parts = [f"{found[0]:.2f} ({min(found):.2f}-{max(found):.2f}) x {cores} x one bare loop"]
        parts += [f"{ratio(rates, way, key):.2f} x {what}" for key, what in peers.items() if key in rates]
        print(f"    {way}: {statistics.median(rates[way]):.0f}/s = {' = '.join(parts)}")
    others = (f"{key} {statistics.median(rates[key]):.0f}/s" for key in ("bare", *peers) if key in rates)
    print(f"    ({', '.join(others)})", flush=True)


def local_part(data: list[bytes], rounds: int) -> None:
    """Compare composed geometry with step by step, and reduced with whole decoding, on one thread."""
    decoded = [images.decode(one) for one in data[:8]]
    rng, composed = np.random.default_rng(0), images.Compose(TURNED)

    def steps(image: Array) -> Array:
        for transform in TURNED:
            image = transform.apply(image, rng)
        return image

    reduced = images.Compose([images.Decode(), images.Resize(224, 224)])
    whole = images.Compose([images.Decode(reduced=False), images.Resize(224, 224)])
    repeat = max(1, 400_000_000 // (len(decoded) * decoded[0].size) // 8)
    rates = compare(
        rounds,
        {
            "composed": lambda: rate(8 * repeat, lambda: [composed(one) for one in decoded * repeat]),
            "steps": lambda: rate(8 * repeat, lambda: [steps(one) for one in decoded * repeat]),
            "reduced": lambda: rate(8, lambda: [reduced(one) for one in data[:8]]),
            "whole": lambda: rate(8, lambda: [whole(one) for one in data[:8]]),
        },
    )
    print(f"  geometry composed: {ratio(rates, 'composed', 'steps'):.2f} x step by step")
    targets_part(data[:64], rounds)
    if decoded[0].shape[0] < 2 * 224:  # nothing to decode at a smaller scale
        likeness = [ssim(SIMPLE(one), EXACT(one)) for one in data[:100]]
        print(f"  resizing: SSIM with INTER_AREA {statistics.mean(likeness):.4f}, at least {min(likeness):.4f}")
        return
    likeness = min(ssim(reduced(one), whole(one)) for one in data[:8])
    print(f"  reduced-scale decoding: {ratio(rates, 'reduced', 'whole'):.2f} x whole, SSIM at least {likeness:.4f}")


def labels_of(data: bytes) -> Array:
    """Return a mask of an image: up to eight labels, in regions as smooth as those that people draw."""
    smooth: Array = cv2.GaussianBlur(images.decode(data), (0, 0), 6)
    return np.ascontiguousarray(smooth[..., 0] // 32)


def png_by_pillow(labels: Array, mode: str) -> bytes:
    """Encode labels as Pillow does: with a palette of 256 colours (P), as data sets have them, or as greys (L)."""
    picture = Image.fromarray(labels, mode)
    if mode == "P":
        picture.putpalette(bytes(range(256)) * 3)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def targets_part(data: list[bytes], rounds: int) -> None:
    """Compare samples (a mask and two boxes next to each image) with images alone, in CPU seconds of one thread."""
    height, width = images.read_header(data[0]).size
    labels = [labels_of(one) for one in data]
    boxes = [[0.1 * width, 0.1 * height, 0.5 * width, 0.6 * height], [0.0, 0.0, 0.3 * width, 0.3 * height]]
    rows = pa.table({"content": data, "boxes": [boxes] * len(data)})
    masks = {
        "OpenCV's PNG": [images.encode(one[..., np.newaxis], "png") for one in labels],
        "Pillow's PNG with a palette": [png_by_pillow(one, "P") for one in labels],
        "Pillow's PNG of greys": [png_by_pillow(one, "L") for one in labels],
        "tensor": [{"shape": [height, width], "dtype": "uint8", "data": one.tobytes()} for one in labels],
    }
    kernel = images.ImageKernel(SIMPLE)

    def seconds(function: images.BatchFunction, column: list[object] | None = None) -> float:
        table = rows if column is None else rows.append_column("mask", pa.array(column))
        begin = time.process_time()
        for _ in function(iter(table.to_batches())):
            pass
        return time.process_time() - begin

    actions = {
        "alone": lambda: seconds(images.BatchFunction(kernel, "content", "x")),
        "boxes": lambda: seconds(images.SampleFunction(kernel, "content", "x", boxes="boxes")),
        **{
            f"boxes and masks as {kind}": lambda column=column: seconds(
                images.SampleFunction(kernel, "content", "x", boxes="boxes", mask="mask"), column
            )
            for kind, column in masks.items()
        },
    }
    found = compare(rounds, actions)
    parts = (f"{name} {ratio(found, name, 'alone'):.2f}" for name in actions if name != "alone")
    print(f"  CPU seconds with targets, x images alone: {', '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=8000, help="images of 256 x 384 (default: %(default)s)")
    parser.add_argument("--large", type=int, default=32, help="images of 3000 x 4000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("out/bench-images"))
    parser.add_argument(
        "--only",
        choices=("column", "targets"),
        help="one part: the small images as a column of bytes, or their masks and boxes (a minute or two each)",
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    paths = write_sets(options.folder, options.small, options.large)
    if options.only == "targets":  # without Spark
        targets_part(contents(paths["256x384"])[:64], options.rounds)
        return
    # Sockets in the file system rather than the network's carry what Python workers read and write (from Spark 4.1).
    spark = session(None, "sparkopt bench images", {"spark.python.unix.domain.socket.enabled": "true"})
    images.bound_batches(spark)
    cores = spark.sparkContext.defaultParallelism
    if options.only == "column":
        path = paths["256x384"]
        column_part(read_set(spark, path), path, options.small, cores, options.rounds)
        spark.stop()
        return
    for name, path in paths.items():  # before anything else has run in these workers
        peak = peak_memory(read_set(spark, path))
        print(f"{name}: peak memory of a Python worker {peak:.0f} MiB", flush=True)
    for name, path in paths.items():
        data = contents(path)
        print(f"{name}: {len(data)} JPEGs of {statistics.mean(map(len, data)) / 1000:.0f} kB")
        spark_part(read_set(spark, path), path, len(data), cores, options.rounds)
        local_part(data, options.rounds)
    spark.stop()


if __name__ == "__main__":
    main()
