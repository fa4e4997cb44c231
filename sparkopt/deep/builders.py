"""Networks by name: what a saved model holds instead of code.

A saved model holds weights, and the name of an importable class or function with plain arguments. Loading imports
that module, and calls what is named only if it is a subclass of ``nn.Module``, or a function that its author marked
as a builder: nothing else that a file could name is ever called.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from sparkopt.errors import DataError, ParameterError
from sparkopt.values import dataclass

__all__ = ["Reference", "builder", "why_nameless"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__sparkopt_builder__"


def builder(function: F) -> F:
    """Mark a function at module level that builds a network, so that saved models may name it.

    So are functions marked that a saved estimator may name: a loss, a step, what makes an optimiser or a scheduler.

    Examples
    --------
    >>> @builder
    ... def perceptron(hidden: int = 8) -> nn.Module:
    ...     return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 1))
    """
    setattr(function, _MARK, True)
    return function


@dataclass(frozen=True)
class Reference:
    """What to build.

    Parameters
    ----------
    name : str
        ``module:qualified.name`` of a class or function.
    positional : tuple
        Positional arguments, as JSON holds them.
    keywords : dict
        Keyword arguments, as JSON holds them.
    """

    name: str
    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    @classmethod
    def of(cls, build: Any, kinds: tuple[type, ...] = (nn.Module,)) -> Reference:
        """Name what builds the network, or an object of other ``kinds``.

        Raises
        ------
        ParameterError
            Where it has no name that another process could import; the message names alternatives.
        """
        positional, keywords = (), {}
        if isinstance(build, functools.partial):
            build, positional, keywords = build.func, build.args, build.keywords
        if isinstance(build, nn.Module):
            raise ParameterError(
                f"a {type(build).__name__} that was built already cannot be saved without pickling code. Give "
                "TorchEstimator what builds it: the class, functools.partial(Class, argument=value), or a function "
                "with @sparkopt.deep.builder."
            )
        name = f"{build.__module__}:{build.__qualname__}"
        if build.__module__ == "__main__" or "<" in build.__qualname__:
            raise ParameterError(f"{name} cannot be imported by another process. Move it to a module of its own.")
        reference = cls(name, tuple(positional), dict(keywords))
        if reference._callable(kinds) is not build:
            raise ParameterError(f"{name} is not what built the model: the name was given to something else.")
        try:
            json.dumps([positional, keywords])
        except TypeError as error:
            raise ParameterError(f"arguments of {name} must be plain values that JSON holds: {error}.") from error
        return reference

    def builder(self, kinds: tuple[type, ...] = (nn.Module,)) -> Callable[..., Any]:
        """Import what is named, and return what builds the network; nothing is called yet.

        Raises
        ------
        DataError
            Where it is neither a subclass of one of ``kinds`` nor marked as a builder.
        """
        found = self._callable(kinds)
        return functools.partial(found, *self.positional, **self.keywords)

    def _callable(self, kinds: tuple[type, ...]) -> Callable[..., Any]:
        module, _, path = self.name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise DataError(f"the network {self.name!r} cannot be imported: {error}.") from error
        if not (isinstance(found, type) and issubclass(found, kinds)) and getattr(found, _MARK, None) is not True:
            names = " or ".join("nn.Module" if kind is nn.Module else kind.__name__ for kind in kinds)
            lacks = f"is neither a subclass of {names} nor marked" if kinds else "is not marked"
            raise DataError(f"{self.name!r} {lacks} with @sparkopt.deep.builder, and so is not called.")
        callable_found: Callable[..., Any] = found
        return callable_found


def why_nameless(build: Any, kinds: tuple[type, ...] = (nn.Module,)) -> str | None:
    """Return why another process could not import what builds a network; None where it can."""
    try:
        Reference.of(build, kinds)
    except (ParameterError, DataError) as error:
        return str(error)
    return None
