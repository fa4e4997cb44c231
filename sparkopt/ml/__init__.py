"""Estimators and models with pyspark.ml's interface: they work in Pipeline, CrossValidator and its evaluators.

An estimator's parameters become a training task (``estimator``), tasks are trained together where they read the same
rows (``training``), and a fit becomes a model, which scores DataFrames (``model``) and summarises its training
(``summary``). The package imports everything up to ``training``, and not ``deep``. Start reading in ``estimator`` and
``regression``.

The stages for images load OpenCV, so they are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.io.imports import UNNEEDED, postponed

with postponed(*UNNEEDED):  # a third of the time that the rest takes
    import pyspark.ml  # noqa: F401

from sparkopt.ml.arguments import LinearArguments
from sparkopt.ml.calibration import ProbabilityCalibration, ProbabilityCalibrationModel
from sparkopt.ml.classification import LogisticRegression, LogisticRegressionModel
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from sparkopt.ml.factorization import FMClassificationModel, FMClassifier, FMRegressionModel, FMRegressor
from sparkopt.ml.generalized import GeneralizedLinearRegression, GeneralizedLinearRegressionModel
from sparkopt.ml.model import LinearModel, NamedCoefficient
from sparkopt.ml.multilabel import MultiLabelLogisticRegression, MultiLabelLogisticRegressionModel
from sparkopt.ml.multilayer import (
    MultilayerPerceptronClassificationModel,
    MultilayerPerceptronClassifier,
    MultilayerPerceptronRegressionModel,
    MultilayerPerceptronRegressor,
)
from sparkopt.ml.negative_binomial import NegativeBinomialRegression, NegativeBinomialRegressionModel
from sparkopt.ml.one_vs_rest import OneVsRest, OneVsRestModel
from sparkopt.ml.online import OnlineState
from sparkopt.ml.onnx_model import OnnxModel
from sparkopt.ml.ordinal import OrdinalRegression, OrdinalRegressionModel
from sparkopt.ml.path import LinearRegressionPath
from sparkopt.ml.pipeline import Pipeline, PipelineModel
from sparkopt.ml.randomized_search import RandomizedSearch
from sparkopt.ml.randomized_search_model import RandomizedSearchModel
from sparkopt.ml.regression import (
    LinearRegression,
    LinearRegressionModel,
    QuantileRegression,
    QuantileRegressionModel,
)
from sparkopt.ml.sklearn_models import from_sklearn
from sparkopt.ml.stream import LatestModel, StreamTrainer
from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.summary.classification import (
    BinaryClassificationSummary,
    BinaryLogisticRegressionSummary,
    BinaryLogisticRegressionTrainingSummary,
    CalibrationSummary,
    CalibrationTrainingSummary,
    ClassificationSummary,
    FMClassificationSummary,
    FMClassificationTrainingSummary,
    LinearSVCSummary,
    LinearSVCTrainingSummary,
    LogisticRegressionSummary,
    LogisticRegressionTrainingSummary,
    MultilayerPerceptronClassificationSummary,
    MultilayerPerceptronClassificationTrainingSummary,
    OrdinalRegressionSummary,
    OrdinalRegressionTrainingSummary,
)
from sparkopt.ml.summary.generalized import (
    GeneralizedLinearRegressionSummary,
    GeneralizedLinearRegressionTrainingSummary,
)
from sparkopt.ml.summary.multilabel import MultiLabelSummary, MultiLabelTrainingSummary
from sparkopt.ml.summary.regression import (
    LinearRegressionSummary,
    LinearRegressionTrainingSummary,
    QuantileRegressionSummary,
    QuantileRegressionTrainingSummary,
    RegressionSummary,
    RegressionTrainingSummary,
)
from sparkopt.ml.summary.survival import SurvivalSummary, SurvivalTrainingSummary
from sparkopt.ml.survival import AFTSurvivalRegression, AFTSurvivalRegressionModel
from sparkopt.ml.svm import LinearSVC, LinearSVCModel
from sparkopt.ml.table_features import TableFeatures, TableFeaturesModel
from sparkopt.ml.trials import SearchTrial
from sparkopt.ml.tuning import (
    CrossValidator,
    CrossValidatorModel,
    TrainValidationSplit,
    TrainValidationSplitModel,
)

if TYPE_CHECKING:
    from sparkopt.ml.image import ImageNormalizer, ImageNormalizerModel, ImageTransformer

__all__ = [
    "AFTSurvivalRegression",
    "AFTSurvivalRegressionModel",
    "BinaryClassificationEvaluator",
    "BinaryClassificationSummary",
    "BinaryLogisticRegressionSummary",
    "BinaryLogisticRegressionTrainingSummary",
    "CalibrationSummary",
    "CalibrationTrainingSummary",
    "ClassificationSummary",
    "CrossValidator",
    "CrossValidatorModel",
    "FMClassificationModel",
    "FMClassificationSummary",
    "FMClassificationTrainingSummary",
    "FMClassifier",
    "FMRegressionModel",
    "FMRegressor",
    "GeneralizedLinearRegression",
    "GeneralizedLinearRegressionModel",
    "GeneralizedLinearRegressionSummary",
    "GeneralizedLinearRegressionTrainingSummary",
    "ImageNormalizer",
    "ImageNormalizerModel",
    "ImageTransformer",
    "LatestModel",
    "LinearArguments",
    "LinearEstimator",
    "LinearModel",
    "LinearRegression",
    "LinearRegressionModel",
    "LinearRegressionPath",
    "LinearRegressionSummary",
    "LinearRegressionTrainingSummary",
    "LinearSVC",
    "LinearSVCModel",
    "LinearSVCSummary",
    "LinearSVCTrainingSummary",
    "LogisticRegression",
    "LogisticRegressionModel",
    "LogisticRegressionSummary",
    "LogisticRegressionTrainingSummary",
    "MultiLabelLogisticRegression",
    "MultiLabelLogisticRegressionModel",
    "MultiLabelSummary",
    "MultiLabelTrainingSummary",
    "MulticlassClassificationEvaluator",
    "MultilayerPerceptronClassificationModel",
    "MultilayerPerceptronClassificationSummary",
    "MultilayerPerceptronClassificationTrainingSummary",
    "MultilayerPerceptronClassifier",
    "MultilayerPerceptronRegressionModel",
    "MultilayerPerceptronRegressor",
    "NamedCoefficient",
    "NegativeBinomialRegression",
    "NegativeBinomialRegressionModel",
    "OneVsRest",
    "OneVsRestModel",
    "OnlineState",
    "OnnxModel",
    "OrdinalRegression",
    "OrdinalRegressionModel",
    "OrdinalRegressionSummary",
    "OrdinalRegressionTrainingSummary",
    "Pipeline",
    "PipelineModel",
    "ProbabilityCalibration",
    "ProbabilityCalibrationModel",
    "QuantileRegression",
    "QuantileRegressionModel",
    "QuantileRegressionSummary",
    "QuantileRegressionTrainingSummary",
    "RandomizedSearch",
    "RandomizedSearchModel",
    "RegressionEvaluator",
    "RegressionSummary",
    "RegressionTrainingSummary",
    "SearchTrial",
    "StreamTrainer",
    "Summary",
    "SurvivalSummary",
    "SurvivalTrainingSummary",
    "TableFeatures",
    "TableFeaturesModel",
    "TrainValidationSplit",
    "TrainValidationSplitModel",
    "TrainingSummary",
    "from_sklearn",
]

_ON_OPENCV = ("ImageNormalizer", "ImageNormalizerModel", "ImageTransformer")


def __getattr__(name: str) -> Any:
    """Load OpenCV only for the stages that need it."""
    if name in _ON_OPENCV:
        return getattr(import_module("sparkopt.ml.image"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
