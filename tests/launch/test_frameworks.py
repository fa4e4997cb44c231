"""The guide's loops of other frameworks, where these are installed: on any ranks the weights of a loop of NumPy."""

from __future__ import annotations

import importlib.util
import pickle
import types

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkopt.errors import MissingDependencyError
from sparkopt.launch import run
from tests.conftest import ROOT
from tests.docs.test_pages import blocks

ROWS, SIZE = 90, 8
X = np.random.default_rng(3).normal(size=(ROWS, 3)).astype(np.float32)
LABEL = (X @ [1.0, -1.0, 0.5] > 0).astype(np.int64)
TABLE = pa.table({"features": list(X), "label": LABEL})
GUIDE = ROOT / "docs" / "guides" / "own-loop.md"
LOOPS = {
    "with_jax": "jax",
    "with_tensorflow": "tensorflow",
    "with_lightning": "lightning",
    "with_trainer": "transformers",
}


def needs_package(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


LOOPS_THAT_RUN = [pytest.param(name, marks=needs_package(package)) for name, package in LOOPS.items()]


@pytest.fixture(scope="module")
def guide():
    """What the blocks of the guide define, without what they call."""
    names = {"__name__": "__main__", "np": np, "torch": torch}  # as in a notebook: sent to ranks by value
    for _, block in blocks(GUIDE):
        if block.startswith(("def with_jax", "class Rows")):
            exec(block, names)
    return types.SimpleNamespace(**names)


def plain(context):
    """Softmax regression by hand, of the mean over all ranks' rows."""
    w, b = np.zeros((3, 2)), np.zeros(2)
    for epoch in range(2):
        for batch in context.batches(epoch, drop_last=True):
            scores = batch["features"] @ w + b
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            shares[np.arange(len(shares)), batch["label"]] -= 1
            w -= 0.1 * context.communicator.all_reduce(batch["features"].T @ shares) / batch.total
            b -= 0.1 * context.communicator.all_reduce(shares.sum(0)) / batch.total
    return {"w": w, "b": b}


def ran(function, ranks):
    return run(function, TABLE, numProc=ranks, batchSize=SIZE, seed=2)


@pytest.mark.usefixtures("minutes")
@pytest.mark.filterwarnings("ignore")  # others' libraries warn of one another
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", LOOPS_THAT_RUN)
def test_weights_are_those_of_a_plain_loop(guide, name, ranks):
    expected = ran(plain, ranks)[0]
    for found in ran(getattr(guide, name), ranks):
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def kinds(arrays, context):
    (batch,) = context.batches(arrays=arrays)
    return {name: (type(value).__module__.partition(".")[0], np.asarray(value)) for name, value in batch.items()}


@pytest.mark.parametrize(
    ("arrays", "package"),
    [
        ("numpy", "numpy"),
        ("torch", "torch"),
        pytest.param("jax", "jaxlib", marks=needs_package("jax")),
        pytest.param("tensorflow", "tensorflow", marks=needs_package("tensorflow")),
    ],
)
def test_batches_are_arrays_of_a_framework(arrays, package):
    data = TABLE.append_column("image", pa.array([b"bytes"] * ROWS))
    (found,) = run(lambda context: kinds(arrays, context), data, launcher="local", batchSize=ROWS)
    (expected,) = run(lambda context: kinds("numpy", context), data, launcher="local", batchSize=ROWS)
    assert [found[name][0] for name in ("features", "label")] == [package] * 2
    for name, (_, value) in found.items():
        np.testing.assert_array_equal(value, expected[name][1])
    assert found["image"][1][0] == b"bytes"


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="JAX is installed")
def test_a_framework_that_is_missing_is_named():
    with pytest.raises(MissingDependencyError, match="arrays='jax' needs JAX, which is not installed"):
        run(lambda context: kinds("jax", context), TABLE, launcher="local")


def test_the_guide_can_be_sent_to_other_processes(guide):
    for name in LOOPS:
        assert pickle.loads(cloudpickle.dumps(getattr(guide, name))).__name__ == name
    assert torch.equal(guide.linear().weight, torch.zeros(2, 3))
