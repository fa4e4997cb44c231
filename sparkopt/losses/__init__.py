"""Losses: what a row's error costs, and its derivatives.

Examples
--------
A loss of one's own takes a few lines; its derivative is checked on first use:

>>> from dataclasses import dataclass
>>> import numpy as np
>>> from sparkopt.losses import Loss
>>> @dataclass(frozen=True)
... class LogCosh(Loss):
...     name = "log_cosh"
...     curvature = 1.0
...
...     def value_gradient(self, y, raw):
...         residual = raw - y
...         return np.logaddexp(residual, -residual) - np.log(2), np.tanh(residual)
...
...     def predict(self, raw):
...         return raw
"""

from sparkopt.losses.base import Loss
from sparkopt.losses.checks import check_loss
from sparkopt.losses.classification import Hinge, Logistic, Multinomial, SquaredHinge
from sparkopt.losses.generalized import LINKS, Binomial, Gamma, Gaussian, Poisson, Tweedie
from sparkopt.losses.regression import FixedHuber, Huber, Quantile, SquaredError

__all__ = [
    "LINKS",
    "Binomial",
    "FixedHuber",
    "Gamma",
    "Gaussian",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Poisson",
    "Quantile",
    "SquaredError",
    "SquaredHinge",
    "Tweedie",
    "check_loss",
]
