"""Rows with labels of each kind, and networks and estimators for them."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from sparkopt.deep import TorchEstimator

ROWS, CLASSES = 150, 3
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5)
WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def rng():
    return np.random.default_rng(3)


X = rng().normal(size=(ROWS, 4)).astype(np.float32)
LABEL = rng().integers(0, CLASSES, ROWS)
POSITIONS = rng().integers(0, CLASSES, (ROWS, 5))
SHARES = rng().dirichlet(np.ones(CLASSES), ROWS).astype(np.float32)
REAL = rng().normal(size=ROWS).astype(np.float32)
COUNTS = rng().poisson(2.0, ROWS)
SEVERAL = rng().integers(0, 2, (ROWS, CLASSES)).astype(np.float32)


def some(labels, value):
    """Labels of which every fourth is another one."""
    found = np.array(labels)
    found[::4] = value
    return found


class Positions(nn.Module):
    """Scores (rows, classes, positions)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES * 5)

    def forward(self, x):
        return self.layer(x).reshape(-1, CLASSES, 5)


class LogShares(nn.Module):
    """Logarithms of shares."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.layer(x).log_softmax(1)


class Chance(nn.Module):
    """A probability."""

    def __init__(self, outputs=1):
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x):
        return self.layer(x).sigmoid()


linear = functools.partial(nn.Linear, 4, CLASSES)
one = functools.partial(nn.Linear, 4, 1)


def column(values):
    return pa.array(list(values)) if np.ndim(values) > 1 else pa.array(values)


def estimator(module, loss, **options):
    given = dict(optimizer=SGD, epochs=2, batchSize=16, launcher="local", validationIndicatorCol="aside", seed=1)
    return TorchEstimator(module=module, loss=loss, **{**given, **options})


def table(label, **more):
    aside = np.arange(ROWS) % 3 == 0
    return pa.table({"features": list(X), "label": column(label), "aside": aside, **more})
