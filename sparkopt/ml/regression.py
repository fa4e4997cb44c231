"""Linear regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark import keyword_only
from pyspark.ml.linalg import DenseVector
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.moments import Moments
from sparkopt.losses import Loss, SquaredError
from sparkopt.ml.base import NUMBER, LinearEstimator, LinearModel
from sparkopt.ml.summary import LinearRegressionSummary, LinearRegressionTrainingSummary
from sparkopt.trainer import Fit
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval

__all__ = ["LinearRegression", "LinearRegressionModel"]


class LinearRegressionModel(LinearModel[LinearRegressionTrainingSummary]):
    """Coefficients and intercept of a linear regression."""

    def __init__(self, matrix: Floats | None = None, intercept: Floats | None = None) -> None:
        super().__init__(
            np.zeros((1, 0)) if matrix is None else matrix, np.zeros(1) if intercept is None else intercept
        )

    @property
    def coefficients(self) -> DenseVector:
        """Coefficients, one per feature."""
        return DenseVector(self._matrix[0])

    @property
    def intercept(self) -> float:
        """Intercept; 0 without one."""
        return float(self._intercept[0])

    def evaluate(self, dataset: DataFrame) -> LinearRegressionSummary:
        return LinearRegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[LinearRegressionTrainingSummary]:
        return LinearRegressionTrainingSummary

    def _outputs(self, raw: Array) -> dict[str, Array]:
        return {"prediction": raw[:, 0]}

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {"prediction": (self.getPredictionCol(), NUMBER)}


class LinearRegression(LinearEstimator[LinearRegressionModel]):
    """Least squares with an elastic-net penalty.

    Minimises, over the target divided by its standard deviation s, ½ mean (y − ŷ)² + regParam/s · (½(1−α)‖w‖² +
    α‖w‖₁): pyspark.ml's objective with ``solver="l-bfgs"``, so coefficients and objective values compare one to one.

    Parameters
    ----------
    featuresCol : str, default "features"
        Vector or array<numeric> column.
    featuresCols : list of str, optional
        Numeric columns, instead of featuresCol.
    labelCol : str, default "label"
        Targets, any finite number.
    weightCol : str, optional
        Row weights ≥ 0.
    predictionCol : str, default "prediction"
        Output column.
    maxIter : int, default 100
        Most steps.
    tol : float, default 1e-6
        Relative change of the objective that ends the fit.
    regParam : float, default 0
        Strength of the penalty.
    elasticNetParam : float, default 0
        α: 0 is ridge, 1 the lasso.
    fitIntercept : bool, default True
        Whether there is an intercept; it is never penalised.
    standardization : bool, default True
        Penalise the coefficients of standardised features.
    optimizer : str, default "auto"
        "auto" is "lbfgs", or "fista" where there is an L1 penalty.
    stepSize : float, optional
        Learning rate; unset, the optimiser's own default.
    stepSizeSchedule : {"constant", "inverse_time", "step", "exponential", "cosine", "warm_up"}, default "constant"
        How the learning rate changes over maxIter steps.
    miniBatchFraction : float, default 1
        Share of the rows that a step draws.
    seed : int, default 0
        Determines these rows.
    aggregationDepth : int, default 2
        Levels of the aggregation tree, for wide models.
    engine : {"auto", "driver", "resident", "allreduce", "local"}, default "auto"
        Where the loop runs; "auto" takes the cheapest and logs why.

    Examples
    --------
    >>> from sparkopt.ml import LinearRegression                                       # doctest: +SKIP
    >>> model = LinearRegression(featuresCols=["x1", "x2"], regParam=0.1).fit(df)      # doctest: +SKIP
    >>> model.coefficients, model.intercept, model.summary.totalIterations             # doctest: +SKIP
    """

    _scale_target = True

    @keyword_only
    def __init__(
        self,
        *,
        featuresCol: str = "features",
        featuresCols: list[str] | None = None,
        labelCol: str = "label",
        weightCol: str | None = None,
        predictionCol: str = "prediction",
        maxIter: int = 100,
        tol: float = 1e-6,
        regParam: float = 0.0,
        elasticNetParam: float = 0.0,
        fitIntercept: bool = True,
        standardization: bool = True,
        optimizer: str = "auto",
        stepSize: float | None = None,
        stepSizeSchedule: str = "constant",
        miniBatchFraction: float = 1.0,
        seed: int = 0,
        aggregationDepth: int = 2,
        engine: str = "auto",
    ) -> None:
        super().__init__()
        self._input_kwargs: dict[str, Any]
        self._set(**self._input_kwargs)

    @property
    def _targets(self) -> Interval:
        return SquaredError().targets

    def _loss(self, moments: Moments) -> Loss:
        return SquaredError()

    def _model(self, fit: Fit) -> LinearRegressionModel:
        return LinearRegressionModel(fit.coefficients.T, fit.intercept)
