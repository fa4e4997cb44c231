"""Optimisers by name, and the outer optimisers of local steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sparkopt.errors import ParameterError
from sparkopt.optim import aliases
from sparkopt.optim.aliases import Rate
from sparkopt.optim.base import Optimizer

__all__ = ["OPTIMIZERS", "OUTER", "by_name", "outer_by_name"]

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {
        "gd": aliases.gd,
        "sgd": aliases.sgd,
        "momentum": aliases.momentum,
        "nesterov": aliases.nesterov,
        "adagrad": aliases.adagrad,
        "adadelta": aliases.adadelta,
        "rmsprop": aliases.rmsprop,
        "adam": aliases.adam,
        "amsgrad": aliases.amsgrad,
        "nadam": aliases.nadam,
        "adamw": aliases.adamw,
        "lion": aliases.lion,
        "lars": aliases.lars,
        "lamb": aliases.lamb,
        "ademamix": aliases.ademamix,
        "adan": aliases.adan,
        "adafactor": aliases.adafactor,
        "muon": aliases.muon,
        "soap": aliases.soap,
        "sophia": aliases.sophia,
        "ftrl": aliases.ftrl,
        "schedule-free-sgd": aliases.schedule_free_sgd,
        "schedule-free-adamw": aliases.schedule_free_adamw,
        "prodigy": aliases.prodigy,
        "dadapt-adam": aliases.dadapt_adam,
        "dog": aliases.dog,
        "dowg": aliases.dowg,
        "svrg": aliases.svrg,
        "fista": aliases.fista,
        "lbfgs": aliases.lbfgs,
        "owlqn": aliases.owlqn,
        "newton-cg": aliases.newton_cg,
        "proximal-newton": aliases.proximal_newton,
        "subsampled-newton": aliases.subsampled_newton,
        "proximal-lbfgs": aliases.proximal_lbfgs,
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


OUTER: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"average": aliases.averaging, "diloco": aliases.diloco}
)
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
