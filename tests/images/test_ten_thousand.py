"""Ten thousand images, 5% of them broken in every known way: exact counts in one pass, and each process lives on."""

import os
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import images
from sparkopt.machine import ProcessPool, Table
from tests.images.test_hostile import REFUSED, animated

COUNT, SHARE = 10_000, 20


def pid(_):
    return os.getpid()


def processes():
    with ProcessPool.shared() as pool:
        return {one for _ in range(8) for one in pool.run(pid, range(8 * max(1, pool.processes)))}


@pytest.mark.usefixtures("minutes")
def test_counts_are_exact_and_no_process_is_lost(photograph, broken, tmp_path):
    good = [images.encode(photograph[at : at + 40, at : at + 60], kind) for at in (0, 50) for kind in ("jpeg", "png")]
    good.append(animated())
    bad = [data for data, _ in broken.values()] + [data for data, _ in REFUSED.values()]
    rows = [
        bad[number // SHARE % len(bad)] if number % SHARE == 0 else good[number % len(good)]
        for number in range(COUNT)
    ]
    reasons = [reason for _, reason in broken.values()] + [reason.partition(":")[0] for _, reason in REFUSED.values()]
    expected = Counter(reasons[number % len(bad)] for number in range(COUNT // SHARE))
    table = pa.table({"path": [f"image {number}" for number in range(COUNT)], "content": pa.array(rows, pa.binary())})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=500)
    before = processes()
    pipeline = images.Compose([images.Decode(), images.Resize(16, 16), images.Encode("png")])
    found = images.preprocess(
        Table.of(str(tmp_path / "rows.parquet")), pipeline, str(tmp_path / "out"), progress=False
    )
    assert (found.images, found.good, found.skipped) == (COUNT, COUNT - COUNT // SHARE, 0)
    assert dict(found.failures) == dict(expected)
    assert processes() == before
    assert before != {os.getpid()}
    assert np.sum([*found.failures.values()]) == COUNT // SHARE
