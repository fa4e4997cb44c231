"""The optimisers by their usual names: each a chain and a search.

Defaults are those of torch.optim where it has the method, but for the learning rate: the models here see
standardised features, where larger steps are safe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from sparkopt.errors import ParameterError
from sparkopt.optim.base import GradientTransformation, Optimizer, Search, chain
from sparkopt.optim.links import add_decayed_weights
from sparkopt.optim.newton import NewtonCG
from sparkopt.optim.proximal import AcceleratedProximal
from sparkopt.optim.proximal_newton import ProximalNewton
from sparkopt.optim.proximal_quasi_newton import ProximalQuasiNewton
from sparkopt.optim.quasi_newton import InitialHessian, OrthantWise, QuasiNewton
from sparkopt.optim.schedules import as_schedule
from sparkopt.optim.search import Backtracking, Fixed
from sparkopt.optim.subsampled_newton import SubsampledNewton
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
from sparkopt.typing import Schedule

__all__ = [
    "OPTIMIZERS",
    "OUTER",
    "Rate",
    "adadelta",
    "adagrad",
    "adam",
    "adamw",
    "amsgrad",
    "averaging",
    "by_name",
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
    "proximal_lbfgs",
    "proximal_newton",
    "rmsprop",
    "sgd",
    "subsampled_newton",
    "svrg",
]

Rate: TypeAlias = float | Schedule
"""A learning rate: a number, or a schedule of the step number."""


def gd(learning_rate: Rate | None = None) -> Optimizer:
    """Gradient descent (Cauchy, 1847): with a learning rate a fixed step, without one a backtracking search."""
    if learning_rate is None:
        return Optimizer("gd", scale_by_learning_rate(1.0), Backtracking())
    return Optimizer("gd", scale_by_learning_rate(learning_rate), Fixed(prox_rate=learning_rate))


def sgd(learning_rate: Rate = 0.1) -> Optimizer:
    """Stochastic gradient descent (Robbins & Monro, 1951): the same step on the rows that each step draws."""
    return Optimizer("sgd", scale_by_learning_rate(learning_rate), Fixed(prox_rate=learning_rate))


def momentum(learning_rate: Rate = 0.05, decay: float = 0.9) -> Optimizer:
    """Gradient descent with heavy-ball momentum (Polyak, 1964)."""
    return _fixed("momentum", trace(decay), scale_by_learning_rate(learning_rate))


def nesterov(learning_rate: Rate = 0.05, decay: float = 0.9) -> Optimizer:
    """Gradient descent with Nesterov's momentum (Nesterov, 1983; Sutskever et al., 2013)."""
    return _fixed("nesterov", trace(decay, nesterov=True), scale_by_learning_rate(learning_rate))


def adagrad(learning_rate: Rate = 0.1, epsilon: float = 1e-10) -> Optimizer:
    """AdaGrad (Duchi, Hazan & Singer, 2011)."""
    return _fixed("adagrad", scale_by_rss(epsilon), scale_by_learning_rate(learning_rate))


def adadelta(learning_rate: Rate = 1.0, decay: float = 0.9, epsilon: float = 1e-6) -> Optimizer:
    """AdaDelta (Zeiler, 2012), which chooses its own step sizes; the learning rate multiplies them."""
    return _fixed("adadelta", scale_by_adadelta(decay, epsilon), scale_by_learning_rate(learning_rate))


def rmsprop(learning_rate: Rate = 0.01, decay: float = 0.99, epsilon: float = 1e-8) -> Optimizer:
    """RMSProp (Tieleman & Hinton, 2012)."""
    return _fixed("rmsprop", scale_by_rms(decay, epsilon), scale_by_learning_rate(learning_rate))


def adam(learning_rate: Rate = 0.05, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam (Kingma & Ba, 2015)."""
    return _fixed("adam", scale_by_adam(beta1, beta2, epsilon), scale_by_learning_rate(learning_rate))


def amsgrad(learning_rate: Rate = 0.05, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam with the largest second moment so far (Reddi, Kale & Kumar, 2018)."""
    return _fixed(
        "amsgrad", scale_by_adam(beta1, beta2, epsilon, amsgrad=True), scale_by_learning_rate(learning_rate)
    )


def nadam(
    learning_rate: Rate = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_decay: float = 4e-3,
) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat, 2016)."""
    return _fixed(
        "nadam", scale_by_nadam(beta1, beta2, epsilon, momentum_decay), scale_by_learning_rate(learning_rate)
    )


def adamw(
    learning_rate: Rate = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019). The decay is no part of the objective."""
    return _fixed(
        "adamw",
        scale_by_adam(beta1, beta2, epsilon),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
    )


def lion(learning_rate: Rate = 0.01, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> Optimizer:
    """Lion (Chen et al., 2023): steps of one size, so the rate should fall. The decay is no part of the objective."""
    return _fixed(
        "lion", scale_by_lion(beta1, beta2), add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate)
    )


def lars(learning_rate: Rate = 0.02, decay: float = 0.9, trust: float = 1.0, weight_decay: float = 0.0) -> Optimizer:
    """LARS (You, Gitman & Ginsburg, 2017, algorithm 1): momentum, with steps that are a share of the coefficients.

    Only the product of ``learning_rate`` and ``trust`` matters (theirs: 0.001 · 1 to 30), and the rate should fall.
    The decay is no part of the objective.
    """
    return _fixed(
        "lars",
        add_decayed_weights(weight_decay),
        scale_by_trust_ratio(trust),
        scale_by_learning_rate(learning_rate),
        trace(decay),
    )


def lamb(
    learning_rate: Rate = 0.02,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
) -> Optimizer:
    """LAMB (You et al., 2020, algorithm 2): Adam, with steps that are a share of the coefficients.

    The rate should fall. The decay is no part of the objective.
    """
    return _fixed(
        "lamb",
        scale_by_adam(beta1, beta2, epsilon),
        add_decayed_weights(weight_decay),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


def svrg(learning_rate: Rate = 0.1, snapshot_every: int = 50) -> Optimizer:
    """Stochastic variance-reduced gradient (Johnson & Zhang, 2013; nonsmooth, Xiao & Zhang, 2014).

    Every ``snapshot_every`` steps there is one pass over all rows; the papers take 2 / miniBatchFraction. The rate
    may stay constant, since the noise vanishes at the optimum.
    """
    return Optimizer("svrg", scale_by_learning_rate(1.0), VarianceReduced(learning_rate, snapshot_every))


def lbfgs(memory: int = 10, initial_hessian: InitialHessian | None = None) -> Optimizer:
    """L-BFGS with a strong Wolfe search (Liu & Nocedal, 1989): the default for smooth objectives.

    ``initial_hessian`` is where its first estimate of curvature comes from: by default, for models of up to 256
    coefficients, from one pass over a sample of the rows.
    """
    return Optimizer("lbfgs", scale_by_learning_rate(1.0), QuasiNewton(memory, initial_hessian or InitialHessian()))


def owlqn(memory: int = 10) -> Optimizer:
    """Orthant-wise L-BFGS (Andrew & Gao, 2007): for L1 penalties, as pyspark.ml has it."""
    return Optimizer("owlqn", scale_by_learning_rate(1.0), OrthantWise(memory))


def newton_cg(max_products: int = 50) -> Optimizer:
    """Newton's method by conjugate gradients (Nocedal & Wright, 2006, algorithm 7.1): few steps of many passes."""
    return Optimizer("newton-cg", scale_by_learning_rate(1.0), NewtonCG(max_products))


def proximal_newton() -> Optimizer:
    """Proximal Newton, the outer loop of glmnet, glum and H2O's IRLSM: few steps, each with the Hessian in its pass.

    For any penalty; for models of up to about a thousand coefficients, since a Hessian has their square of entries.
    """
    return Optimizer("proximal-newton", scale_by_learning_rate(1.0), ProximalNewton())


def subsampled_newton(sample: int = 30, share: float = 0.03) -> Optimizer:
    """Proximal Newton with Hessians of a sample (Roosta-Khorasani & Mahoney, 2019): a few more passes, far cheaper.

    The sample has ``sample`` rows for each coefficient, or ``share`` of all rows where that is more.
    """
    return Optimizer("subsampled-newton", scale_by_learning_rate(1.0), SubsampledNewton(sample=sample, share=share))


def proximal_lbfgs(memory: int = 10) -> Optimizer:
    """Proximal L-BFGS (Lee, Sun & Saunders, 2014): for any penalty, and for models too wide for a Hessian.

    As ``proximal_newton``, with a Hessian that the last ``memory`` steps estimate.
    """
    return Optimizer("proximal-lbfgs", scale_by_learning_rate(1.0), ProximalQuasiNewton(memory))


def fista(learning_rate: Rate | None = None) -> Optimizer:
    """Accelerated proximal gradient descent (Beck & Teboulle, 2009): for any nonsmooth penalty.

    ``learning_rate`` is the first length that the search tries.
    """
    first = 1.0 if learning_rate is None else as_schedule(learning_rate)(0)
    return Optimizer("fista", scale_by_learning_rate(1.0), AcceleratedProximal(initial=first))


def _fixed(name: str, *links: GradientTransformation) -> Optimizer:
    search: Search = Fixed()
    return Optimizer(name, chain(*links), search)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {
        "gd": gd,
        "sgd": sgd,
        "momentum": momentum,
        "nesterov": nesterov,
        "adagrad": adagrad,
        "adadelta": adadelta,
        "rmsprop": rmsprop,
        "adam": adam,
        "amsgrad": amsgrad,
        "nadam": nadam,
        "adamw": adamw,
        "lion": lion,
        "lars": lars,
        "lamb": lamb,
        "svrg": svrg,
        "fista": fista,
        "lbfgs": lbfgs,
        "owlqn": owlqn,
        "newton-cg": newton_cg,
        "proximal-newton": proximal_newton,
        "subsampled-newton": subsampled_newton,
        "proximal-lbfgs": proximal_lbfgs,
    }
)
"""Every optimiser by its name."""


def by_name(name: str, learning_rate: Rate | None = None) -> Optimizer:
    """Return the optimiser called ``name`` with its defaults, or with the learning rate given.

    Raises
    ------
    ParameterError
        For an unknown name, or a learning rate where the method chooses its own steps.

    Examples
    --------
    >>> by_name("adam", 0.1).name
    'adam'
    """
    if name not in OPTIMIZERS:
        raise ParameterError(f"optimizer must be one of {', '.join(OPTIMIZERS)}. Got {name!r} instead.")
    factory = OPTIMIZERS[name]
    if learning_rate is None:
        return factory()
    if "learning_rate" not in inspect.signature(factory).parameters:
        raise ParameterError(f"optimizer={name!r} finds its own step sizes: leave stepSize unset.")
    return factory(learning_rate=learning_rate)


def averaging(learning_rate: Rate = 1.0) -> Optimizer:
    """Set the coefficients to the mean of the partitions' after their local steps (Stich, 2019, *Local SGD*, §2).

    A ``learning_rate`` other than 1 takes that share of the step to the mean. For ``LocalSteps.outer``.
    """
    return _fixed("average", scale_by_learning_rate(learning_rate))


def diloco(learning_rate: Rate = 0.7, decay: float = 0.9) -> Optimizer:
    """Nesterov's momentum over mean local updates (Douillard et al., 2023, *DiLoCo*, algorithm 1).

    The rate and the decay are theirs (§3.1). For ``LocalSteps.outer``.
    """
    return _fixed("diloco", trace(decay, nesterov=True), scale_by_learning_rate(learning_rate))


OUTER: Mapping[str, Callable[..., Optimizer]] = MappingProxyType({"average": averaging, "diloco": diloco})
"""Outer optimizers of local steps, by name."""


def outer_by_name(name: str, learning_rate: Rate | None = None) -> Optimizer:
    """Return an outer optimizer of local steps: "average", "diloco", or any optimiser of ``by_name``.

    Raises
    ------
    ParameterError
        As ``by_name`` does.
    """
    if name not in OUTER:
        return by_name(name, learning_rate)
    return OUTER[name]() if learning_rate is None else OUTER[name](learning_rate)
