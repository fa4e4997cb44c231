#!/usr/bin/env python
"""Time a wide sparse logistic regression against pyspark.ml's, and count the bytes through the driver.

    spark-submit --properties-file conf/local.conf jobs/bench/sparse.py --rows 200000 --features 1000000

Each row has 50 non-zeros, drawn by a power law as words and categories are. Three comparisons in one run:

- seconds to equal objectives, ours and pyspark.ml's in turn, on stored and on cached rows;
- bytes that reach the driver in a pass, from its receipt: slices against a tree;
- memory of all processes together (proportional set size, sampled), before pyspark.ml has run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from linear import TOL, timed
from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DoubleType, StructField, StructType

from sparkopt import BlockStore, Columns, Trainer, losses
from sparkopt.engines.driver import DriverEngine
from sparkopt.launch.session import session
from sparkopt.penalties import L2
from sparkopt.report import Receipt
from sparkopt.solver.progress import Stop
from sparkopt.validation import Interval

REG_PARAM, MAX_ITER, NON_ZEROS = 1e-3, 100, 50


def generate(spark: SparkSession, folder: Path, rows: int, features: int, partitions: int) -> DataFrame:
    """Write the rows once, as Parquet files of sparse Vectors."""
    path = folder / f"sparse-{rows}x{features}-{partitions}"
    if not (path / "_SUCCESS").exists():
        vector = StructType([StructField("features", VectorUDT()), StructField("label", DoubleType())])
        truth = np.random.default_rng(0).normal(size=features)

        def draw(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                ids = batch.column(0).to_numpy()
                rng = np.random.default_rng(int(ids[0]))
                ranks = np.sort((features * rng.random((len(ids), NON_ZEROS)) ** 3).astype(np.int32), axis=1)
                columns = [np.unique(row) for row in ranks]
                margins = np.array([truth[row].sum() for row in columns]) / np.sqrt(NON_ZEROS)
                labels = (margins + rng.logistic(size=len(ids)) > 0).astype(np.float64)
                structs = [
                    {"type": 0, "size": features, "indices": row, "values": np.ones(len(row))} for row in columns
                ]
                kind = pa.struct(
                    {
                        "type": pa.int8(),
                        "size": pa.int32(),
                        "indices": pa.list_(pa.int32()),
                        "values": pa.list_(pa.float64()),
                    }
                )
                yield pa.RecordBatch.from_arrays([pa.array(structs, kind), labels], names=["features", "label"])

        spark.range(0, rows, 1, partitions).mapInArrow(draw, vector).write.mode("overwrite").parquet(str(path))
    return spark.read.parquet(str(path))


@contextmanager
def watched_memory(interval: float = 0.25) -> Iterator[list[int]]:
    """Yield a list whose last entry is the peak so far of this process's tree, JVM and workers, in bytes."""
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(interval):
            peak.append(max(peak[-1], tree_memory()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def tree_memory() -> int:
    """Return the proportional set size of the session's processes: pages that several share are counted once."""
    total, group = 0, os.getpgid(0)
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == group:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
        except (OSError, StopIteration):  # it ended in the meantime
            continue
    return total


def theirs(df: DataFrame) -> float:
    """Fit pyspark.ml's."""
    estimator = SparkLogisticRegression(regParam=REG_PARAM, tol=TOL, maxIter=MAX_ITER)
    return float(estimator.fit(df).summary.objectiveHistory[-1])


def describe(name: str, receipt: Receipt) -> str:
    """Return a row of the second table."""
    seconds = receipt.seconds["total"] - receipt.seconds["ingest"]
    raw, sent, driver = (receipt.bytes[kind] / receipt.passes / 1e6 for kind in ("raw", "encoded", "driver"))
    cells = f"{receipt.passes} | {raw:.1f} | {sent:.1f} | {driver:.1f}"
    return f"| {name} | {seconds:.2f} | {cells} | {receipt.objective[-1]:.8f} |"


def run(spark: SparkSession, rows: int, features: int, partitions: int, runs: int) -> None:
    """Print the tables."""
    df = generate(spark, Path(".cache"), rows, features, partitions).repartition(partitions)
    trainer = Trainer(losses.Logistic(), penalty=L2(REG_PARAM), stop=Stop(MAX_ITER, TOL), progress=False)
    engines = {"auto": trainer} | {
        f"driver, {how}": replace(trainer, engine=DriverEngine(reduction=how)) for how in ("tree", "sharded")
    }
    with (
        watched_memory() as peak,
        BlockStore.write(df, Columns("features", "label"), Interval(0, 1, whole=True)) as store,
    ):
        receipts = {name: engine.fit(store).receipt for name, engine in engines.items()}
        ours_peak = peak[-1]
        cached = df.cache()
        cached.count()
        pairs = []
        for _ in range(runs):
            mine, objective = timed(lambda: trainer.fit(store).solution.objective)
            other, reference = timed(lambda: theirs(cached))
            pairs.append((mine, other))
        their_peak = peak[-1]
    ratios = [other / mine for mine, other in pairs]
    ours, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = f"**{statistics.median(ratios):.1f}x** ({min(ratios):.1f}-{max(ratios):.1f})"
    gap = (objective - reference) / abs(reference)
    memory = f"{ours_peak / 2**30:.1f} GiB, {their_peak / 2**30:.1f} GiB"
    print(
        f"\n{rows:,} rows x {features:,} features, {NON_ZEROS} non-zeros a row, {partitions} partitions, {runs} runs"
    )
    print("\n| sparkopt s | pyspark.ml s | faster by (range) | objective vs theirs | memory: ours, with theirs |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {ours:.2f} | {other:.2f} | {spread} | {gap:+.1e} | {memory} |")
    print("\n| engine | fit s | passes | sums, MB a pass: as float64 | as sent | to the driver | objective |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(describe(f"{name} ({receipt.engine})", receipt) for name, receipt in receipts.items()))


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=200_000)
    flags.add_argument("--features", type=int, default=1_000_000)
    flags.add_argument("--partitions", type=int, default=32)
    flags.add_argument("--runs", type=int, default=1)
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    begin = time.perf_counter()
    run(spark, args.rows, args.features, args.partitions, args.runs)
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    spark.stop()


if __name__ == "__main__":
    main()
