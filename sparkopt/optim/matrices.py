"""Links for matrices of coefficients, as multinomial models have them: their rows and columns are mixed.

Coefficients are one vector: the matrix row by row, then intercepts and the loss's own parameters. ``shaped`` says
what of it is the matrix; without that it is all of the vector, as one column. What is no matrix takes Adam's steps.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TypeAlias, TypeVar

import numpy as np

from sparkopt.optim.base import GradientTransformation
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ScaleByMuon", "ScaleBySoap", "orthogonalised", "scale_by_muon", "scale_by_soap"]

DECAY = Interval(0, 1, closed="left")
POSITIVE = Interval(0, None, closed="neither")
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration's polynomial: steepest at zero, so that small singular values grow quickly."""

BETA1, BETA2 = 0.9, 0.999
"""Adam's, for what is no matrix."""

M = TypeVar("M", bound="_MatrixLink")
Pair: TypeAlias = "tuple[Floats | None, Floats | None]"
"""Of the rows and of the columns; None where there are too many."""


@dataclass(frozen=True)
class _MatrixLink(GradientTransformation):
    """A link that knows which part of the coefficients is a matrix."""

    rows: int | None = field(default=None, kw_only=True)
    columns: int = field(default=1, kw_only=True)

    keeps_bounds = False  # coordinates are mixed

    def shaped(self: M, rows: int, columns: int) -> M:
        """Return the link for a matrix of this shape at the beginning of the coefficients."""
        return replace(self, rows=rows, columns=columns)

    def _split(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the matrix and the rest."""
        rows = len(values) // self.columns if self.rows is None else self.rows
        size = rows * self.columns
        return values[:size].reshape(rows, self.columns), values[size:]


def _joined(matrix: Floats, rest: Floats) -> Floats:
    return np.concatenate([matrix.ravel(), rest])


def orthogonalised(matrix: Floats, steps: int = 5, epsilon: float = 1e-8) -> Floats:
    """Return about the nearest matrix with orthonormal rows or columns: its singular values are between 0.7 and 1.2.

    A Newton-Schulz iteration with a polynomial of degree five (Jordan et al., 2024, *Muon*): products of matrices.

    Parameters
    ----------
    matrix : ndarray of shape (rows, columns)
        The matrix.
    steps : int, default 5
        Iterations.
    epsilon : float, default 1e-8
        Added to the norm that it is divided by.

    Examples
    --------
    >>> import numpy as np
    >>> found = np.linalg.svd(orthogonalised(np.array([[3.0, 0.1], [0.0, 1.0], [1.0, 1.0]])), compute_uv=False)
    >>> bool(((found > 0.6) & (found < 1.3)).all())
    True
    """
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / (np.linalg.norm(found) + epsilon)
    one, three, five = QUINTIC
    for _ in range(steps):
        gram = found @ found.T
        found = one * found + (three * gram + five * gram @ gram) @ found
    return found.T if tall else found


@dataclass(frozen=True)
class ScaleByMuon(_MatrixLink):
    """Muon: momentum whose singular values are made about equal (Jordan et al., 2024; Bernstein & Newhouse, 2024).

    As ``optax.contrib.muon``: the matrix's step is √max(1, columns / rows) · orthogonalised momentum, and the rest
    takes Adam's steps at the same rate, with its look-ahead (Dozat, 2016).

    Parameters
    ----------
    beta : float, default 0.95
        Decay of the mean of g, in [0, 1).
    nesterov : bool, default True
        Look ahead: beta · m̂ + (1 − beta) · ĝ.
    steps : int, default 5
        Newton-Schulz iterations.
    epsilon : float, default 1e-8
        Added to norms, and to Adam's root.
    bias_correction : bool, default True
        Correct the means for their start at zero, as optax does; PyTorch's Muon does not.
    """

    beta: float = 0.95
    nesterov: bool = True
    steps: int = 5
    epsilon: float = 1e-8
    bias_correction: bool = True

    def __post_init__(self) -> None:
        check("beta", self.beta, DECAY)
        check("steps", self.steps, Interval(1, None, whole=True))
        check("epsilon", self.epsilon, POSITIVE)

    def init(self, coef: Floats) -> State:
        """Return step 0, no momentum, and Adam's moments of the rest."""
        matrix, rest = self._split(coef)
        return 0, np.zeros_like(matrix), np.zeros_like(rest), np.zeros_like(rest)

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Update the momentum, look ahead, orthogonalise."""
        count, momentum, first, second = state
        count += 1
        matrix, rest = self._split(gradient)
        momentum = self.beta * momentum + (1 - self.beta) * matrix
        wide = np.sqrt(max(1.0, matrix.shape[1] / max(1, matrix.shape[0])))
        ahead = self._ahead(self.beta, momentum, matrix, count if self.bias_correction else None)
        step = wide * orthogonalised(ahead, self.steps, self.epsilon)
        first = BETA1 * first + (1 - BETA1) * rest
        second = BETA2 * second + (1 - BETA2) * rest * rest
        root = np.sqrt(second / (1 - BETA2**count)) + self.epsilon
        return _joined(step, self._ahead(BETA1, first, rest, count) / root), (count, momentum, first, second)

    def _ahead(self, beta: float, mean: Floats, gradient: Floats, count: int | None) -> Floats:
        """Return the mean with its look-ahead; with ``count``, corrected for its start at zero."""
        now, next_ = (1.0, 1.0) if count is None else (1 - beta**count, 1 - beta ** (count + 1))
        return beta * mean / next_ + (1 - beta) * gradient / now if self.nesterov else mean / now


@dataclass(frozen=True)
class ScaleBySoap(_MatrixLink):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2024, algorithm 3).

    The steps are those of the authors' code. The basis is that of the gradients before: the first step only begins
    it, and moves nothing. It follows the means of G·Gᵀ and Gᵀ·G by one step of orthogonal iteration every few steps.
    What is no matrix is in its own basis.

    Parameters
    ----------
    beta1, beta2 : float, default 0.95
        Decay of the means of g, and of g², G·Gᵀ and Gᵀ·G, in [0, 1).
    epsilon : float, default 1e-8
        Added to the root.
    every : int, default 10
        Steps between changes of the basis.
    most : int, default 2048
        A side of the matrix that is longer keeps its own basis: a basis costs its square in memory, and its cube in
        arithmetic each time that it changes.
    """

    beta1: float = 0.95
    beta2: float = 0.95
    epsilon: float = 1e-8
    every: int = 10
    most: int = 2048

    learns_length = True  # the first step is none

    def __post_init__(self) -> None:
        check("beta1", self.beta1, DECAY)
        check("beta2", self.beta2, DECAY)
        check("epsilon", self.epsilon, POSITIVE)
        check("every", self.every, Interval(1, None, whole=True))
        check("most", self.most, Interval(0, None, whole=True))

    def init(self, coef: Floats) -> State:
        """Return step 0, moments of zero, and no basis."""
        return 0, np.zeros_like(coef), np.zeros_like(coef), None, None

    def update(self, gradient: Floats, state: State, coef: Floats) -> tuple[Floats, State]:
        """Take Adam's step in the basis, then let the basis follow."""
        count, first, second, means, basis = state
        matrix, rest = self._split(gradient)
        own = self._followed(means, matrix)
        if basis is None:
            begun = tuple(None if mean is None else _in_order(np.linalg.eigh(mean)[1][:, ::-1]) for mean in own)
            return np.zeros_like(gradient), (0, first, second, own, begun)
        count += 1
        turned = _joined(_into(matrix, basis), rest)
        first = self.beta1 * first + (1 - self.beta1) * turned
        second = self.beta2 * second + (1 - self.beta2) * turned * turned
        factor = np.sqrt(1 - self.beta2**count) / (1 - self.beta1**count)
        matrix, rest = self._split(factor * first / (np.sqrt(second) + self.epsilon))
        step = _joined(_out_of(matrix, basis), rest)
        if count % self.every == 0:
            (momentum, intercepts), (squares, others) = self._split(first), self._split(second)
            momentum = _out_of(momentum, basis)
            basis, squares = _followed_basis(own, basis, squares)
            first, second = _joined(_into(momentum, basis), intercepts), _joined(squares, others)
        return step, (count, first, second, own, basis)

    def _followed(self, means: Pair | None, matrix: Floats) -> Pair:
        """Return the means of G·Gᵀ and Gᵀ·G with another gradient."""
        found: list[Floats | None] = []
        for side, one in enumerate((matrix, matrix.T)):
            if len(one) > self.most:
                found.append(None)
                continue
            before = None if means is None else means[side]
            product = (1 - self.beta2) * (one @ one.T)
            found.append(product if before is None else self.beta2 * before + product)
        return found[0], found[1]


def _in_order(matrix: Floats) -> Floats:
    """Return a matrix row by row in memory, as a checkpoint holds it: the bits of its products depend on that."""
    return np.ascontiguousarray(matrix)


def _into(matrix: Floats, basis: Pair) -> Floats:
    """Return a matrix in a basis of its rows and columns."""
    left, right = basis
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right


def _out_of(matrix: Floats, basis: Pair) -> Floats:
    """Return what ``_into`` was given."""
    left, right = basis
    matrix = matrix if left is None else left @ matrix
    return matrix if right is None else matrix @ right.T


def _followed_basis(means: Pair, basis: Pair, squares: Floats) -> tuple[Pair, Floats]:
    """Return the basis after a step of orthogonal iteration, the largest first, and the squares in its order."""
    found: list[Floats | None] = []
    for axis, (mean, own) in enumerate(zip(means, basis, strict=True)):
        if mean is None or own is None:
            found.append(None)
            continue
        order = np.argsort(-np.einsum("ij,ik,kj->j", own, mean, own), kind="stable")
        squares = np.take(squares, order, axis)
        found.append(_in_order(np.linalg.qr(mean @ own[:, order])[0]))
    return (found[0], found[1]), squares


scale_by_muon = ScaleByMuon
"""The same as :class:`ScaleByMuon`, as optax names it."""

scale_by_soap = ScaleBySoap
"""The same as :class:`ScaleBySoap`, as optax would name it."""
