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
    OUTER,
    adadelta,
    adagrad,
    adam,
    adamw,
    amsgrad,
    averaging,
    by_name,
    diloco,
    fista,
    gd,
    lamb,
    lars,
    lbfgs,
    lion,
    momentum,
    nadam,
    nesterov,
    newton_cg,
    outer_by_name,
    owlqn,
    rmsprop,
    sgd,
    svrg,
)
from sparkopt.optim.base import Chain, GradientTransformation, Optimizer, Point, Search, chain
from sparkopt.optim.links import accumulate, add_decayed_weights, average, clip_by_norm, clip_by_value
from sparkopt.optim.newton import NewtonCG
from sparkopt.optim.proximal import AcceleratedProximal
from sparkopt.optim.quasi_newton import InitialHessian, OrthantWise, QuasiNewton
from sparkopt.optim.request import (
    EveryRow,
    Gradients,
    HessianProducts,
    Losses,
    Request,
    RowSelector,
    SampledRows,
    StepRows,
)
from sparkopt.optim.search import Backtracking, Fixed, StrongWolfe
from sparkopt.optim.transforms import (
    scale_by_adadelta,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_nadam,
    scale_by_rms,
    scale_by_rss,
    scale_by_trust_ratio,
    trace,
)
from sparkopt.optim.variance import VarianceReduced

__all__ = [
    "OPTIMIZERS",
    "OUTER",
    "AcceleratedProximal",
    "Backtracking",
    "Chain",
    "EveryRow",
    "Fixed",
    "GradientTransformation",
    "Gradients",
    "HessianProducts",
    "InitialHessian",
    "Losses",
    "NewtonCG",
    "Optimizer",
    "OrthantWise",
    "Point",
    "QuasiNewton",
    "Request",
    "RowSelector",
    "SampledRows",
    "Search",
    "StepRows",
    "StrongWolfe",
    "VarianceReduced",
    "accumulate",
    "adadelta",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "amsgrad",
    "average",
    "averaging",
    "by_name",
    "chain",
    "clip_by_norm",
    "clip_by_value",
    "diloco",
    "fista",
    "gd",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "momentum",
    "nadam",
    "nesterov",
    "newton_cg",
    "outer_by_name",
    "owlqn",
    "rmsprop",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_nadam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_trust_ratio",
    "schedules",
    "sgd",
    "svrg",
    "trace",
]
