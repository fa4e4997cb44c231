"""Files of blocks: what a process keeps open."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sparkopt.blocks.block import Block
from sparkopt.blocks.files import BlockFile, OpenFiles, write_blocks


@pytest.fixture
def files(tmp_path):
    """More files than are kept open."""
    paths = [tmp_path / f"{number}.arrow" for number in range(40)]
    for number, path in enumerate(paths):
        assert list(write_blocks(path, [Block(np.full((2, 2), number), np.zeros(2))]))
    return paths


def test_several_threads_open_files_at_the_same_time(files, monkeypatch):
    monkeypatch.setattr("sparkopt.blocks.files._opened", OpenFiles(10))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda n: BlockFile(str(files[n % 40]), [0, 2])[0].X[0, 0], range(2000)))
    finally:
        sys.setswitchinterval(before)
    assert found == [number % 40 for number in range(2000)]


def test_the_latest_files_stay_open(files):
    opened = OpenFiles(2)
    first, second = (opened.open(str(path)) for path in files[:2])
    assert opened.open(str(files[0])) is first
    opened.open(str(files[2]))
    assert opened.open(str(files[0])) is first
    assert opened.open(str(files[1])) is not second
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        opened.open(str(files[0]))
