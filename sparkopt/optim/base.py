"""What an optimiser is: a chain of gradient transformations, and a search for the next coefficients.

The vocabulary is optax's (DeepMind, 2020): a transformation has ``init`` and one pure ``update``, state is passed and
never stored, so a state is a checkpoint and a repeated step is harmless.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from sparkopt.optim.request import Gradients, Request
from sparkopt.typing import Floats, State
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["Chain", "Evaluate", "GradientTransformation", "Optimizer", "Point", "Search", "chain"]


class GradientTransformation(ABC):
    """One link of an optimiser: turns a gradient into a step, or a step into another step.

    Attributes
    ----------
    learns_length : bool
        The first steps are tiny, or none, until those before have shown how to take them: not for local steps, where
        every round starts over.
    keeps_bounds : bool
        Each step scales the coordinates of the gradients by positive numbers, so that projected steps end at the
        optimum inside bounds.
    """

    @property
    def learns_length(self) -> bool:
        """Whether the first steps are tiny."""
        return False

    @property
    def keeps_bounds(self) -> bool:
        """Whether projected steps end at the optimum inside bounds."""
        return True

    def init(self, coef: Floats) -> State:
        """Return the state before the first step; stateless links need none."""
        return ()

    @abstractmethod
    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Return what to add to ``coef`` (or to pass to the next link) and the next state.

        ``gradient`` and ``coef`` have shape (size,) and must not be changed in place.
        """

    def finish(self, state: State, coef: Floats) -> Floats:
        """Return the coefficients to end with, given the last ones; ``coef`` itself for all links but averages."""
        return coef

    def frozen_at(self, step: int) -> GradientTransformation:
        """Return the same link with its schedules constant at their values of ``step``, or itself."""
        return self

    def shaped(self, rows: int, columns: int) -> GradientTransformation:
        """Return the same link where the first coefficients are a matrix of this shape, row by row, or itself."""
        return self


@dataclass(frozen=True)
class Chain(GradientTransformation):
    """Links applied one after another."""

    links: tuple[GradientTransformation, ...]

    @property
    def learns_length(self) -> bool:
        """Whether any link does."""
        return any(link.learns_length for link in self.links)

    @property
    def keeps_bounds(self) -> bool:
        """Whether all links do."""
        return all(link.keeps_bounds for link in self.links)

    def init(self, coef: Floats) -> State:
        """Return one state per link."""
        return tuple(link.init(coef) for link in self.links)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Pass the gradient through all links."""
        states = []
        for link, before in zip(self.links, state, strict=True):
            gradient, after = link.update(gradient, before, coef)
            states.append(after)
        return gradient, tuple(states)

    def finish(self, state: State, coef: Floats) -> Floats:
        """Apply every link's ``finish`` in turn."""
        for link, last in zip(self.links, state, strict=True):
            coef = link.finish(last, coef)
        return coef

    def frozen_at(self, step: int) -> Chain:
        """Freeze the schedules of every link."""
        return Chain(tuple(link.frozen_at(step) for link in self.links))

    def shaped(self, rows: int, columns: int) -> Chain:
        """Tell every link the matrix's shape."""
        return Chain(tuple(link.shaped(rows, columns) for link in self.links))


def chain(*links: GradientTransformation) -> Chain:
    """Apply ``links`` in the order given.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt.optim import chain, scale_by_learning_rate, trace
    >>> momentum = chain(trace(0.9), scale_by_learning_rate(0.1))
    >>> coef = np.zeros(2)
    >>> momentum.update(np.array([1.0, -2.0]), momentum.init(coef), coef)[0]
    array([-0.1,  0.2])
    """
    return Chain(links)


@dataclass(frozen=True)
class Point:
    """The objective at one point.

    Attributes
    ----------
    coef : ndarray of shape (size,)
        The coefficients.
    value : float
        The objective, penalty included.
    smooth : float
        The objective without the nonsmooth part of the penalty.
    gradient : ndarray of shape (size,)
        Gradient of the smooth part, of shape (0,) in an answer to ``Losses``; the product in one to
        ``HessianProducts``.
    validation : float or None, default None
        Mean loss of the validation rows, without penalty, where they were evaluated.
    hessian : ndarray of shape (size, size) or None, default None
        Hessian of the smooth part, in an answer to ``Hessians``.
    rows : int, default 0
        Rows that the pass touched.
    """

    coef: Floats
    value: float
    smooth: float
    gradient: Floats
    validation: float | None = None
    hessian: Floats | None = None
    rows: int = 0

    @property
    def is_finite(self) -> bool:
        """Whether objective and gradient are finite."""
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())


Evaluate: TypeAlias = Generator[Request, list[Point], tuple[Point, State]]
"""A search in progress: yields requests, is sent the points, returns where it ended and its next state."""


class Search(ABC):
    """Finds the next coefficients along a direction, or along one of its own.

    A search is a generator, so that it need not know where the objective comes from and many of them can share one
    pass over the data: it yields requests and is sent the points.

    Attributes
    ----------
    needs_exact : bool
        It compares objectives, or gradients, of different steps, so all of them must be over all rows.
    needs_gradient : bool
        It needs exact gradients: neither local updates, nor gradients that a lossy codec decoded.
    converges_linearly : bool
        The gap that it estimates falls by about the same factor in each step, not ever faster.
    halving : int
        Steps in which a small gap at least halves, where it is not that of rounding.
    """

    needs_exact: bool = True
    needs_gradient: bool = True
    converges_linearly: bool = False
    halving: ClassVar[int] = 10

    def serves(self, penalty: Penalty) -> bool:
        """Whether it finds the optimum with this penalty."""
        return penalty.smooth

    def init(self, coef: Floats) -> State:
        """Return the state before the first step."""
        return ()

    def first_request(self, points: Floats) -> Request:
        """Return what to evaluate where a descent begins, shape (1, size)."""
        return Gradients(points)

    def gap(self, at: Point, penalty: Penalty, state: State) -> float | None:
        """Estimate how far the objective at ``at`` is above the optimum, given the state there; or return None."""
        return None

    @abstractmethod
    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Search from ``at`` along ``direction``; where no progress is possible, the result is ``at`` itself."""


@dataclass(frozen=True)
class Optimizer:
    """A method: the direction of a step, and the search along it.

    Parameters
    ----------
    name : str
        Its name in errors and receipts.
    transform : GradientTransformation
        From gradient to direction.
    search : Search
        From direction to the next coefficients.
    """

    name: str
    transform: GradientTransformation
    search: Search

    def shaped(self, rows: int, columns: int) -> Optimizer:
        """Return the method for coefficients that begin with a matrix of this shape, row by row."""
        return replace(self, transform=self.transform.shaped(rows, columns))
