"""Fingerprints are equal for equal objects, in every process, and differ for objects that act differently."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np

from sparkopt import losses, optim, penalties
from sparkopt.io.fingerprint import describe, differences, digest, rounded


def rate(step: int) -> float:
    return 0.1 / (1 + step)


DESCRIBED = [
    optim.adam(0.1),
    optim.adam(0.2),
    optim.sgd(optim.schedules.Cosine(0.1, 50)),
    optim.sgd(optim.schedules.Cosine(0.1, 60)),
    optim.sgd(rate),
    optim.sgd(lambda step: 0.1),
    optim.sgd(lambda step: 0.2),
    optim.sgd(functools.partial(pow, 0.5)),
    optim.sgd(functools.partial(pow, 0.4)),
    penalties.L2(0.1),
    penalties.L1(0.1),
    losses.Multinomial(3),
    losses.Multinomial(4),
    np.arange(3.0),
    np.arange(4.0),
    np.float64(0.5),
    None,
]


def test_descriptions_tell_things_apart_in_every_process():
    found = [digest({"what": describe(thing)}) for thing in DESCRIBED]
    assert len(set(found)) == len(DESCRIBED)
    assert found == [digest({"what": describe(thing)}) for thing in DESCRIBED]
    assert " at 0x" not in str([describe(thing) for thing in DESCRIBED])


def test_captured_values_count():
    def schedule(initial):
        return lambda step: initial

    assert describe(schedule(0.1)) != describe(schedule(0.2))
    assert describe(schedule(0.1)) == describe(schedule(0.1))


def test_differences_are_named():
    assert differences({"a": 1, "b": (1, 2)}, {"a": 2, "b": [1, 2], "c": None}) == ["a"]
    assert differences({"a": 1}, {"a": 1, "c": 0}) == ["c"]


def test_one_number_stands_for_moments():
    values = np.random.default_rng(0).normal(size=50)
    assert rounded(values, 1.0) == rounded(values * (1 + 1e-12), 1.0)
    assert rounded(values, 1.0) != rounded(values[::-1], 1.0)
    assert rounded(values, 1.0) != rounded(values + 1e-3, 1.0)
    assert rounded(values, 0.0) == rounded(values, 1.0)


def test_another_process_agrees():
    code = """
from sparkopt import penalties
from sparkopt.io.fingerprint import describe, digest
print(digest({"p": describe(penalties.L1(0.3))}))
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest({"p": describe(penalties.L1(0.3))})
