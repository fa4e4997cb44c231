"""A disk that fills up while blocks are written is one line with the folder and the way out, and nothing stays."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from pyspark.errors import PySparkException

from sparkopt.blocks.block import Block
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.files import write_blocks
from sparkopt.errors import IncompatibleError, ParameterError

LINE = r"^no space is left for blocks in \S+ on \S+\. Set SPARK_LOCAL_DIRS [^\n]* blockCodec='zstd'\.$"


@pytest.fixture
def full():
    """Files of this process may have 64 KiB: the system's own refusal, as of a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_full_disk_is_one_line_and_keeps_nothing(full, codec, tmp_path):
    rng = np.random.default_rng(0)
    blocks = (Block(rng.normal(size=(1000, 20)), np.zeros(1000)) for _ in range(10))
    with pytest.raises(IncompatibleError, match=LINE) as told:
        list(write_blocks(tmp_path / "x.arrow", blocks, codec))
    assert str(tmp_path) in str(told.value)
    assert list(tmp_path.iterdir()) == []


LINES = {
    "no space is left for blocks in /data on worker-7. Set SPARK_LOCAL_DIRS …": IncompatibleError,
    "storePath='/data/rows of may' cannot be used: [Errno 28] No space left on device": ParameterError,
}


@pytest.mark.parametrize("line", LINES)
def test_the_line_is_taken_out_of_what_spark_reports(line):
    above = "Job aborted due to stage failure: …\nTraceback (most recent call last):\n  File …"
    trace = f"{above}\nsparkopt.errors.{LINES[line].__name__}: {line}\n\n\tat org.apache.spark…"
    with pytest.raises(LINES[line]) as told, data_errors():
        raise PySparkException(trace)
    assert str(told.value) == line
