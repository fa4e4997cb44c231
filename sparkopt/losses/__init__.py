"""Losses: the error of each row and its derivatives.

Every loss is a :class:`Loss`: start reading at ``base``. The members are in ``regression`` (real targets),
``classification`` (classes), ``generalized`` (families with a link) and ``likelihoods`` (survival times, ordered
classes, overdispersed counts). ``expression`` makes one of a function that
PyTorch, JAX or PyTensor differentiates. ``projections`` and ``network`` hold losses of models that are not linear:
factorisation machines and multilayer perceptrons. ``checks`` compares derivatives with finite differences.

Imports only ``errors``, ``typing`` and ``validation``, NumPy and SciPy.

To add a loss, write the class in one of these modules, export it below, and add it to the table ``LOSSES`` in
``tests/losses/test_losses.py``, which checks derivatives, shapes and stability of every member.

Examples
--------
A loss of your own takes a few lines. Its derivative is checked on first use:

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
from sparkopt.losses.classification import Hinge, Logistic, MultiLabel, Multinomial, PlattLogistic, SquaredHinge
from sparkopt.losses.expression import ExpressionLoss, of
from sparkopt.losses.generalized import (
    LINKS,
    Binomial,
    BinomialLogit,
    Gamma,
    Gaussian,
    Poisson,
    Tweedie,
    WorkingResponse,
)
from sparkopt.losses.likelihoods import AcceleratedFailureTime, CumulativeLogit, NegativeBinomial
from sparkopt.losses.network import MultilayerPerceptron
from sparkopt.losses.projections import Derivatives, FactorizationMachine, ProjectionLoss
from sparkopt.losses.regression import FixedHuber, Huber, Quantile, SquaredError, SquaredResidual

__all__ = [
    "LINKS",
    "AcceleratedFailureTime",
    "Binomial",
    "BinomialLogit",
    "CumulativeLogit",
    "Derivatives",
    "ExpressionLoss",
    "FactorizationMachine",
    "FixedHuber",
    "Gamma",
    "Gaussian",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "MultiLabel",
    "MultilayerPerceptron",
    "Multinomial",
    "NegativeBinomial",
    "PlattLogistic",
    "Poisson",
    "ProjectionLoss",
    "Quantile",
    "SquaredError",
    "SquaredHinge",
    "SquaredResidual",
    "Tweedie",
    "WorkingResponse",
    "check_loss",
    "of",
]
