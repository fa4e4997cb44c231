"""Linear regression by least squares, by Huber's robust loss, and of quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasSolver
from pyspark.ml.util import GeneralMLWriter
from pyspark.sql import DataFrame

from sparkopt.blocks.moments import Moments
from sparkopt.errors import IncompatibleError
from sparkopt.losses import Huber, Loss, Quantile, SquaredError
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.model import ScalarModel
from sparkopt.ml.params import LinearParams
from sparkopt.ml.path import LinearRegressionPath
from sparkopt.ml.path_fit import PathRequest, fit_path
from sparkopt.ml.persistence import GeneralModelWriter
from sparkopt.ml.population import by_population
from sparkopt.ml.summary.regression import (
    LinearRegressionSummary,
    LinearRegressionTrainingSummary,
    QuantileRegressionSummary,
    QuantileRegressionTrainingSummary,
)
from sparkopt.optim import Optimizer, lbfgs, proximal_lbfgs, proximal_newton
from sparkopt.penalties import Penalty
from sparkopt.training.trainer import Fit
from sparkopt.validation import Constraint, Interval, OneOf

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LinearRegression", "LinearRegressionModel", "QuantileRegression", "QuantileRegressionModel"]

L = TypeVar("L", bound="_LinearRegressionParams")
Q = TypeVar("Q", bound="_QuantileParams")


class _LinearRegressionParams(LinearParams, HasSolver):
    loss: Param[str] = Param(Params._dummy(), "loss", "squaredError or huber", typeConverter=TypeConverters.toString)
    solver: Param[str] = Param(
        Params._dummy(),
        "solver",
        "the method under pyspark.ml's name, where optimizer is auto: auto, normal or l-bfgs",
        typeConverter=TypeConverters.toString,
    )
    epsilon: Param[float] = Param(
        Params._dummy(),
        "epsilon",
        "for loss='huber': beyond how many scales a residual counts in proportion to its size only, > 1",
        typeConverter=TypeConverters.toFloat,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(loss="squaredError", epsilon=1.35, solver="auto")

    def getLoss(self) -> str:
        """Return loss."""
        return self.getOrDefault(self.loss)

    def getEpsilon(self) -> float:
        """Return epsilon."""
        return self.getOrDefault(self.epsilon)

    def _domains(self) -> Mapping[str, Constraint]:
        return {
            **super()._domains(),
            "loss": OneOf(["squaredError", "huber"]),
            "solver": OneOf(["auto", "normal", "l-bfgs"]),
            "epsilon": Interval(1, None, closed="neither"),
        }


class LinearRegressionModel(ScalarModel[LinearRegressionTrainingSummary], _LinearRegressionParams):
    """Coefficients and intercept of a linear regression."""

    @property
    def scale(self) -> float:
        """Scale of the residuals that Huber's loss was fitted with; 1 for squared error."""
        return Huber(self.getEpsilon()).scale(self.auxiliary[0]) if len(self.auxiliary) else 1.0

    def write(self) -> GeneralMLWriter:
        """Return a writer: ``model.write().save(path)``; ``.format("pyspark")`` or ``("pmml")`` for others."""
        return GeneralModelWriter(self)

    def evaluate(self, dataset: DataFrame) -> LinearRegressionSummary:
        return LinearRegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[LinearRegressionTrainingSummary]:
        return LinearRegressionTrainingSummary


NARROW = 4096
"""Features up to which pyspark.ml solves least squares by normal equations where it may choose."""


@documented
class LinearRegression(LinearEstimator[LinearRegressionModel], _LinearRegressionParams):
    """Linear regression with an elastic-net penalty.

    ``loss="squaredError"`` minimises, over the target divided by its standard deviation s, ½ mean (y − ŷ)² +
    regParam/s · (½(1−α)‖w‖² + α‖w‖₁): pyspark.ml's objective with ``solver="l-bfgs"``. ``loss="huber"`` also fits
    a scale of the residuals, and counts those beyond ``epsilon`` scales in proportion to their size only, over the
    target as it is: pyspark.ml's objective too (:class:`sparkopt.losses.Huber`). Coefficients and objective values
    compare one to one.

    Parameters
    ----------
    loss : {"squaredError", "huber"}, default "squaredError"
        The loss.
    epsilon : float, default 1.35
        Where Huber's loss turns from squared to absolute, in scales, > 1.
    solver : {"auto", "normal", "l-bfgs"}, default "auto"
        The method under pyspark.ml's name, where optimizer is "auto". "normal" is "proximal-newton", which solves
        the normal equations of squared error, with L1 by coordinate descent. "l-bfgs" is "lbfgs", or
        "proximal-lbfgs" with L1. As in pyspark.ml, "normal", and "auto" for squared error of at most 4,096 features,
        standardise by variances over n; others by those over n − 1.
    {shared}

    Examples
    --------
    >>> from sparkopt.ml import LinearRegression
    >>> model = LinearRegression(featuresCols=["x1", "x2"], regParam=0.1).fit(df)
    >>> len(model.coefficients), 0 < model.summary.r2 < 1
    (2, True)
    """

    @keyword_only
    def __init__(
        self,
        *,
        loss: str = "squaredError",
        epsilon: float = 1.35,
        solver: str = "auto",
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        loss: str = "squaredError",
        epsilon: float = 1.35,
        solver: str = "auto",
        **shared: Unpack[LinearArguments],
    ) -> LinearRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setSolver(self: L, value: str) -> L:
        """Set the method under pyspark.ml's name."""
        return self._set(solver=value)

    def setLoss(self: L, value: str) -> L:
        """Set the loss."""
        return self._set(loss=value)

    def setEpsilon(self: L, value: float) -> L:
        """Set where Huber's loss turns from squared to absolute."""
        return self._set(epsilon=value)

    def fitPath(
        self,
        dataset: Any,
        *,
        lambdas: Sequence[float] | None = None,
        numLambdas: int = 100,
        minRatio: float | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        numFolds: int = 0,
        foldCol: str = "",
        seed: int = 0,
    ) -> LinearRegressionPath:
        """Fit a whole regularisation path: lasso, elastic net, ridge or group lasso at many values of ``regParam``.

        Up to 4,096 features the rows are read and summed once, to the Gram matrix of each fold, and the points follow
        from it, each from the one before (Friedman, Hastie & Tibshirani, 2010, *Regularization paths for generalized
        linear models via coordinate descent*, §2). Wider rows, and an ``optimizer`` or solver="l-bfgs" that was asked
        for, are fitted point by point, each from the one before. Either way a point is the optimum that ``fit`` finds
        at that ``regParam``.

        Parameters
        ----------
        dataset : DataFrame, Table, or what `Table.of` takes
            The rows.
        lambdas : sequence of float, optional
            Values of ``regParam``. By default glmnet's: from the least one at which all coefficients are 0 (for an
            ``elasticNetParam`` below 0.001: at which they would be, at 0.001), down, evenly in their logarithm.
        numLambdas : int, default 100
            How many.
        minRatio : float, optional
            The last of them over the first; by default 1e-4 where there are more rows than features, else 1e-2.
        groups : sequence of sequences of int, optional
            Numbers of features that enter together: the penalty is regParam · Σ √(size) ‖w of group‖₂, in place of
            the elastic net. Features in no group are not penalised.
        numFolds : int, default 0
            Folds of the cross-validation, as glmnet's ``cv.glmnet`` does it; 0 is none.
        foldCol : str, default ""
            An integer column with the number of each row's fold, from 0; "" draws folds at random, as
            `CrossValidator` does.
        seed : int, default 0
            Determines which rows are drawn.

        Returns
        -------
        LinearRegressionPath
            Points, their quality, ``lambdaMin`` and ``lambda1se``, and the model at each.

        Raises
        ------
        IncompatibleError
            For Huber's loss, mini-batches, local steps or validation rows.

        Examples
        --------
        >>> from sparkopt.ml import LinearRegression
        >>> lasso = LinearRegression(featuresCols=["x1", "x2"], labelCol="minutes", elasticNetParam=1.0)
        >>> path = lasso.fitPath(df, numFolds=5)
        >>> path.lambdaMin <= path.lambda1se
        True
        >>> model = path.model(path.lambda1se)
        >>> model.transform(df).count() == df.count()
        True
        """
        request = PathRequest(lambdas, numLambdas, minRatio, groups, numFolds, foldCol, seed)
        return fit_path(self, dataset, request, LinearRegressionModel)

    def _check_params(self) -> None:
        super()._check_params()
        solver = self.getSolver()
        if solver != "auto" and self.getOptimizer() != "auto":
            raise IncompatibleError(
                f"solver={solver!r} and optimizer={self.getOptimizer()!r} both choose the method. Set one of them."
            )
        if solver == "normal" and self.getLoss() != "squaredError":
            raise IncompatibleError(
                f"solver='normal' does not minimise loss={self.getLoss()!r}. Use solver='auto' or 'l-bfgs'."
            )

    def _optimizer(self) -> Optimizer:
        solver = self.getSolver()
        if solver == "l-bfgs":
            return lbfgs() if self._penalty().smooth else proximal_lbfgs()
        return proximal_newton() if solver == "normal" else super()._optimizer()

    @property
    def _chooses(self) -> bool:
        return self.getSolver() == "auto" and super()._chooses

    def _penalty_for(self, moments: Moments) -> Penalty:
        solver, is_narrow = self.getSolver(), moments.features <= NARROW and self.getLoss() == "squaredError"
        if solver == "l-bfgs" or (solver == "auto" and not is_narrow):
            return super()._penalty_for(moments)
        return by_population(self.getRegParam(), self.getElasticNetParam(), self.getStandardization(), moments)

    @property
    def _scale_target(self) -> bool:
        return self.getLoss() == "squaredError"

    @property
    def _targets(self) -> Interval:
        return SquaredError().targets

    def _loss(self, moments: Moments) -> Loss:
        return SquaredError() if self.getLoss() == "squaredError" else Huber(self.getEpsilon())

    def _model(self, fit: Fit) -> LinearRegressionModel:
        return LinearRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)


class _QuantileParams(LinearParams):
    quantile: Param[float] = Param(
        Params._dummy(), "quantile", "which quantile is predicted, in (0, 1)", typeConverter=TypeConverters.toFloat
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(quantile=0.5, maxIter=500)

    def getQuantile(self) -> float:
        """Return quantile."""
        return self.getOrDefault(self.quantile)

    def _domains(self) -> Mapping[str, Constraint]:
        return {**super()._domains(), "quantile": Interval(0, 1, closed="neither")}


class QuantileRegressionModel(ScalarModel[QuantileRegressionTrainingSummary], _QuantileParams):
    """Coefficients and intercept of a linear quantile."""

    def evaluate(self, dataset: DataFrame) -> QuantileRegressionSummary:
        return QuantileRegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[QuantileRegressionTrainingSummary]:
        return QuantileRegressionTrainingSummary


@documented
class QuantileRegression(LinearEstimator[QuantileRegressionModel], _QuantileParams):
    """A quantile of the target, linear in the features (Koenker & Bassett, 1978), with an elastic-net penalty.

    Minimises mean loss + regParam · (½(1−α)‖w‖² + α‖w‖₁) with the check loss r·q for a residual r = y − ŷ ≥ 0 and
    r·(q − 1) below. With elasticNetParam=1 and standardization=False that is scikit-learn's ``QuantileRegressor`` for
    alpha=regParam.

    Parameters
    ----------
    quantile : float, default 0.5
        Which quantile is predicted, in (0, 1); ½ is the median.
    {shared}

    Notes
    -----
    The loss is nonsmooth, so methods with a line search minimise smoothed losses in turn: maxIter, 500 by default
    here, counts the steps of all of them.

    Examples
    --------
    >>> from sparkopt.ml import QuantileRegression
    >>> late = QuantileRegression(quantile=0.9, labelCol="minutes").fit(df)
    >>> share = late.transform(df).where("minutes <= prediction").count() / df.count()
    >>> 0.88 < share < 0.92
    True
    """

    @keyword_only
    def __init__(
        self,
        *,
        quantile: float = 0.5,
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        quantile: float = 0.5,
        **shared: Unpack[LinearArguments],
    ) -> QuantileRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setQuantile(self: Q, value: float) -> Q:
        """Set which quantile is predicted."""
        return self._set(quantile=value)

    @property
    def _targets(self) -> Interval:
        return Quantile().targets

    def _loss(self, moments: Moments) -> Loss:
        return Quantile(self.getQuantile())

    def _model(self, fit: Fit) -> QuantileRegressionModel:
        return QuantileRegressionModel(fit.coefficients.T, fit.intercept, fit.auxiliary)
