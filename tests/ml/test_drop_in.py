"""A drop-in for pyspark.ml: the surface of its classes is ours, and what it saves and catches works with ours."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from functools import cached_property
from xml.etree import ElementTree

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel, classification, regression, tuning
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.linalg import Matrices
from pyspark.sql import functions as F

from sparkopt import ml
from sparkopt.errors import IncompatibleError, NoSummaryError, ParameterError, SchemaError
from sparkopt.ml import params
from tests import spark_data as data
from tests.tiers import needs

PYSPARK = {
    name: vars(module)[name]
    for module in (classification, regression, tuning)
    for name in ml.__all__
    if inspect.isclass(vars(module).get(name)) and vars(module)[name].__module__ == module.__name__
}
"""pyspark.ml's classes of our names."""
ESTIMATORS = [name for name in PYSPARK if not name.endswith(("Model", "Summary"))]
every = pytest.mark.parametrize("name", PYSPARK)
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)

DEFAULTS = {
    ("GeneralizedLinearRegression", "maxIter"): "steps of other methods than reweighting do less, so there are more",
    ("LinearSVC", "maxIter"): "the steps of all smoothed losses count",
    **{
        (name, "solver"): "auto: L-BFGS over all rows, Adam over mini-batches or with a stepSize"
        for name in ("FMRegressor", "FMClassifier", "MultilayerPerceptronClassifier")
    },
    **{
        (name, "stepSize"): "unset, the optimiser's own, as in all estimators"
        for name in ("FMRegressor", "FMClassifier", "MultilayerPerceptronClassifier")
    },
    **{
        (name, "seed"): "0, as in all estimators; theirs is a hash of the class's name"
        for name in ("FMRegressor", "FMClassifier", "MultilayerPerceptronClassifier")
    },
}
KINDS = {
    ("LinearSVCModel", "summary"): "a property as on all models, whose value may be called",
    ("FMClassificationModel", "summary"): "the same",
    ("MultilayerPerceptronClassificationModel", "summary"): "the same",
}
CONVERTERS = {
    "lowerBoundsOnCoefficients": "rows, which are saved as JSON; the getter returns a Matrix",
    "upperBoundsOnCoefficients": "the same",
    "lowerBoundsOnIntercepts": "a list, which is saved as JSON; the getter returns a Vector",
    "upperBoundsOnIntercepts": "the same",
    "initialWeights": "a list, which is saved as JSON; the getter returns a Vector",
    "family": "lower case, since any case is taken",
    "link": "the same",
}
ELSEWHERE = {"RandomForest", "HasTrainingSummary"}
"""Classifiers that sparkopt does not have, and so no summaries of them; and a mixin of pyspark.ml's JVM models."""


def kind(owner, name):
    if is_dataclass(owner) and name in {field.name for field in fields(owner)}:
        return "value"
    found = inspect.getattr_static(owner, name)
    if isinstance(found, (property, cached_property)) or not callable(getattr(owner, name)):
        return "value"
    return "method"


def public(owner):
    return {name for name in dir(owner) if not name.startswith("_")}


@every
def test_every_public_name_of_pyspark_is_ours(name):
    theirs, ours = PYSPARK[name], getattr(ml, name)
    own = public(ours) | ({field.name for field in fields(ours)} if is_dataclass(ours) else set())
    assert public(theirs) - own == set()
    for attribute in public(theirs):
        if (name, attribute) not in KINDS:
            assert kind(theirs, attribute) == kind(ours, attribute), attribute


def test_every_summary_of_pyspark_is_ours():
    theirs = {name for module in (classification, regression) for name in dir(module) if name.endswith("Summary")}
    missing = {name.removeprefix("Binary") for name in theirs - set(ml.__all__) if not name.startswith("_")}
    assert {name.split("Classification")[0] for name in missing} == ELSEWHERE


@every_estimator
def test_every_parameter_of_pyspark_is_ours_with_its_default(name, spark):
    theirs, ours = PYSPARK[name](), getattr(ml, name)()
    for param in theirs.params:
        assert ours.hasParam(param.name), param.name
        own = ours.getParam(param.name)
        if param.name not in CONVERTERS:
            assert own.typeConverter == param.typeConverter, param.name
        is_unset = not ours.isDefined(own) and theirs.isDefined(param)
        assert not is_unset or (name, param.name) in DEFAULTS, param.name
        if theirs.isDefined(param) and (name, param.name) not in DEFAULTS:
            assert ours.getOrDefault(own) == theirs.getOrDefault(param), param.name


@every_estimator
def test_constructors_and_set_params_take_what_pyspark_takes(name):
    ours = getattr(ml, name)
    for method in ("__init__", "setParams"):
        wanted = inspect.signature(getattr(PYSPARK[name], method)).parameters
        found = inspect.signature(getattr(ours, method)).parameters
        assert set(wanted) - set(found) == set(), method
        for argument, parameter in wanted.items():
            if (name, argument) not in DEFAULTS:
                assert found[argument].default == parameter.default, (method, argument)


@every
def test_methods_take_what_pyspark_takes(name):
    theirs, ours = PYSPARK[name], getattr(ml, name)
    for method in public(theirs) - {"setParams"}:
        if kind(theirs, method) == "method" and (name, method) not in KINDS:
            wanted, found = (inspect.signature(getattr(owner, method)).parameters for owner in (theirs, ours))
            assert [(p.name, p.default) for p in wanted.values()] == [(p.name, p.default) for p in found.values()]


@every
def test_models_have_every_parameter_of_their_estimator(name):
    if not name.endswith("Model") or name.startswith(("CrossValidator", "TrainValidation", "Pipeline", "OneVs")):
        return
    ours = getattr(ml, name)(np.zeros((1, 2)), np.zeros(1))
    kind = name.removesuffix("Model")
    if not hasattr(ml, kind):
        kind = kind.replace("Classification", "Classifier").replace("Regression", "Regressor")
    estimator = getattr(ml, kind)()
    assert {param.name for param in estimator.params} == {param.name for param in ours.params}


@pytest.fixture(scope="module")
def cancer(spark):
    return data.breast_cancer(spark)


@pytest.fixture(scope="module")
def diabetes(spark):
    return data.diabetes(spark)


@pytest.fixture(scope="module")
def logistic(cancer):
    return ml.LogisticRegression(regParam=0.1, maxIter=5, tol=0.0).fit(cancer)


@pytest.fixture(scope="module")
def linear(diabetes):
    return ml.LinearRegression(regParam=0.1, solver="normal").fit(diabetes)


def test_models_have_the_uid_of_their_estimator_and_pysparks_text(cancer, diabetes):
    for package, ours, options, rows in (
        (classification, ml.LogisticRegression, {"regParam": 0.1}, cancer),
        (classification, ml.LinearSVC, {"regParam": 0.1}, cancer),
        (regression, ml.LinearRegression, {"regParam": 0.1}, diabetes),
        (regression, ml.GeneralizedLinearRegression, {"family": "Poisson", "link": "Log"}, diabetes),
    ):
        theirs = getattr(package, ours.__name__)(maxIter=2, **options).fit(rows)
        estimator = ours(maxIter=2, tol=0.0, **options)
        model = estimator.fit(rows)
        assert model.uid == estimator.uid == model.copy().uid
        assert all(param.parent == model.uid for param in model.params)
        assert model.extractParamMap({model.predictionCol: "p"})[model.predictionCol] == "p"
        text = str(theirs).replace(theirs.uid, estimator.uid).replace("Poisson", "poisson").replace("Log,", "log,")
        assert str(model) == repr(model) == text


def test_a_tweedie_model_names_its_powers():
    model = ml.GeneralizedLinearRegressionModel(np.zeros((1, 2)), np.zeros(1))
    model._set(family="tweedie", variancePower=1.5)
    assert str(model).endswith("family=tweedie, variancePower=1.5, linkPower=-0.5, numFeatures=2")


def test_set_params_sets_what_is_given_alone():
    estimator = ml.LogisticRegression(regParam=0.5, callbacks=[print])
    assert estimator.setParams(maxIter=7, family="Binomial") is estimator
    assert (estimator.getMaxIter(), estimator.getRegParam(), estimator.getFamily()) == (7, 0.5, "binomial")
    assert estimator.callbacks == (print,)
    with pytest.raises(TypeError, match="unexpected keyword argument 'maxIters'"):
        estimator.setParams(maxIters=3)
    with pytest.raises(TypeError):
        estimator.setParams("features")


def test_thresholds_follow_the_threshold_and_the_other_way_round():
    estimator = ml.LogisticRegression().setThreshold(0.25)
    assert estimator.getThresholds() == [0.75, 0.25]
    estimator.setThresholds([0.9, 0.1])
    assert estimator.getThreshold() == pytest.approx(0.1)
    assert not estimator.isSet(estimator.threshold)
    assert ml.LogisticRegression(threshold=0.25, thresholds=[0.75, 0.25]).getThreshold() == 0.25


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.2, 0.3, 0.5]])
def test_contradictory_thresholds_are_refused_by_the_constructor(thresholds, spark):
    for kind in (ml.LogisticRegression, classification.LogisticRegression):
        with pytest.raises(ValueError, match="threshold"):
            kind(threshold=0.3, thresholds=thresholds)
    with pytest.raises(ParameterError, match="Set one of them"):
        ml.LogisticRegression().setParams(threshold=0.3, thresholds=thresholds)


def test_bounds_are_on_the_model(cancer, tmp_path):
    low = Matrices.dense(1, 10, [-0.5] * 10)
    found = ml.LogisticRegression(lowerBoundsOnCoefficients=low, maxIter=3, tol=0.0).fit(cancer)
    found.save(str(tmp_path / "model"))
    for model in (found, ml.LogisticRegressionModel.load(str(tmp_path / "model"))):
        assert model.getLowerBoundsOnCoefficients() == low
        assert not model.isSet(model.upperBoundsOnIntercepts)


def test_the_summary_of_a_support_vector_machine_is_called_or_not(cancer):
    model = ml.LinearSVC(maxIter=3, tol=0.0, regParam=0.1).fit(cancer)
    assert model.summary() is model.summary
    assert isinstance(model.summary(), ml.LinearSVCSummary)
    assert type(model.evaluate(cancer)) is ml.LinearSVCSummary


SOLVERS = {
    "auto": {},
    "auto, weighted": {"weightCol": "weight", "regParam": 1.0},
    "auto, lasso": {"elasticNetParam": 1.0, "regParam": 1.0},
    "auto, elastic net": {"elasticNetParam": 0.5, "regParam": 1.0, "standardization": False, "weightCol": "weight"},
    "normal": {},
    "l-bfgs": {},
    "normal, huber": {"loss": "huber"},
    "normal, raw": {"standardization": False},
    "l-bfgs, lasso": {"elasticNetParam": 1.0, "regParam": 1.0},
    "irls": {},
    "L-BFGS": {},
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_of_linear_regression_are_taken_or_refused_as_by_pyspark(name, diabetes):
    options = {"solver": name.split(",")[0], "regParam": 0.01, "tol": 1e-12, **SOLVERS[name]}
    try:
        theirs = regression.LinearRegression(**options).fit(diabetes)
    except IllegalArgumentException:
        with pytest.raises(IllegalArgumentException, match="solver"):
            ml.LinearRegression(**options).fit(diabetes)
        return
    ours = ml.LinearRegression(**options).fit(diabetes)
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, rtol=1e-5)


def test_solvers_choose_the_method(diabetes):
    lasso = {"regParam": 0.1, "elasticNetParam": 1.0, "maxIter": 3, "tol": 0.0}
    assert ml.LinearRegression(solver="l-bfgs", **lasso).fit(diabetes).summary.receipt.optimizer == "proximal-lbfgs"
    model = ml.LinearRegression(solver="normal", tol=1e-12).fit(diabetes)
    assert model.summary.totalIterations <= 2
    with pytest.raises(IncompatibleError, match="both choose the method"):
        ml.LinearRegression(solver="normal", optimizer="adam").fit(diabetes)


def test_the_solver_of_a_generalised_linear_model(diabetes):
    quick = {"maxIter": 2, "tol": 0.0}
    assert ml.GeneralizedLinearRegression(**quick).fit(diabetes).summary.solver == "irls"
    assert ml.GeneralizedLinearRegression(optimizer="gd", **quick).fit(diabetes).summary.solver == "gd"
    with pytest.raises(IllegalArgumentException, match="solver must be one of 'irls'"):
        ml.GeneralizedLinearRegression(solver="normal").fit(diabetes)


def pmml(folder):
    """Attributes of all elements, in order, but for what names the program and the time."""
    (part,) = folder.glob("part-*")
    elements = ElementTree.fromstring(part.read_text(encoding="utf-8")).iter()
    return [(element.tag, element.attrib) for element in elements if not element.tag.endswith("Application")]


def test_linear_regressions_are_written_as_pyspark_writes_pmml(linear, diabetes, tmp_path):
    theirs = regression.LinearRegression(regParam=0.1).fit(diabetes)
    theirs.write().format("pmml").save(str(tmp_path / "theirs"))
    exact = ml.LinearRegressionModel(theirs.coefficients.toArray()[None, :], np.array([theirs.intercept]))
    exact.write().format("PMML").save(str(tmp_path / "ours"))
    exact.write().overwrite().format("pmml").save(str(tmp_path / "ours"))
    assert pmml(tmp_path / "ours") == pmml(tmp_path / "theirs")
    named = exact.copy()._set(featuresCols=[f"x{i}" for i in range(10)], labelCol="y")
    named.write().format("pmml").save(str(tmp_path / "named"))
    roles = [facts for tag, facts in pmml(tmp_path / "named") if tag.endswith("MiningField")]
    assert roles[-1] == {"name": "y", "usageType": "target"}
    assert roles[0] == {"name": "x0", "usageType": "active"}
    with pytest.raises(ParameterError, match="'internal', 'pyspark', 'pmml'"):
        linear.write().format("onnx")
    linear.write().format("internal").save(str(tmp_path / "internal"))
    assert ml.LinearRegressionModel.load(str(tmp_path / "internal")).coefficients == linear.coefficients


REFUSED = {
    "parameter": (dict(regParam=-1.0), ParameterError),
    "features": (dict(featuresCol="none"), SchemaError),
    "label's type": (dict(labelCol="features"), SchemaError),
    "family": (dict(family="poisson"), ParameterError),
    "block size": (dict(maxBlockSizeInMB=-1.0), ParameterError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_catches_pysparks_errors_catches_ours(name, cancer):
    options, kind = REFUSED[name]
    for estimator in (classification.LogisticRegression(**options), ml.LogisticRegression(**options)):
        with pytest.raises(IllegalArgumentException):
            estimator.fit(cancer)
    with pytest.raises(kind) as caught:
        ml.LogisticRegression(**options).fit(cancer)
    assert str(caught.value) in caught.value.getMessage()
    assert isinstance(caught.value, ValueError)


def test_models_refuse_columns_as_pysparks_do(logistic, cancer):
    with pytest.raises(IllegalArgumentException, match="'none' does not exist"):
        logistic.copy().setFeaturesCol("none").transform(cancer)
    loaded = ml.LogisticRegressionModel(np.zeros((1, 10)), np.zeros(1))
    for kind in (RuntimeError, AttributeError, NoSummaryError):
        with pytest.raises(kind, match="no summary"):
            _ = loaded.summary


def test_names_in_any_case():
    assert params.lower_case("Log") == "log"
    estimator = ml.GeneralizedLinearRegression(family="Gamma", link="Inverse")
    assert (estimator.getFamily(), estimator.getLink()) == ("gamma", "inverse")
    assert estimator.copy({estimator.family: "TWEEDIE"}).getFamily() == "tweedie"
    with pytest.raises(TypeError):
        estimator.setFamily(1)


@pytest.fixture(scope="module")
def searches(cancer):
    """A search over sparkopt's estimator by each package, with the models of its folds; both over the same folds."""
    rows = cancer.select("features", "label", (F.col("weight") * 100).cast("int").alias("n")).where("n % 3 < 2")
    rows = rows.withColumn("fold", F.col("n") % 3).cache()
    estimator = ml.LogisticRegression(maxIter=3, tol=0.0, engine="local")
    options = {
        "estimator": estimator,
        "estimatorParamMaps": [{estimator.regParam: 0.01}, {estimator.regParam: 10.0, estimator.family: "binomial"}],
        "evaluator": BinaryClassificationEvaluator(),
        "collectSubModels": True,
    }
    folds = {"numFolds": 2, "foldCol": "fold"}
    return {
        "ours": (ml.CrossValidator(**options, **folds).fit(rows), ml.CrossValidator(**options, **folds)),
        "theirs": (tuning.CrossValidator(**options, **folds).fit(rows), tuning.CrossValidator(**options, **folds)),
        "split": (tuning.TrainValidationSplit(**options, seed=1).fit(rows), tuning.TrainValidationSplit(**options)),
    }


def same(loaded, saved):
    """One model is another: uid, parameters and numbers."""
    assert loaded.uid == saved.uid
    assert str(loaded.extractParamMap()) == str(saved.extractParamMap())
    assert loaded.coefficients == saved.coefficients


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("ours", (ml.CrossValidatorModel, ml.CrossValidator)),
        pytest.param("ours", (tuning.CrossValidatorModel, tuning.CrossValidator), marks=needs("minutes")),
        ("theirs", (ml.CrossValidatorModel, ml.CrossValidator)),
        ("split", (tuning.TrainValidationSplitModel, tuning.TrainValidationSplit)),
    ],
)
def test_searches_are_loaded_by_the_other_package(writer, reader, searches, tmp_path):
    model, search = searches[writer]
    model.save(str(tmp_path / "model"))
    loaded = reader[0].load(str(tmp_path / "model"))
    assert type(loaded) is reader[0]
    assert loaded.uid == model.uid
    same(loaded.bestModel, model.bestModel)
    assert loaded.getEstimatorParamMaps() == model.getEstimatorParamMaps()
    if writer == "split":
        assert loaded.validationMetrics == model.validationMetrics
        for one, other in zip(loaded.subModels, model.subModels, strict=True):
            same(one, other)
    else:
        assert (loaded.avgMetrics, loaded.stdMetrics) == (model.avgMetrics, model.stdMetrics)
        # pyspark.ml's reader gives every fold the models of the last
        pairs = zip(loaded.subModels, model.subModels, strict=True)
        for fold, (ones, others) in enumerate(pairs):
            if reader[0] is ml.CrossValidatorModel or fold == 1:
                for one, other in zip(ones, others, strict=True):
                    same(one, other)
    search.save(str(tmp_path / "search"))
    again = reader[1].load(str(tmp_path / "search"))
    assert type(again) is reader[1]
    assert (again.uid, again.getEstimator().uid) == (search.uid, search.getEstimator().uid)
    assert again.getEstimatorParamMaps() == search.getEstimatorParamMaps()


def test_searches_over_pysparks_estimators_are_the_jvms(spark, cancer, tmp_path):
    estimator = classification.LogisticRegression(maxIter=2)
    grid = [{estimator.regParam: 0.5}]
    search = ml.CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), numFolds=2
    )
    model = search.fit(cancer)
    for kind in (ml.CrossValidatorModel, tuning.CrossValidatorModel):
        model.write().overwrite().save(str(tmp_path / "model"))
        loaded = kind.load(str(tmp_path / "model"))
        assert loaded.bestModel.coefficients == model.bestModel.coefficients
        assert loaded.getEstimatorParamMaps() == grid


def test_a_search_in_a_pipeline_and_a_stage_in_its_grid(cancer, tmp_path):
    """A pipeline returns the stage's own class; a stage that is a parameter's value has a folder of its own."""
    estimator = ml.LogisticRegression(maxIter=2, tol=0.0)
    one_by_one = classification.OneVsRest(classifier=estimator)
    grid = [{one_by_one.classifier: ml.LinearSVC(maxIter=3)}, {one_by_one.classifier: estimator}]
    search = ml.CrossValidator(
        estimator=one_by_one, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), numFolds=2
    )
    Pipeline(stages=[search]).save(str(tmp_path / "pipeline"))
    (loaded,) = Pipeline.load(str(tmp_path / "pipeline")).getStages()
    assert type(loaded) is ml.CrossValidator
    stages = [next(iter(values.values())) for values in loaded.getEstimatorParamMaps()]
    assert [type(stage) for stage in stages] == [ml.LinearSVC, ml.LogisticRegression]
    assert [stage.uid for stage in stages] == [next(iter(values.values())).uid for values in grid]


def test_one_vs_rest_and_pipelines_keep_their_models(spark, tmp_path):
    rows = data.digits(spark).where("label < 3").cache()
    estimator = ml.LogisticRegression(maxIter=2, tol=0.0, regParam=0.1, engine="local")
    model = Pipeline(stages=[classification.OneVsRest(classifier=estimator)]).fit(rows)
    model.save(str(tmp_path / "model"))
    (loaded,), (saved,) = PipelineModel.load(str(tmp_path / "model")).stages, model.stages
    assert len(loaded.models) == 3
    for one, other in zip(loaded.models, saved.models, strict=True):
        same(one, other)
    predictions = [found.transform(rows).select("prediction").collect() for found in (loaded, saved)]
    assert predictions[0] == predictions[1]


@pytest.mark.parametrize("options", [{}, {"weightCol": "weight"}, {"fitIntercept": False}], ids=str)
def test_a_penalised_gaussian_is_pysparks(options, diabetes):
    options = {**options, "regParam": 0.5, "tol": 1e-15}
    theirs = regression.GeneralizedLinearRegression(**options).fit(diabetes)
    ours = ml.GeneralizedLinearRegression(**options).fit(diabetes)
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, rtol=1e-5)
    assert ours.intercept == pytest.approx(theirs.intercept, rel=1e-6)
