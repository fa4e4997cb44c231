"""A checkpoint belongs to its configuration: another one is refused with what differs, more epochs go on."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt import images
from sparkopt.deep import TorchEstimator
from sparkopt.deep.configuration import described
from sparkopt.errors import IncompatibleError

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)


def table():
    return pa.table({"features": list(X), "label": np.arange(ROWS) % 3})


SLOPE = 0.1


def activation(x):
    return nn.functional.leaky_relu(x, SLOPE)


class Net(nn.Module):
    """What is trained first."""

    def __init__(self, hidden=8):
        super().__init__()
        self.one, self.two = nn.Linear(4, hidden), nn.Linear(hidden, 3)

    def forward(self, x):
        return self.two(activation(self.one(x)))


def other_code():
    """The same weights, and another way from inputs to outputs."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.two(torch.tanh(self.one(x)))

    return Net


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def slowly_halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)


SGD = functools.partial(torch.optim.SGD, lr=0.1)
BASE = dict(
    module=Net, loss="multinomial", optimizer=SGD, scheduler=halving, epochs=1, batchSize=16, launcher="local"
)
CHANGES = {
    "loss": (dict(loss=nn.MultiMarginLoss()), "loss"),
    "class weights": (dict(loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))), "loss"),
    "smoothing": (dict(loss=nn.CrossEntropyLoss(label_smoothing=0.1)), "loss"),
    "optimiser": (dict(optimizer=functools.partial(torch.optim.Adam, lr=0.1)), "optimizer"),
    "rate": (dict(optimizer=functools.partial(torch.optim.SGD, lr=0.2)), "optimizer"),
    "momentum": (dict(optimizer=lambda own: torch.optim.SGD(own, lr=0.1, momentum=0.5)), "optimizer"),
    "schedule": (dict(scheduler=slowly_halving), "scheduler"),
    "interval": (dict(schedulerInterval="step"), "scheduler"),
    "width": (dict(module=functools.partial(Net, hidden=9)), r"module.one .*hidden|module.one .*out_features=8.*"),
    "code": (dict(module=other_code()), r"module \(then Net#\w+\(\), now .*Net#\w+\(\)\)"),
    "precision": (dict(precision="bf16"), r"precision \(then 'fp32', now 'bf16'\)|precision \(then fp32, now bf16\)"),
    "clipping": (dict(maxGradNorm=1.0), r"max_norm \(then none, now 1.0\)"),
    "batch": (dict(batchSize=8), r"batch_size \(then 16, now 8\)"),
    "seed": (dict(seed=3), r"seed \(then 0, now 3\)"),
    "weights": (dict(initialModel=Net().state_dict()), r"initialModel \(then none, now \w+\)"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_another_configuration_is_refused_with_what_differs(tmp_path, change, message):
    options = {**BASE, "checkpointDir": str(tmp_path)}
    TorchEstimator(**options).fit(table())
    match = rf"belongs to another run: .*({message}).* differ. Set another checkpointDir, or resume=False"
    with pytest.raises(IncompatibleError, match=match) as error:
        TorchEstimator(**{**options, **change, "epochs": 2}).fit(table())
    assert len(str(error.value).splitlines()) == 1
    assert TorchEstimator(**{**options, **change, "resume": False}).fit(table()).summary.receipt.resumed is None


def test_a_value_that_code_reads_belongs_to_it(tmp_path, monkeypatch):
    options = {**BASE, "checkpointDir": str(tmp_path)}
    TorchEstimator(**options).fit(table())
    monkeypatch.setitem(globals(), "SLOPE", 0.2)
    with pytest.raises(IncompatibleError, match=r"module \(then Net#"):
        TorchEstimator(**options).fit(table())


SAME = {
    "more epochs": dict(epochs=3),
    "an equal loss": dict(loss=nn.CrossEntropyLoss()),
    "an equal optimiser": dict(optimizer=lambda own: torch.optim.SGD(own, lr=0.1)),
    "other hands": dict(prefetch=1, loaderThreads=2, checkpointInterval=2),
    "two processes": dict(launcher="torch", numProc=2, streams=2),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_goes_on(tmp_path, change):
    """And with the rate that it had come to, which is not the initial one."""
    options = {**BASE, "streams": 2, "checkpointDir": str(tmp_path)}
    TorchEstimator(**options).fit(table())
    found = TorchEstimator(**{**options, "epochs": 2, **change}).fit(table()).summary
    assert found.receipt.resumed == "epoch-000001-step-000000000"
    assert found.history[1]["rate"] == 0.05


def test_another_pipeline_is_refused(tmp_path):
    picture = images.encode(np.zeros((4, 4, 1), np.uint8), "png")
    rows = pa.table({"image": [picture] * 8, "label": [0, 1] * 4})
    scaled = [images.Compose([images.Decode("gray"), images.Rescale(1 / most)]) for most in (255, 128)]
    options = dict(module=functools.partial(nn.Sequential, nn.Flatten(), nn.Linear(16, 2)), loss="multinomial")
    options |= dict(featuresCol="image", epochs=1, launcher="local", checkpointDir=str(tmp_path))
    TorchEstimator(**options, imagePipeline=scaled[0]).fit(rows)
    with pytest.raises(IncompatibleError, match="pipeline.* differ"):
        TorchEstimator(**options, imagePipeline=scaled[1]).fit(rows)


SCRIPT = """
from torch import nn
from sparkopt.deep.configuration import described
from tests.deep.test_configuration import *

LIMIT = 3
def within(x):
    return x < LIMIT and x in {"a", "b", "c", "d"}

class Own(nn.Module):
    depth = 2
    def forward(self, x):
        return [within(one) for one in x] + super().forward(x)

print(described(Own), described(Net), described(SGD), described(nn.CrossEntropyLoss()))
print(described({"b": 1, "a": {2, 1}}))
"""


def test_every_process_has_the_same_texts():
    """Whatever the order of its sets, and where its code is."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    found = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)}
    (text,) = found
    assert described(Net) in text
    assert " at 0x" not in text
