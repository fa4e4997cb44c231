"""Regression of counts whose variance exceeds their mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.moments import Moments
from sparkopt.losses import Loss, NegativeBinomial
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.responses import Counts, Response
from sparkopt.ml.summary.regression import RegressionSummary, RegressionTrainingSummary
from sparkopt.training.trainer import Fit
from sparkopt.validation import Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NegativeBinomialRegression", "NegativeBinomialRegressionModel"]

N = TypeVar("N", bound="NegativeBinomialRegression")


class _CountParams(LinearParams):
    offsetCol: Param[str] = Param(
        Params._dummy(),
        "offsetCol",
        "numeric column that is added to the logarithm of the mean, such as log(exposure)",
        typeConverter=TypeConverters.toString,
    )

    def getOffsetCol(self) -> str:
        """Return offsetCol."""
        return self.getOrDefault(self.offsetCol)

    def _columns(self) -> Columns:
        offset = (self.getOffsetCol() or None) if self.isSet(self.offsetCol) else None
        return replace(super()._columns(), offset=offset)


class NegativeBinomialRegressionModel(ScalarModel[RegressionTrainingSummary], _CountParams):
    """Coefficients, intercept and dispersion of a negative binomial regression."""

    _has_onnx = False

    @property
    def dispersion(self) -> float:
        """α: counts of mean μ have the variance μ + αμ²."""
        return float(np.exp(self.auxiliary[0]))

    def evaluate(self, dataset: DataFrame) -> RegressionSummary:
        return RegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[RegressionTrainingSummary]:
        return RegressionTrainingSummary

    @property
    def _response(self) -> Response:
        return Counts()

    def _formulas(self, raw: str) -> Formulas | None:
        return Formulas({"prediction": f"exp({raw})"})


@documented
class NegativeBinomialRegression(LinearEstimator[NegativeBinomialRegressionModel], _CountParams):
    """Regression of counts with mean μ = e^(x·w + b) and variance μ + αμ² (Hilbe, 2011, *NB2*, §8).

    Minimises the mean negative log-likelihood over coefficients and α, + regParam · (½(1−β)‖w‖² + β‖w‖₁) with β the
    elasticNetParam: without a penalty, R's ``glm.nb`` and statsmodels' ``NegativeBinomial``. Poisson regression is
    the limit of α = 0, where counts vary no more than their mean says.

    Parameters
    ----------
    offsetCol : str, optional
        Numeric column that is added to the logarithm of the mean, such as log(exposure).
    {shared}

    Examples
    --------
    >>> from sparkopt.ml import NegativeBinomialRegression
    >>> model = NegativeBinomialRegression(labelCol="days").fit(df)
    >>> model.dispersion >= 0
    True
    """

    @keyword_only
    def __init__(self, *, offsetCol: str | None = None, **shared: Unpack[LinearArguments]) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self, *, offsetCol: str | None = None, **shared: Unpack[LinearArguments]
    ) -> NegativeBinomialRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setOffsetCol(self: N, value: str) -> N:
        """Set the column that is added to the logarithm of the mean."""
        return self._set(offsetCol=value)

    @property
    def _targets(self) -> Interval:
        return NegativeBinomial().targets

    @property
    def _label_hint(self) -> str:
        return "Amounts that are no counts are of GeneralizedLinearRegression(family='tweedie')."

    def _loss(self, moments: Moments) -> Loss:
        return NegativeBinomial()

    def _model(self, fit: Fit) -> NegativeBinomialRegressionModel:
        return NegativeBinomialRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)
