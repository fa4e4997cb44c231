"""Estimators and models with pyspark.ml's interface: they work in Pipeline, CrossValidator and its evaluators.

An estimator's parameters become a training task (``estimator``), tasks are trained together where they read the same
rows (``training``), and a fit becomes a model, which scores DataFrames (``model``) and summarises its training
(``summary``). The package imports everything up to ``training``, and not ``deep``. Start reading in ``estimator`` and
``regression``.

Each name is loaded when it is first used: Spark's Python workers import parts of this package that need no
pyspark.ml, and only the stages for images need OpenCV.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.io.imports import OTHER_STAGES, UNNEEDED, postponed

if TYPE_CHECKING:
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
    from sparkopt.ml.image import ImageNormalizer, ImageNormalizerModel, ImageTransformer
    from sparkopt.ml.metrics.segmentation import SegmentationMetrics, segmentation_metrics
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
    "SegmentationMetrics",
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
    "segmentation_metrics",
]

_HOMES = {
    "AFTSurvivalRegression": "survival",
    "AFTSurvivalRegressionModel": "survival",
    "BinaryClassificationEvaluator": "evaluation",
    "BinaryClassificationSummary": "summary.classification",
    "BinaryLogisticRegressionSummary": "summary.classification",
    "BinaryLogisticRegressionTrainingSummary": "summary.classification",
    "CalibrationSummary": "summary.classification",
    "CalibrationTrainingSummary": "summary.classification",
    "ClassificationSummary": "summary.classification",
    "CrossValidator": "tuning",
    "CrossValidatorModel": "tuning",
    "FMClassificationModel": "factorization",
    "FMClassificationSummary": "summary.classification",
    "FMClassificationTrainingSummary": "summary.classification",
    "FMClassifier": "factorization",
    "FMRegressionModel": "factorization",
    "FMRegressor": "factorization",
    "GeneralizedLinearRegression": "generalized",
    "GeneralizedLinearRegressionModel": "generalized",
    "GeneralizedLinearRegressionSummary": "summary.generalized",
    "GeneralizedLinearRegressionTrainingSummary": "summary.generalized",
    "ImageNormalizer": "image",
    "ImageNormalizerModel": "image",
    "ImageTransformer": "image",
    "LatestModel": "stream",
    "LinearArguments": "arguments",
    "LinearEstimator": "estimator",
    "LinearModel": "model",
    "LinearRegression": "regression",
    "LinearRegressionModel": "regression",
    "LinearRegressionPath": "path",
    "LinearRegressionSummary": "summary.regression",
    "LinearRegressionTrainingSummary": "summary.regression",
    "LinearSVC": "svm",
    "LinearSVCModel": "svm",
    "LinearSVCSummary": "summary.classification",
    "LinearSVCTrainingSummary": "summary.classification",
    "LogisticRegression": "classification",
    "LogisticRegressionModel": "classification",
    "LogisticRegressionSummary": "summary.classification",
    "LogisticRegressionTrainingSummary": "summary.classification",
    "MultiLabelLogisticRegression": "multilabel",
    "MultiLabelLogisticRegressionModel": "multilabel",
    "MultiLabelSummary": "summary.multilabel",
    "MultiLabelTrainingSummary": "summary.multilabel",
    "MulticlassClassificationEvaluator": "evaluation",
    "MultilayerPerceptronClassificationModel": "multilayer",
    "MultilayerPerceptronClassificationSummary": "summary.classification",
    "MultilayerPerceptronClassificationTrainingSummary": "summary.classification",
    "MultilayerPerceptronClassifier": "multilayer",
    "MultilayerPerceptronRegressionModel": "multilayer",
    "MultilayerPerceptronRegressor": "multilayer",
    "NamedCoefficient": "model",
    "NegativeBinomialRegression": "negative_binomial",
    "NegativeBinomialRegressionModel": "negative_binomial",
    "OneVsRest": "one_vs_rest",
    "OneVsRestModel": "one_vs_rest",
    "OnlineState": "online",
    "OnnxModel": "onnx_model",
    "OrdinalRegression": "ordinal",
    "OrdinalRegressionModel": "ordinal",
    "OrdinalRegressionSummary": "summary.classification",
    "OrdinalRegressionTrainingSummary": "summary.classification",
    "Pipeline": "pipeline",
    "PipelineModel": "pipeline",
    "ProbabilityCalibration": "calibration",
    "ProbabilityCalibrationModel": "calibration",
    "QuantileRegression": "regression",
    "QuantileRegressionModel": "regression",
    "QuantileRegressionSummary": "summary.regression",
    "QuantileRegressionTrainingSummary": "summary.regression",
    "RandomizedSearch": "randomized_search",
    "RandomizedSearchModel": "randomized_search_model",
    "RegressionEvaluator": "evaluation",
    "RegressionSummary": "summary.regression",
    "RegressionTrainingSummary": "summary.regression",
    "SearchTrial": "trials",
    "SegmentationMetrics": "metrics.segmentation",
    "StreamTrainer": "stream",
    "Summary": "summary.base",
    "SurvivalSummary": "summary.survival",
    "SurvivalTrainingSummary": "summary.survival",
    "TableFeatures": "table_features",
    "TableFeaturesModel": "table_features",
    "TrainValidationSplit": "tuning",
    "TrainValidationSplitModel": "tuning",
    "TrainingSummary": "summary.base",
    "from_sklearn": "sklearn_models",
    "segmentation_metrics": "metrics.segmentation",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "pyspark.ml" not in sys.modules:
        with postponed(*UNNEEDED, *OTHER_STAGES):  # half of the time that the rest takes
            import_module("pyspark.ml.functions")
    with postponed("pyarrow.compute"):
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
