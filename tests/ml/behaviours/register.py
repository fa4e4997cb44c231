"""The table of behaviours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

from sparkopt.errors import NotConvergedWarning
from tests.ml.behaviours.kinds import World

BEHAVIOURS: dict[str, Callable[[World], None]] = {}
"""By name: of the behaviour, and of the kind where there are several."""


def behaviour(kinds: Iterable[str] | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put a function of a world into the table; with kinds, a function of a world and a kind's name."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__.replace("_", " ")
        if kinds is None:
            BEHAVIOURS[name] = function
        for kind in kinds or ():
            BEHAVIOURS[f"{name}: {kind}"] = _of(function, kind)
        return function

    return register


def _of(function: Callable[..., None], kind: str) -> Callable[[World], None]:
    def of(world: World) -> None:
        function(world, kind)

    return of


def run(name: str, world: World) -> None:
    """Run a behaviour; few steps and separated classes are none of its concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        BEHAVIOURS[name](world)
