"""Group lasso: coefficients that become zero together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkopt.errors import ParameterError
from sparkopt.penalties.base import Coordinates, Penalty
from sparkopt.typing import Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["GroupLasso"]


@dataclass(frozen=True)
class GroupLasso(Penalty):
    """reg_param · Σ over groups of √(size of group) · ‖w of group‖₂ (Yuan & Lin, 2006, eq. 2.1).

    A group's coefficients become zero together. With several outputs, a group holds the coefficients of its features
    for all outputs.

    Parameters
    ----------
    reg_param : float
        Strength, ≥ 0.
    groups : sequence of sequences of int
        Indices of the features in each group; no feature in two. Features in no group are not penalised.
    factors : ndarray of shape (size,) or None, default None
        Penalise ``factors * w`` instead of ``w``.

    Examples
    --------
    >>> import numpy as np
    >>> penalty = GroupLasso(1.0, [[0, 1]])
    >>> round(penalty.value(np.array([3.0, 4.0, 9.0])) ** 2, 9)
    50.0
    >>> penalty.prox(np.array([3.0, 4.0, 9.0]), step=2.5 / np.sqrt(2)).tolist()
    [1.5, 2.0, 9.0]
    """

    reg_param: float
    groups: Sequence[Sequence[int]]
    factors: Any = None
    label = "a group lasso"

    def __post_init__(self) -> None:
        check("reg_param", self.reg_param, Interval(0, None))
        members = [int(feature) for group in self.groups for feature in group]
        if not members or min(members) < 0 or len(set(members)) < len(members) or not all(map(len, self.groups)):
            raise ParameterError(
                "groups must be lists of feature numbers from 0, none empty and no feature in two of them. "
                f"Got {list(map(list, self.groups))!r} instead."
            )
        object.__setattr__(self, "groups", tuple(tuple(map(int, group)) for group in self.groups))

    @property
    def smooth(self) -> bool:
        """Whether the strength is zero."""
        return self.reg_param == 0

    def _members(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], Floats]:
        """Return the members, group by group, where each group starts, how many it has, and the members' factors."""
        sizes = np.array([len(group) for group in self.groups])
        members = np.fromiter(chain.from_iterable(self.groups), np.intp, int(sizes.sum()))
        factors = np.ones(len(members)) if self.factors is None else np.abs(self.factors[members])
        return members, np.cumsum(sizes) - sizes, sizes, factors

    def value(self, coef: Floats) -> float:
        """Return the sum over groups."""
        members, starts, sizes, factors = self._members()
        norms = np.sqrt(np.add.reduceat(np.square(factors * coef[members]), starts))
        return self.reg_param * float(np.sqrt(sizes) @ norms)

    def smooth_value(self, coef: Floats) -> float:
        """Return zero."""
        return 0.0

    def gradient(self, coef: Floats) -> Floats:
        """Return zeros."""
        return np.zeros_like(coef)

    def prox(self, coef: Floats, step: float) -> Floats:
        """Return the coefficients with each group's norm shrunk."""
        members, starts, sizes, factors = self._members()
        own, shrunk = coef[members], coef.copy()
        norms, thresholds = np.sqrt(np.add.reduceat(own * own, starts)), step * self.reg_param * np.sqrt(sizes)
        shares = np.clip(1.0 - thresholds * factors[starts] / np.where(norms > 0, norms, 1.0), 0.0, 1.0)
        shrunk[members] = own * np.repeat(shares, sizes)  # right where the members' factors are equal
        unlike = np.minimum.reduceat(factors, starts) < np.maximum.reduceat(factors, starts)
        for i in np.flatnonzero(unlike):
            part = slice(starts[i], starts[i] + sizes[i])
            shrunk[members[part]] = _shrink_norm(own[part], factors[part], float(thresholds[i]))
        return shrunk

    def times(self, strength: float) -> GroupLasso:
        """Multiply ``reg_param``."""
        return replace(self, reg_param=self.reg_param * strength)

    def on(self, factors: Floats) -> GroupLasso:
        """Penalise ``factors * w``."""
        return replace(self, factors=factors if self.factors is None else self.factors * factors)

    def at(self, coordinates: Coordinates) -> GroupLasso:
        """Index the groups' members by coefficient instead of by feature.

        Raises
        ------
        ParameterError
            Where a group names a feature that does not exist.
        """
        features, outputs = coordinates.features, coordinates.outputs
        last = max(feature for group in self.groups for feature in group)
        if last >= features:
            raise ParameterError(f"groups must name features from 0 to {features - 1}. Got {last} instead.")
        members = [[feature * outputs + k for feature in group for k in range(outputs)] for group in self.groups]
        return replace(self, groups=members).on(coordinates.factors)


def _shrink_norm(v: Floats, factors: Floats, threshold: float) -> Floats:
    """Return the argmin over u of ½‖u − v‖² + threshold · ‖factors · u‖₂.

    For equal factors f this is v · max(0, 1 − threshold · f / ‖v‖). In general u = v s / (s + threshold · f²), where
    s = ‖f u‖ > 0 is the root of Σ (f v / (s + threshold · f²))² = 1. The left side is convex and decreasing in s, so
    Newton's method from 0 converges without overshooting. Where it is at most 1 at 0, there is no root, and u f = 0.
    """
    weight = factors * factors * threshold
    active = weight > 0
    if not active.any():
        return v
    pull, weight = factors[active] * v[active], weight[active]
    s = 0.0
    if np.square(pull / weight).sum() > 1:
        for _ in range(100):
            share = np.square(pull / (s + weight))
            total = share.sum()
            # Newton on total^(−1/2) = 1, which is nearly linear in s
            move = total * (np.sqrt(total) - 1) / (share / (s + weight)).sum()
            s += move
            if move <= 1e-15 * s:
                break
    shrunk = v.copy()
    shrunk[active] = v[active] * (s / (s + weight))
    return shrunk
