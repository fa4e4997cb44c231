"""What every estimator and its model keep: one table of estimators, one contract."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors

from sparkopt import ml
from sparkopt.ml.local import score
from tests import spark_data as data

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
QUICK = {"maxIter": 3, "tol": 0.0, "engine": "local"}
KINDS = {
    "least squares": (ml.LinearRegression, {}),
    "huber": (ml.LinearRegression, {"loss": "huber", "epsilon": 2.0}),
    "quantile": (ml.QuantileRegression, {"quantile": 0.3}),
    "logistic": (ml.LogisticRegression, {"threshold": 0.4, "lowerBoundsOnCoefficients": [[-1.0] * 10]}),
    "hinge": (ml.LinearSVC, {"threshold": 0.1}),
    "squared hinge": (ml.LinearSVC, {"loss": "squaredHinge", "classWeights": "balanced"}),
    "poisson": (ml.GeneralizedLinearRegression, {"family": "poisson", "linkPredictionCol": "link"}),
    "tweedie": (
        ml.GeneralizedLinearRegression,
        {"family": "tweedie", "variancePower": 1.5, "linkPower": 0.0},
    ),
    "survival": (ml.AFTSurvivalRegression, {"labelCol": "time", "censorCol": "label", "quantilesCol": "quantiles"}),
    "ordinal": (ml.OrdinalRegression, {"labelCol": "grade"}),
    "negative binomial": (ml.NegativeBinomialRegression, {"labelCol": "time"}),
    "factorization": (ml.FMRegressor, {"labelCol": "time", "factorSize": 2, "fitLinear": False}),
    "factorization of classes": (ml.FMClassifier, {"factorSize": 3, "thresholds": [0.3, 0.7]}),
    "perceptron": (ml.MultilayerPerceptronClassifier, {"labelCol": "grade", "layers": [10, 4, 3]}),
    "perceptron of numbers": (ml.MultilayerPerceptronRegressor, {"labelCol": "time", "layers": [10, 3, 2, 1]}),
    "labels": (ml.MultiLabelLogisticRegression, {"labelCols": ["label", "even"], "threshold": 0.4}),
    "sigmoid": (ml.ProbabilityCalibration, {"featuresCol": "features"}),
    "isotonic": (ml.ProbabilityCalibration, {"featuresCol": "features", "method": "isotonic"}),
}
every = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def cancer():
    table = data.table(*data.breast_cancer_arrays())
    row = np.arange(len(table))
    for name, values in {"time": row + 1.0, "grade": row % 3, "even": row % 2}.items():
        table = table.append_column(name, pa.array(values))
    return table


@pytest.fixture(scope="module")
def some(cancer):
    """A few rows, with Vectors as Spark gives them to pandas."""
    frame = cancer.slice(0, 20).to_pandas()
    return frame.assign(features=[Vectors.dense(x) for x in frame["features"]])


@pytest.fixture(scope="module")
def fitted(cancer):
    known = {}

    def fit(name):
        if name not in known:
            kind, options = KINDS[name]
            known[name] = kind(**QUICK, **options).fit(cancer)
        return known[name]

    return fit


def params(instance):
    return {param.name: value for param, value in instance.extractParamMap().items()}


SHARED = {
    "featuresCol": "f",
    "featuresCols": ["a", "b"],
    "labelCol": "l",
    "weightCol": "w",
    "predictionCol": "p",
    "maxIter": 7,
    "tol": 0.5,
    "regParam": 0.25,
    "elasticNetParam": 0.75,
    "fitIntercept": False,
    "standardization": False,
    "optimizer": "adam",
    "stepSize": 0.125,
    "stepSizeSchedule": "cosine",
    "miniBatchFraction": 0.5,
    "localSteps": 4,
    "localStepsWarmUp": 2,
    "outerOptimizer": "diloco",
    "outerStepSize": 0.5,
    "compression": "int8",
    "blockCodec": "zstd",
    "handleInvalid": "skip",
    "seed": 11,
    "aggregationDepth": 3,
    "maxBlockSizeInMB": 2.0,
    "engine": "local",
    "validationIndicatorCol": "v",
    "patience": 4,
    "minDelta": 0.01,
    "checkpointDir": "d",
    "checkpointInterval": 3,
    "callbacks": (print,),
    "initialModel": None,
}
CLASSIFIER = {"rawPredictionCol": "r", "threshold": 0.25, "classWeights": {1: 2.0}}
BOUNDS = ("lowerBoundsOnCoefficients", "upperBoundsOnCoefficients")
INTERCEPTS = ("lowerBoundsOnIntercepts", "upperBoundsOnIntercepts")
FACTORS = {"factorSize": 3, "fitLinear": False, "initStd": 0.5, "solver": "gd"}
LAYERS = {"layers": [2, 3], "blockSize": 64, "solver": "l-bfgs", "initialWeights": [0.5, 1.0]}
PROBABILISTIC = {
    "thresholds": [0.75, 0.25],
    "rawPredictionCol": "r",
    "probabilityCol": "q",
    "classWeights": {1: 2.0},
}
ARGUMENTS = {
    ml.LinearRegression: {"loss": "huber", "epsilon": 2.0, "solver": "l-bfgs"},
    ml.QuantileRegression: {"quantile": 0.25},
    ml.LogisticRegression: {
        **CLASSIFIER,
        "family": "binomial",
        "probabilityCol": "q",
        "thresholds": [0.75, 0.25],
        **{key: [[1.0, 2.0]] for key in BOUNDS},
        **{key: [1.0] for key in INTERCEPTS},
    },
    ml.LinearSVC: {**CLASSIFIER, "loss": "squaredHinge"},
    ml.GeneralizedLinearRegression: {
        "family": "tweedie",
        "link": "log",
        "variancePower": 1.5,
        "linkPower": 0.5,
        "linkPredictionCol": "k",
        "offsetCol": "o",
        "solver": "irls",
    },
    ml.AFTSurvivalRegression: {"censorCol": "e", "quantileProbabilities": [0.5], "quantilesCol": "q"},
    ml.OrdinalRegression: {"probabilityCol": "q"},
    ml.NegativeBinomialRegression: {"offsetCol": "o"},
    ml.MultiLabelLogisticRegression: {
        "labelCols": ["u", "v"],
        "rawPredictionCol": "r",
        "probabilityCol": "q",
        "threshold": 0.25,
    },
    ml.FMRegressor: FACTORS,
    ml.FMClassifier: {**FACTORS, **PROBABILISTIC},
    ml.MultilayerPerceptronClassifier: {**LAYERS, **PROBABILISTIC},
    ml.MultilayerPerceptronRegressor: LAYERS,
    ml.ProbabilityCalibration: {"method": "isotonic", "probabilityCol": "q"},
}
"""Every constructor argument of every estimator, with a value that is not its default."""


def held(estimator, argument):
    return getattr(estimator, argument) if argument in ("callbacks", "initialModel") else params(estimator)[argument]


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
def test_every_parameter_is_a_constructor_argument_with_setter_getter_and_docstring(kind):
    values = {**SHARED, **ARGUMENTS[kind]}
    signature = inspect.signature(kind).parameters
    assert set(signature) == set(values)
    assert {param.name for param in kind().params} == set(values) - {"callbacks", "initialModel"}
    for argument, value in values.items():
        name = argument[0].upper() + argument[1:]
        by_constructor, by_setter = kind(**{argument: value}), kind()
        assert getattr(by_setter, f"set{name}")(value) is by_setter
        assert held(by_constructor, argument) == held(by_setter, argument) == value
        assert re.search(rf"^    (\w+, )?{argument}(, \w+)? :", kind.__doc__, re.MULTILINE), argument
        default = signature[argument].default
        assert default is None or held(kind(), argument) == default
        assert argument in ("callbacks", "initialModel") or callable(getattr(by_setter, f"get{name}"))


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
def test_constructors_take_known_names_only_and_help_shows_them(kind):
    with pytest.raises(TypeError, match="keyword"):
        kind("features")
    with pytest.raises(TypeError, match="unexpected keyword argument 'maxIters'"):
        kind(maxIters=3)
    shown = re.sub(r"\s+", " ", pydoc.plain(pydoc.render_doc(kind)))
    most = 500 if kind in (ml.QuantileRegression, ml.LinearSVC) else 100
    for argument in (f"maxIter: int = {most}", "weightCol: str | None = None", "initialModel: Any = None"):
        assert argument in shown
    for parameter in inspect.signature(kind).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty
        assert not isinstance(parameter.annotation, str)


def test_type_checkers_see_the_type_of_every_argument():
    """`make lint` has mypy check the file: it accepts what the table holds, and refuses each wrong call."""
    text = (ROOT / "tests/ml/type_checked.py").read_text(encoding="utf-8")
    accepted, refused = (part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef))
    calls = [statement.value for statement in accepted.body if isinstance(statement.value, ast.Call)]
    found = {
        ast.unparse(call.func): {word.arg: ast.literal_eval(word.value) for word in call.keywords} for call in calls
    }
    assert found == {
        f"ml.{kind.__name__}": {name: value for name, value in {**SHARED, **own}.items() if name != "callbacks"}
        for kind, own in ARGUMENTS.items()
    }
    wrong = ("maxIter='many'", "weightCol=1", "callbacks=(1,)", "maxIters=3", "'features'")
    assert [ast.unparse(statement) for statement in refused.body[1:]] == [
        f"ml.{kind.__name__}({one})" for kind in ARGUMENTS for one in wrong
    ]
    lines = text.splitlines()
    assert all("  # type: ignore[" in lines[statement.lineno - 1] for statement in refused.body[1:])
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert "tests.ml.type_checked" in settings["modules"]
    assert settings["strict"]  # which reports an ignored line without an error


def test_opencv_is_loaded_for_the_stages_that_need_it_alone():
    code = "import sys, sparkopt.ml; print('cv2' in sys.modules, sparkopt.ml.ImageTransformer, 'cv2' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "<class", "'sparkopt.ml.image.ImageTransformer'>", "True"]
    with pytest.raises(AttributeError, match="no attribute 'Image'"):
        _ = ml.Image


@every
def test_models_survive_the_disk(name, fitted, some, tmp_path):
    """What is loaded predicts the same, bit by bit; test_estimators_on_spark.py asks Spark for it."""
    model = fitted(name)
    model.save(str(tmp_path / "model"))
    loaded = type(model).load(str(tmp_path / "model"))
    assert params(loaded) == params(model)
    assert np.array_equal(loaded.auxiliary, model.auxiliary)
    pd.testing.assert_frame_equal(score(loaded, some), score(model, some), check_exact=True)
