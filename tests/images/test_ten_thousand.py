"""Ten thousand images, 5% of them broken in every known way: exact counts in one pass, and each process lives on."""

import os
import time
from collections import Counter

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as SF

from sparkopt import images
from sparkopt.machine import ProcessPool, Table
from sparkopt.ml.image import ImageTransformer
from tests.images.test_hostile import REFUSED, animated

COUNT, SHARE = 10_000, 20
PIPELINE = images.Compose([images.Decode(), images.Resize(16, 16), images.Encode("png")])


@pytest.fixture(scope="module")
def good(photograph):
    parts = [photograph[at : at + 40, at : at + 60] for at in (0, 50)]
    return [*(images.encode(part, kind) for part in parts for kind in ("jpeg", "png")), animated()]


@pytest.fixture(scope="module")
def bad(broken):
    """Content and reason of each known kind."""
    refused = [(data, message.partition(":")[0]) for data, message in REFUSED.values()]
    return [*broken.values(), *refused]


def contents(good, bad):
    """What the images hold, and how many have each reason."""
    rows = [
        bad[number // SHARE % len(bad)][0] if number % SHARE == 0 else good[number % len(good)]
        for number in range(COUNT)
    ]
    return rows, Counter(bad[number % len(bad)][1] for number in range(COUNT // SHARE))


def pid(_):
    return os.getpid()


def processes():
    with ProcessPool.shared() as pool:
        return {one for _ in range(8) for one in pool.run(pid, range(8 * max(1, pool.processes)))}


@pytest.mark.usefixtures("minutes")
def test_counts_are_exact_and_no_process_is_lost(good, bad, tmp_path):
    rows, expected = contents(good, bad)
    table = pa.table({"path": [f"image {number}" for number in range(COUNT)], "content": pa.array(rows, pa.binary())})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=500)
    before = processes()
    found = images.preprocess(
        Table.of(str(tmp_path / "rows.parquet")), PIPELINE, str(tmp_path / "out"), progress=False
    )
    assert (found.images, found.good, found.skipped) == (COUNT, COUNT - COUNT // SHARE, 0)
    assert dict(found.failures) == dict(expected)
    assert processes() == before
    assert before != {os.getpid()}
    assert np.sum([*found.failures.values()]) == COUNT // SHARE


def python_workers(spark):
    """The Python workers of a session on this machine, once each core has one; a process is its number and start."""

    def parent(batches):
        time.sleep(2)  # the other core's task needs a worker of its own
        for batch in batches:
            yield pa.RecordBatch.from_arrays([pa.array([os.getppid()] * batch.num_rows)], ["pid"])

    cores = spark.sparkContext.defaultParallelism
    rows = spark.range(0, cores, 1, cores).mapInArrow(parent, "pid long").collect()
    return {worker for row in rows for worker in psutil.Process(row.pid).children()}


def stages(spark, group):
    """Stages, tasks that failed, and rows that were read of a job group."""
    tracker, store = spark.sparkContext.statusTracker(), spark.sparkContext._jsc.sc().statusStore()
    numbers = [stage for job in tracker.getJobIdsForGroup(group) for stage in tracker.getJobInfo(job).stageIds]
    found = [store.lastStageAttempt(number) for number in numbers]
    return len(found), sum(one.numFailedTasks() for one in found), sum(one.inputRecords() for one in found)


@pytest.mark.usefixtures("minutes")
def test_on_spark_counts_are_exact_and_no_worker_is_lost(spark, good, bad, tmp_path):
    """Files, which Spark reads once; it leaves out empty ones, and one row more is that of who lists them."""
    rows, expected = contents(good, [(data, reason) for data, reason in bad if data is not None])
    (tmp_path / "in").mkdir()
    for number, content in enumerate(rows):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(content)
    stage = ImageTransformer(
        pipeline=PIPELINE, inputCol="content", outputCol="image", output="bytes", errorCol="error", keyCol="path"
    )
    result = stage.transform(images.read(spark, str(tmp_path / "in"))).select("path", "image", "error")
    before = python_workers(spark)
    spark.sparkContext.setJobGroup("ten thousand", "images")
    try:
        result.write.parquet(str(tmp_path / "out"))
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert stages(spark, "ten thousand") == (1, 0, COUNT - rows.count(b"") + 1)
    assert python_workers(spark) >= before  # a task that begins while another ends gets one more
    assert len(before) >= spark.sparkContext.defaultParallelism
    written = spark.read.parquet(str(tmp_path / "out"))
    reason = SF.substring_index("error", ":", 1).alias("reason")
    counts = {row.reason: row["count"] for row in written.groupBy(reason).count().collect()}
    assert counts == {None: COUNT - COUNT // SHARE, **expected}
    assert written.where("image is null").count() == COUNT // SHARE == sum(expected.values())
    assert written.select("path").distinct().count() == COUNT
