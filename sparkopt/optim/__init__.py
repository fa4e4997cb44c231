"""Optimisers: chains of gradient transformations, searches and schedules that combine freely.

Examples
--------
>>> from sparkopt import optim
>>> adam = optim.adam(learning_rate=optim.schedules.Cosine(0.1, steps=100))
>>> mine = optim.Optimizer(
...     "mine",
...     optim.chain(optim.trace(0.95), optim.scale_by_learning_rate(0.1)),
...     optim.Fixed(),
... )
"""

from sparkopt.optim import schedules
from sparkopt.optim.aliases import (
    OPTIMIZERS,
    adagrad,
    adam,
    adamw,
    by_name,
    fista,
    gd,
    lbfgs,
    momentum,
    nesterov,
    rmsprop,
    sgd,
)
from sparkopt.optim.base import Ask, Chain, GradientTransformation, Optimizer, Point, Search, chain
from sparkopt.optim.search import AcceleratedProximal, Backtracking, Fixed, StrongWolfe
from sparkopt.optim.transforms import (
    add_decayed_weights,
    scale_by_adam,
    scale_by_lbfgs,
    scale_by_learning_rate,
    scale_by_rms,
    scale_by_rss,
    trace,
)

__all__ = [
    "OPTIMIZERS",
    "AcceleratedProximal",
    "Ask",
    "Backtracking",
    "Chain",
    "Fixed",
    "GradientTransformation",
    "Optimizer",
    "Point",
    "Search",
    "StrongWolfe",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "by_name",
    "chain",
    "fista",
    "gd",
    "lbfgs",
    "momentum",
    "nesterov",
    "rmsprop",
    "scale_by_adam",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_rms",
    "scale_by_rss",
    "schedules",
    "sgd",
    "trace",
]
