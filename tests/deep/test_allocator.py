"""Memory that steps use again, against the default of the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import contextlib, ctypes, resource, sys
import torch
from sparkopt.deep.allocator import retain_freed_memory

for threshold in (-1, -3):  # as glibc begins, before it has learned from what the imports freed
    ctypes.CDLL(None).mallopt(threshold, 128 * 1024)

def step():
    kept = [torch.ones(1 << 20) for _ in range(10)]  # activations: 40 MB

with retain_freed_memory() if sys.argv[1] == "kept" else contextlib.nullcontext():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator is configured")
def test_steps_use_the_same_pages_again():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert faults("kept") < faults("as it is") / 10
