"""The loss of a small network: layers of sigmoids over projections of a row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy  # loads scipy.special where it is used

from sparkopt.errors import ParameterError
from sparkopt.losses.base import Loss
from sparkopt.losses.projections import Derivatives, ProjectionLoss, weighted
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["MultilayerPerceptron"]


@dataclass(frozen=True)
class MultilayerPerceptron(ProjectionLoss):
    """The loss of a feed-forward network with sigmoid hidden layers, by backpropagation (Rumelhart et al., 1986).

    The first layer's sums are the projections, so that its features are scaled and centred as in a linear model. The
    weights of the other layers are the auxiliary parameters: for each layer the matrix (inputs, units), row by row,
    then its biases. With the first layer in front this is the order of pyspark.ml's ``weights``.

    Parameters
    ----------
    base : Loss
        Of as many raw predictions as the last layer has units.
    units : tuple of int
        Units of each layer after the inputs; the last one has no sigmoid.
    seed : int, default 0
        Determines the weights at the start.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt.losses import Multinomial
    >>> network = MultilayerPerceptron(Multinomial(3), (5, 3))
    >>> network.outputs, network.auxiliary
    (5, 18)
    >>> network.raw(np.zeros((2, 5)), None, np.zeros(18)).shape
    (2, 3)
    """

    base: Loss
    units: tuple[int, ...]
    seed: int = 0
    name = "multilayer perceptron"

    def __post_init__(self) -> None:
        if not self.units or min(self.units) < 1 or self.units[-1] != self.base.outputs:
            raise ParameterError(
                f"units must be positive, and the last layer has {self.base.outputs}, one for each raw prediction of "
                f"{self.base.name!r}. Got {self.units} instead."
            )

    @property
    def outputs(self) -> int:
        """Units of the first layer."""
        return self.units[0]

    @property
    def auxiliary(self) -> int:
        """Weights and biases of the other layers."""
        return sum((before + 1) * after for before, after in self._pairs)

    @property
    def penalised_auxiliary(self) -> Floats:
        """1 for weights and 0 for biases."""
        parts = [np.repeat([1.0, 0.0], [before * after, after]) for before, after in self._pairs]
        return np.concatenate(parts) if parts else np.zeros(0)

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.units[:-1], self.units[1:], strict=True))

    def _layers(self, parameters: Array) -> Iterator[tuple[Array, Array]]:
        """Yield matrix and biases of each layer after the first."""
        at = 0
        for before, after in self._pairs:
            end = at + before * after
            yield parameters[at:end].reshape(before, after), parameters[end : end + after]
            at = end + after

    def _forward(self, projections: Array, parameters: Array) -> tuple[list[Array], Array]:
        """Return the outputs of the hidden layers, and the last layer's sums."""
        hidden, sums = list[Array](), projections
        for matrix, bias in self._layers(parameters):
            hidden.append(scipy.special.expit(sums))
            sums = hidden[-1] @ matrix + bias
        return hidden, sums

    def raw(self, projections: Array, squares: Array | None, parameters: Floats) -> Array:
        """Return the last layer's sums, (n,) where it has one unit."""
        sums = self._forward(projections, parameters.astype(projections.dtype, copy=False))[1]
        return sums if self.units[-1] > 1 else sums[:, 0]

    def derivatives(
        self, y: Array, projections: Array, squares: Array | None, parameters: Floats, weight: Array | None = None
    ) -> Derivatives:
        """Return losses and derivatives, from the last layer to the first."""
        narrow = parameters.astype(projections.dtype, copy=False)
        hidden, sums = self._forward(projections, narrow)
        value, slope = self.base.value_gradient(y, sums if self.units[-1] > 1 else sums[:, 0])
        slope = weighted(slope, weight).reshape(sums.shape).astype(projections.dtype, copy=False)
        found = list[Array]()
        for (matrix, _), inputs in zip(reversed(list(self._layers(narrow))), reversed(hidden), strict=True):
            found += [slope.sum(axis=0, dtype=np.float64), (inputs.T @ slope).ravel()]
            slope = (slope @ matrix.T) * (inputs * (1 - inputs))
        parts = [np.zeros(0), *found[::-1]]
        return Derivatives(value, slope, None, np.concatenate(parts, dtype=np.float64))

    def initial(self, scale: Floats, mean: Floats) -> tuple[Floats, Floats, Floats]:
        """Return weights that are uniform within ±2.4 / √inputs, as pyspark.ml draws them, and biases of zero.

        The first layer's are those of the scaled features. For one output the last bias fits the targets' mean.
        """
        rng = np.random.default_rng(self.seed)

        def drawn(inputs: int, units: int) -> Floats:
            return np.asarray(rng.uniform(-2.4, 2.4, (inputs, units)) / np.sqrt(max(1, inputs)))

        matrix, intercept = drawn(len(scale), self.outputs), np.zeros(self.outputs)
        parts = [part for pair in self._pairs for part in (drawn(*pair).ravel(), np.zeros(pair[1]))]
        parameters = np.concatenate(parts) if parts else np.zeros(0)
        if self.units[-1] == 1:
            (parameters if parts else intercept)[-1] = self.base.start(mean)[0]
        return matrix, intercept, parameters
