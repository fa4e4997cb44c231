"""The optimisers by their usual names: each a chain and a search.

Defaults are those of torch.optim where it has the method, but for the learning rate: the models here see
standardised features, where larger steps are safe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sparkopt.errors import ParameterError
from sparkopt.optim.base import GradientTransformation, Optimizer, Search, chain
from sparkopt.optim.schedules import as_schedule
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
from sparkopt.typing import Schedule

__all__ = [
    "OPTIMIZERS",
    "adagrad",
    "adam",
    "adamw",
    "by_name",
    "fista",
    "gd",
    "lbfgs",
    "momentum",
    "nesterov",
    "rmsprop",
    "sgd",
]

Rate = float | Schedule


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


def rmsprop(learning_rate: Rate = 0.01, decay: float = 0.99, epsilon: float = 1e-8) -> Optimizer:
    """RMSProp (Tieleman & Hinton, 2012)."""
    return _fixed("rmsprop", scale_by_rms(decay, epsilon), scale_by_learning_rate(learning_rate))


def adam(learning_rate: Rate = 0.05, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam (Kingma & Ba, 2015)."""
    return _fixed("adam", scale_by_adam(beta1, beta2, epsilon), scale_by_learning_rate(learning_rate))


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


def lbfgs(memory: int = 10) -> Optimizer:
    """L-BFGS with a strong Wolfe search (Liu & Nocedal, 1989): the default for smooth objectives."""
    return Optimizer("lbfgs", scale_by_lbfgs(memory), StrongWolfe())


def fista(learning_rate: Rate | None = None) -> Optimizer:
    """Accelerated proximal gradient descent (Beck & Teboulle, 2009): the default where the penalty has an L1 part.

    ``learning_rate`` is the first length that the search tries.
    """
    first = 1.0 if learning_rate is None else as_schedule(learning_rate)(0)
    return Optimizer("fista", scale_by_learning_rate(1.0), AcceleratedProximal(initial=first))


def _fixed(name: str, *links: GradientTransformation) -> Optimizer:
    search: Search = Fixed()
    return Optimizer(name, chain(*links), search)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {f.__name__: f for f in (gd, sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lbfgs, fista)}
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
