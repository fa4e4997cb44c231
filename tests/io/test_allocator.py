"""Memory that steps use again, against the default of the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import contextlib, ctypes, resource, sys
import numpy as np
from sparkopt.io.allocator import keep_freed_memory, retain_freed_memory

for threshold in (-1, -3):  # as glibc begins, before it has learned from what the imports freed
    ctypes.CDLL(None).mallopt(threshold, 128 * 1024)

def step(count, size):
    kept = [np.ones(size, np.uint8) for _ in range(count)]

how, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if how == "kept":
    keep_freed_memory()
with retain_freed_memory() if how == "retained" else contextlib.nullcontext():
    for _ in range(3):
        step(count, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step(count, size)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator is configured")
@pytest.mark.parametrize(
    ("how", "count", "size"),
    [("retained", 10, 2**22), ("kept", 4, 300_000)],
    ids=["the activations of a network's step", "images, one after the other"],
)
def test_what_was_freed_is_used_again(how, count, size):
    def faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how, str(count), str(size)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert faults(how) < faults("as it is") / 10
