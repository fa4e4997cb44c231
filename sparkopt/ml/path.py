"""The regularisation path of a linear regression: its points, what they are worth, and the model at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import MissingDependencyError, NoSummaryError, ParameterError
from sparkopt.typing import Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["LinearRegressionPath", "checked_grid", "log_grid"]

LABELLED = 12
"""Most coefficients that the plot names."""


@dataclass(frozen=True, eq=False)
class LinearRegressionPath:
    """Linear regressions from the strongest penalty to the weakest; `LinearRegression.fitPath` returns it.

    Attributes
    ----------
    lambdas : ndarray of shape (points,)
        Values of ``regParam``, falling. At the first of an automatic grid all penalised coefficients are 0.
    coefficients : ndarray of shape (points, features)
        In the user's units.
    intercepts : ndarray of shape (points,)
        Zeros without an intercept.
    df : ndarray of shape (points,)
        How many coefficients are not 0.
    r2 : ndarray of shape (points,)
        Share of the target's variance that is explained on the training rows, weighted.
    cvErrors : ndarray of shape (points, folds) or None
        Mean squared error on the rows of each fold of the model without them; None without cross-validation.
    cvWeights : ndarray of shape (folds,) or None
        Weight of the rows of each fold.
    featureNames : tuple of str
        Names of the features where they are known, else empty.
    method : str
        "gram": all of it from one pass; "fits": a fit at each point, from the one before.

    Examples
    --------
    >>> from sparkopt.ml import LinearRegression
    >>> path = LinearRegression(featuresCols=["x1", "x2"], labelCol="minutes", elasticNetParam=1.0).fitPath(df)
    >>> path.coefficients.shape, int(path.df[0]), path.method
    ((100, 2), 0, 'gram')
    >>> path.model(path.lambdas[-1]).getRegParam() == float(path.lambdas[-1])
    True
    """

    lambdas: Floats
    coefficients: Floats
    intercepts: Floats
    df: Any
    r2: Floats
    cvErrors: Floats | None
    cvWeights: Floats | None
    featureNames: tuple[str, ...]
    method: str
    _model: Callable[[float, Floats, float], Any] = field(repr=False)

    def __repr__(self) -> str:
        first, last = self.lambdas[0], self.lambdas[-1]
        best = "" if self.cvErrors is None else f", lambdaMin={self.lambdaMin:.6g}, lambda1se={self.lambda1se:.6g}"
        return (
            f"LinearRegressionPath: {len(self.lambdas)} values of regParam from {first:.6g} to {last:.6g}, "
            f"up to {int(self.df.max())} of {self.coefficients.shape[1]} coefficients{best}"
        )

    @property
    def cvMean(self) -> Floats:
        """Mean squared error over the folds, weighted by their rows, shape (points,)."""
        errors, weights = self._folds()
        return np.asarray(errors @ weights / weights.sum())

    @property
    def cvStandardError(self) -> Floats:
        """Standard error of ``cvMean``, from the spread of the folds as glmnet estimates it, shape (points,)."""
        errors, weights = self._folds()
        spread = np.square(errors - self.cvMean[:, None]) @ weights / weights.sum()
        return np.asarray(np.sqrt(spread / (len(weights) - 1)))

    @property
    def lambdaMin(self) -> float:
        """The value of regParam with the least cross-validated error."""
        return float(self.lambdas[int(np.argmin(self.cvMean))])

    @property
    def lambda1se(self) -> float:
        """The largest value of regParam whose error is within a standard error of the least: the simplest as good."""
        best = int(np.argmin(self.cvMean))
        within = self.cvMean <= self.cvMean[best] + self.cvStandardError[best]
        return float(self.lambdas[within].max())

    def _folds(self) -> tuple[Floats, Floats]:
        if self.cvErrors is None or self.cvWeights is None:
            raise NoSummaryError("this path was fitted without cross-validation. Call fitPath(..., numFolds=10).")
        return self.cvErrors, self.cvWeights

    def model(self, regParam: float) -> Any:
        """Return the `LinearRegressionModel` at a point, without a training summary.

        Parameters
        ----------
        regParam : float
            One of ``lambdas``, such as ``lambdaMin`` or ``lambda1se``.

        Raises
        ------
        ParameterError
            For a value between the points.
        """
        at = int(np.argmin(np.abs(self.lambdas - regParam)))
        near = float(self.lambdas[at])
        if not np.isclose(near, regParam, rtol=1e-9, atol=0.0):
            raise ParameterError(
                f"regParam={regParam!r} is no point of this path; the nearest is {near!r}. Give that, or fit "
                f"LinearRegression(regParam={regParam!r})."
            )
        return self._model(near, self.coefficients[at], float(self.intercepts[at]))

    def toArrow(self) -> pa.Table:
        """Return a row for each point: lambda, df, r2; with cross-validation the error and its standard error too."""
        columns = {"lambda": self.lambdas, "df": self.df, "r2": self.r2}
        if self.cvErrors is not None:
            columns |= {"cvMean": self.cvMean, "cvStandardError": self.cvStandardError}
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def plot(self, path: str | Path) -> None:
        """Draw the coefficients and, with cross-validation, the errors by regParam, into an image file.

        The coefficients that are the largest at the last point are named. Vertical lines are at ``lambdaMin`` and
        ``lambda1se``.

        Raises
        ------
        MissingDependencyError
            Where matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("LinearRegressionPath.plot", "matplotlib", "report") from error
        charts = 1 if self.cvErrors is None else 2
        figure = Figure(figsize=(6.5 * charts, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, charts, squeeze=False)[0]
        self._draw_coefficients(axes[0])
        if self.cvErrors is not None:
            axes[1].errorbar(self.lambdas, self.cvMean, self.cvStandardError, fmt=".", color="#b4610f", ecolor="#ccc")
            axes[1].set(xscale="log", xlabel="regParam", ylabel="mean squared error, cross-validated")
            for one in axes:
                one.axvline(self.lambdaMin, color="#58626e", linestyle="--", linewidth=1)
                one.axvline(self.lambda1se, color="#58626e", linestyle=":", linewidth=1)
        figure.savefig(path, dpi=130)

    def _draw_coefficients(self, axes: Any) -> None:
        entered = np.flatnonzero(self.coefficients.any(axis=0))
        axes.plot(self.lambdas, self.coefficients[:, entered], linewidth=1.2)
        last = self.coefficients[-1]
        for at in entered[np.argsort(-np.abs(last[entered]))][:LABELLED]:
            name = self.featureNames[at] if self.featureNames else str(at)
            axes.annotate(name, (self.lambdas[-1], last[at]), fontsize=8, ha="right", va="bottom")
        axes.axhline(0, color="#58626e", linewidth=0.8)
        axes.set(xscale="log", xlabel="regParam", ylabel="coefficient")
        axes.grid(alpha=0.25)


def log_grid(most: float, points: int, ratio: float) -> Floats:
    """Return points from ``most`` down to ``ratio`` of it, evenly spaced in their logarithm."""
    grid: Floats = most * np.logspace(0.0, np.log10(ratio), points)
    grid[0] = most
    return grid


def checked_grid(lambdas: Sequence[float]) -> Floats:
    """Return values of regParam that a user gives, falling.

    Raises
    ------
    ParameterError
        For none, a negative one, or one given twice.
    """
    values = np.asarray(lambdas, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ParameterError(f"lambdas must be a list of at least one value of regParam. Got {lambdas!r} instead.")
    for value in values:
        check("lambdas", float(value), Interval(0, None))
    if len(np.unique(values)) < len(values):
        raise ParameterError("lambdas has a value twice. Give each once.")
    return np.sort(values)[::-1]
