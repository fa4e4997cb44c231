"""Generalised linear regression: families of distributions and their links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasSolver
from pyspark.sql import DataFrame
from pyspark.sql.types import DataType

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.moments import Moments
from sparkopt.errors import IncompatibleError
from sparkopt.losses import Binomial, BinomialLogit, Gamma, Gaussian, Loss, Poisson, Tweedie, WorkingResponse
from sparkopt.ml import expressions
from sparkopt.ml.arguments import LinearArguments, documented
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.expressions import Formulas
from sparkopt.ml.model import NUMBER, ScalarModel
from sparkopt.ml.params import LinearParams, lower_case
from sparkopt.ml.population import by_population
from sparkopt.ml.responses import Means, Response
from sparkopt.ml.summary.generalized import (
    GeneralizedLinearRegressionSummary,
    GeneralizedLinearRegressionTrainingSummary,
)
from sparkopt.optim import lbfgs
from sparkopt.penalties import Penalty
from sparkopt.solver.progress import Stop
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.validation import Constraint, Interval, OneOf, check

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["GeneralizedLinearRegression", "GeneralizedLinearRegressionModel"]

G = TypeVar("G", bound="_FamilyParams")

LINKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gaussian": ("identity", "log", "inverse"),
        "binomial": ("logit", "probit", "cloglog"),
        "poisson": ("log", "identity", "sqrt"),
        "gamma": ("inverse", "identity", "log"),
    }
)
"""Links by family; the first one is the default."""
LOSSES = MappingProxyType({"gaussian": Gaussian, "poisson": Poisson, "gamma": Gamma})
FORMULAS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"log": "exp({})".format, "logit": expressions.sigmoid}
)
"""The mean of a linear prediction in Spark, to the bit that of `responses.MEANS`, by the link."""


class _FamilyParams(LinearParams, HasSolver):
    family: Param[str] = Param(
        Params._dummy(),
        "family",
        f"distribution of the target: {', '.join(LINKS)} or tweedie, in any case",
        typeConverter=lower_case,
    )
    link: Param[str] = Param(
        Params._dummy(),
        "link",
        "from the mean to the linear prediction, in any case; for a tweedie family set linkPower instead",
        typeConverter=lower_case,
    )
    solver: Param[str] = Param(
        Params._dummy(),
        "solver",
        "the method under pyspark.ml's name: irls",
        typeConverter=TypeConverters.toString,
    )
    variancePower: Param[float] = Param(
        Params._dummy(),
        "variancePower",
        "of a tweedie family: the variance is this power of the mean, 0 or >= 1",
        typeConverter=TypeConverters.toFloat,
    )
    linkPower: Param[float] = Param(
        Params._dummy(),
        "linkPower",
        "of a tweedie family: the linear prediction is this power of the mean, or its logarithm for 0",
        typeConverter=TypeConverters.toFloat,
    )
    linkPredictionCol: Param[str] = Param(
        Params._dummy(),
        "linkPredictionCol",
        'output column of linear predictions; "" leaves it out',
        typeConverter=TypeConverters.toString,
    )
    offsetCol: Param[str] = Param(
        Params._dummy(),
        "offsetCol",
        "numeric column that is added to the linear prediction, with a coefficient of 1",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(family="gaussian", variancePower=0.0, solver="irls")

    def getFamily(self) -> str:
        """Return family."""
        return self.getOrDefault(self.family)

    def getLink(self) -> str:
        """Return link, the family's own where none is set."""
        if self.isSet(self.link):
            return self.getOrDefault(self.link)
        return LINKS[self.getFamily()][0]

    def getVariancePower(self) -> float:
        """Return variancePower."""
        return self.getOrDefault(self.variancePower)

    def getLinkPower(self) -> float:
        """Return linkPower, 1 − variancePower where none is set."""
        return self.getOrDefault(self.linkPower) if self.isSet(self.linkPower) else 1.0 - self.getVariancePower()

    def getLinkPredictionCol(self) -> str:
        """Return linkPredictionCol, "" where there is none."""
        return (self.getOrDefault(self.linkPredictionCol) or "") if self.isDefined(self.linkPredictionCol) else ""

    def getOffsetCol(self) -> str:
        """Return offsetCol."""
        return self.getOrDefault(self.offsetCol)

    def _columns(self) -> Columns:
        offset = (self.getOffsetCol() or None) if self.isSet(self.offsetCol) else None
        return replace(super()._columns(), offset=offset)

    def setLinkPredictionCol(self: G, value: str) -> G:
        """Set the column of linear predictions; "" leaves it out."""
        return self._set(linkPredictionCol=value)

    def _check_params(self) -> None:
        super()._check_params()
        check("family", self.getFamily(), OneOf([*LINKS, "tweedie"]))
        for name, is_tweedie in (("link", False), ("linkPower", True), ("variancePower", True)):
            if self.isSet(self.getParam(name)) and (self.getFamily() == "tweedie") != is_tweedie:
                instead = "linkPower" if name == "link" else "link" if name == "linkPower" else "family='tweedie'"
                raise IncompatibleError(f"{name} does not apply to family={self.getFamily()!r}. Use {instead}.")
        if self.getFamily() != "tweedie" and self.getLink() not in LINKS[self.getFamily()]:
            known = ", ".join(LINKS[self.getFamily()])
            raise IncompatibleError(
                f"link={self.getLink()!r} does not work with family={self.getFamily()!r}. Use one of {known}."
            )
        self._family_loss()  # refuses powers that no distribution has

    def _family_loss(self) -> Loss:
        """Half the family's deviance through the link."""
        if self.getFamily() == "tweedie":
            return Tweedie(self.getVariancePower(), self.getLinkPower())
        if self.getFamily() == "binomial":
            return BinomialLogit() if self.getLink() == "logit" else Binomial(self.getLink())
        return LOSSES[self.getFamily()](link=self.getLink())

    @property
    def _is_least_squares(self) -> bool:
        if self.getFamily() == "tweedie":
            return self.getVariancePower() == 0 and self.getLinkPower() == 1
        return self.getFamily() == "gaussian" and self.getLink() == "identity"

    def _domains(self) -> Mapping[str, Constraint]:
        return {
            **super()._domains(),
            "solver": OneOf(["irls"]),
            "linkPower": Interval(),
            "variancePower": Interval(0, None),
        }


class GeneralizedLinearRegressionModel(ScalarModel[GeneralizedLinearRegressionTrainingSummary], _FamilyParams):
    """Coefficients and intercept of a generalised linear regression."""

    def _facts(self) -> dict[str, Any]:
        if self.getFamily() == "tweedie":
            powers = {"variancePower": self.getVariancePower(), "linkPower": self.getLinkPower()}
            return {"family": "tweedie", **powers}
        return {"family": self.getFamily(), "link": self.getLink()}

    def evaluate(self, dataset: DataFrame) -> GeneralizedLinearRegressionSummary:
        return GeneralizedLinearRegressionSummary(self.copy(), dataset)

    @property
    def _training_summary(self) -> type[GeneralizedLinearRegressionTrainingSummary]:
        return GeneralizedLinearRegressionTrainingSummary

    @property
    def _response(self) -> Response:
        return Means(self._link_name, self._family_loss())

    def _formulas(self, raw: str) -> Formulas | None:
        raw = expressions.twice(raw)
        if self._is_least_squares:
            return Formulas({"prediction": raw, "linkPrediction": raw})
        mean = FORMULAS.get(self._link_name)
        return None if mean is None else Formulas({"prediction": mean(raw), "linkPrediction": raw})

    @property
    def _link_name(self) -> str:
        if self.getFamily() != "tweedie":
            return self.getLink()
        return "log" if self.getLinkPower() == 0 else "power"

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {
            "linkPrediction": (self.getLinkPredictionCol(), NUMBER),
            "prediction": (self.getPredictionCol(), NUMBER),
        }


@documented
class GeneralizedLinearRegression(LinearEstimator[GeneralizedLinearRegressionModel], _FamilyParams):
    """A generalised linear model (McCullagh & Nelder, 1989) with an elastic-net penalty.

    Minimises half the mean deviance + regParam · (½(1−α)‖w‖² + α‖w‖₁). Without a penalty the coefficients are
    pyspark.ml's, which reweights least squares. With one, the gaussian family with the identity link is least squares
    over the target divided by its standard deviation, as in pyspark.ml and R's glmnet; the others are scikit-learn's
    (for standardization=False), since pyspark.ml measures the penalty against working weights that change as it
    iterates.

    Parameters
    ----------
    family : {"gaussian", "binomial", "poisson", "gamma", "tweedie"}, default "gaussian"
        Distribution of the target. Binomial targets are 0, 1 or shares of hits in weightCol trials, Poisson ones ≥ 0,
        Gamma ones > 0.
    link : str, optional
        From the mean to the linear prediction; the first of these is the family's default: gaussian: identity, log,
        inverse; binomial: logit, probit, cloglog; poisson: log, identity, sqrt; gamma: inverse, identity, log.
    variancePower : float, default 0
        Of a Tweedie family: the variance is this power of the mean, 0 or ≥ 1.
    linkPower : float, optional
        Of a Tweedie family: the linear prediction is this power of the mean, or its logarithm for 0; unset,
        1 − variancePower.
    linkPredictionCol : str, optional
        Output column of linear predictions.
    offsetCol : str, optional
        Numeric column that is added to the linear prediction with a coefficient of 1, such as log(exposure).
    solver : {"irls"}, default "irls"
        pyspark.ml's only one, iteratively reweighted least squares; optimizer chooses the method.
    {shared}

    Notes
    -----
    Links whose linear prediction must be positive (inverse, sqrt, identity outside the gaussian family) predict NaN
    for rows whose linear prediction has no mean. Without an intercept they start where R's ``glm`` does: at the least
    squares of the link of the targets, weighted by the family.

    Examples
    --------
    >>> from sparkopt.ml import GeneralizedLinearRegression
    >>> model = GeneralizedLinearRegression(family="poisson", weightCol="days").fit(df)
    >>> print(model.summary)
    Coefficients:
    ...
    AIC: ...
    """

    @keyword_only
    def __init__(
        self,
        *,
        linkPredictionCol: str | None = None,
        family: str = "gaussian",
        link: str | None = None,
        variancePower: float = 0.0,
        linkPower: float | None = None,
        offsetCol: str | None = None,
        solver: str = "irls",
        **shared: Unpack[LinearArguments],
    ) -> None:
        super().__init__()
        self._configure(self._input_kwargs)

    @keyword_only
    def setParams(
        self,
        *,
        linkPredictionCol: str | None = None,
        family: str = "gaussian",
        link: str | None = None,
        variancePower: float = 0.0,
        linkPower: float | None = None,
        offsetCol: str | None = None,
        solver: str = "irls",
        **shared: Unpack[LinearArguments],
    ) -> GeneralizedLinearRegression:
        """Set the parameters that are given; names and types are the constructor's."""
        return self._configure(self._input_kwargs)

    def setSolver(self: G, value: str) -> G:
        """Set the method under pyspark.ml's name."""
        return self._set(solver=value)

    def setFamily(self: G, value: str) -> G:
        """Set the distribution of the target."""
        return self._set(family=value)

    def setLink(self: G, value: str) -> G:
        """Set the link of a family other than Tweedie's."""
        return self._set(link=value)

    def setVariancePower(self: G, value: float) -> G:
        """Set which power of the mean the variance of a Tweedie family is."""
        return self._set(variancePower=value)

    def setLinkPower(self: G, value: float) -> G:
        """Set which power of the mean the linear prediction of a Tweedie family is."""
        return self._set(linkPower=value)

    def setOffsetCol(self: G, value: str) -> G:
        """Set the column that is added to the linear prediction."""
        return self._set(offsetCol=value)

    def _starting(self, trainer: Trainer) -> Trainer | None:
        """Without an intercept, a linear prediction of 0 may have no mean: start where R's glm does."""
        loss = trainer.loss
        if trainer.fit_intercept or not isinstance(loss, Tweedie) or loss.is_defined_at_zero:
            return None
        first = WorkingResponse(loss)
        return Trainer(
            first,
            lbfgs(),
            stop=Stop(100, 1e-12),
            fit_intercept=False,
            standardization=trainer.standardization,
            engine=trainer.engine,
            progress=trainer.progress,
            held_out=trainer.held_out,
        )

    @property
    def _scale_target(self) -> bool:
        return self._is_least_squares

    def _penalty_for(self, moments: Moments) -> Penalty:
        if not self._is_least_squares:
            return super()._penalty_for(moments)
        return by_population(self.getRegParam(), self.getElasticNetParam(), self.getStandardization(), moments)

    @property
    def _targets(self) -> Interval:
        return self._family_loss().targets

    def _loss(self, moments: Moments) -> Loss:
        return self._family_loss()

    def _model(self, fit: Fit) -> GeneralizedLinearRegressionModel:
        return GeneralizedLinearRegressionModel(fit.coefficients.T, fit.intercept)
