"""What a hurried user gets wrong, by estimator, without Spark: one line that names it, and no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml import Estimator

from sparkopt import images, ml

N = 60
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, N))
TABLE = pa.table(
    {
        "a": A,
        "b": B,
        "label": (A > B).astype(float),
        "kind": np.arange(N) % 3 * 1.0,
        "amount": A - B,
        "count": np.arange(N) % 4 * 1.0,
        "town": ["x", "y", "z"] * (N // 3),
        "time": np.exp(A - B),
        "late": (A < 0).astype(float),
        "features": np.stack([A, B], 1).tolist(),
        "fold": pa.array(np.arange(N) % 3, pa.int32()),
    }
)
TWICE = pa.Table.from_arrays([*TABLE.columns, TABLE["a"]], [*TABLE.column_names, "a"])
AB: dict[str, Any] = {"featuresCols": ["a", "b"]}
LINEAR: dict[str, tuple[Any, dict[str, Any]]] = {
    "LogisticRegression": (ml.LogisticRegression, {}),
    "LinearSVC": (ml.LinearSVC, {}),
    "LinearRegression": (ml.LinearRegression, {"labelCol": "amount"}),
    "QuantileRegression": (ml.QuantileRegression, {"labelCol": "amount"}),
    "GeneralizedLinearRegression": (ml.GeneralizedLinearRegression, {"labelCol": "count", "family": "poisson"}),
    "AFTSurvivalRegression": (ml.AFTSurvivalRegression, {"labelCol": "time", "censorCol": "label"}),
    "OrdinalRegression": (ml.OrdinalRegression, {"labelCol": "kind"}),
    "NegativeBinomialRegression": (ml.NegativeBinomialRegression, {"labelCol": "count"}),
    "MultiLabelLogisticRegression": (ml.MultiLabelLogisticRegression, {"labelCols": ["label", "late"]}),
    "FMRegressor": (ml.FMRegressor, {"labelCol": "amount"}),
    "FMClassifier": (ml.FMClassifier, {}),
    "MultilayerPerceptronClassifier": (ml.MultilayerPerceptronClassifier, {"layers": [2, 3, 2]}),
    "MultilayerPerceptronRegressor": (
        ml.MultilayerPerceptronRegressor,
        {"labelCol": "amount", "layers": [2, 3, 1]},
    ),
    "ProbabilityCalibration": (ml.ProbabilityCalibration, {}),
}
MODELS = {
    "FMRegressor": "FMRegression",
    "FMClassifier": "FMClassification",
    "MultilayerPerceptronClassifier": "MultilayerPerceptronClassification",
    "MultilayerPerceptronRegressor": "MultilayerPerceptronRegression",
}
"""How the names of models begin, where not with their estimator's: pyspark.ml's names."""
OTHERWISE: dict[str, set[str]] = {
    "MultiLabelLogisticRegression": {"another label"},  # it has labelCols
    "ProbabilityCalibration": {"rows of another width"},  # it has one score a row
}
"""What is no mistake of an estimator, or another one."""
Case = tuple[Callable[[], Any], str]


def put(name: str, values: Any) -> pa.Table:
    """The rows with another column."""
    return TABLE.set_column(TABLE.column_names.index(name), name, pa.array(values))


def linear(kind: Any, own: dict[str, Any], path: str) -> dict[str, Case]:
    """What is wrong with any linear estimator; models are saved below a path."""

    def made(**options: Any) -> Any:
        return kind(**{**AB, **own, **options})

    def fitted(**options: Any) -> Any:
        return lambda: made(**options).fit(TABLE)

    def saved() -> str:
        made(maxIter=1).fit(TABLE).write().overwrite().save(path)
        return path

    name, label = kind.__name__, own.get("labelCol", "label")
    model = f"{MODELS.get(name, name)}Model"
    return {
        "a path that is not there": (lambda: made().fit("nowhere.parquet"), "'nowhere.parquet' does not exist"),
        "a dict": (lambda: made().fit({"a": [1.0]}), "a table is made of a path, .* Got a dict instead"),
        "a list": (lambda: made().fit([[1.0, 0.0]]), r"or a pair \(X, y\) of arrays. Got a list instead"),
        "an array without labels": (lambda: made().fit(np.zeros((4, 3))), r"pair \(X, y\) of arrays. Got a ndarray"),
        "nothing": (lambda: made().fit(None), "Got a NoneType instead"),
        "X, y": (lambda: made().fit(TABLE.to_pandas(), A), "must be either a param map"),
        "a text of columns": (fitted(featuresCols="a"), '"featuresCols". Could not convert a to list of strings'),
        "commas": (fitted(featuresCols=["a,b"]), "features column 'a,b' does not exist. Columns: a, b, label"),
        "no columns": (fitted(featuresCols=[]), "featuresCols is empty: name at least one"),
        "a list for one column": (fitted(featuresCol=["a"]), '"featuresCol". Could not convert'),
        "another label": (fitted(labelCol="churned"), "label column 'churned' does not exist. Columns: a, b"),
        "words as features": (fitted(featuresCols=["a", "town"]), "features column 'town' has type string"),
        "the label as a feature": (fitted(featuresCols=["a", label]), f"featuresCols names the label, '{label}'"),
        "the label as a weight": (fitted(weightCol=label), f"weight column names the label, '{label}'"),
        "another weight": (fitted(weightCol="w"), "weight column 'w' does not exist"),
        "words as weights": (fitted(weightCol="town"), "weight column 'town' has type string"),
        "no indicator": (
            fitted(validationIndicatorCol="a"),
            "validation column 'a' has type double; it must be bool",
        ),
        "patience with nothing": (fitted(patience=3), "patience=3 stops a fit by its validation rows.* Set validat"),
        "a least gain of nothing": (fitted(minDelta=0.1), "minDelta=0.1 stops a fit by its validation rows"),
        "a column twice": (fitted(featuresCols=["a", "b", "a"]), "featuresCols names column 'a' twice. Leave one"),
        "a column in two spellings": (fitted(featuresCols=["a", "b", "A"]), "names column 'A' as 'a' too"),
        "two columns of one name": (lambda: made().fit(TWICE), "there are several columns 'a': rename or drop all"),
        "two columns of one name, in pandas": (lambda: made().fit(TWICE.to_pandas()), "several columns 'a'"),
        "nothing to evaluate": (lambda: made(maxIter=1).fit(TABLE).evaluate(None), "Got a NoneType instead"),
        "a path to evaluate": (lambda: made(maxIter=1).fit(TABLE).evaluate("nowhere.csv"), "'nowhere.csv' does not"),
        "steps below zero": (fitted(maxIter=-1), "maxIter must be a whole number >= 0. Got -1"),
        "steps as text": (fitted(maxIter="100"), '"maxIter". Could not convert 100 to int'),
        "a penalty below zero": (fitted(regParam=-0.1), "regParam must be >= 0. Got -0.1"),
        "a list of penalties": (fitted(regParam=[0.1, 1.0]), '"regParam". Could not convert .* to float'),
        "more than all of L1": (fitted(elasticNetParam=2.0), r"elasticNetParam must be in \[0, 1\]. Got 2.0"),
        "capital letters": (fitted(optimizer="Adam"), "optimizer must be one of 'auto', .* Got 'Adam'"),
        "no step": (fitted(optimizer="sgd", stepSize=0.0), "stepSize must be > 0. Got 0.0"),
        "per cent": (fitted(optimizer="sgd", miniBatchFraction=10.0), r"miniBatchFraction must be in \(0, 1\]"),
        "another engine": (fitted(engine="gpu"), "engine must be one of 'auto', .* Got 'gpu'"),
        "another policy": (fitted(handleInvalid="drop"), "one of 'error', 'skip', 'keep'. Got 'drop'"),
        "scikit-learn's name": (lambda: made(max_iter=5), rf"{name}\(\) got an unexpected keyword argument"),
        "a position": (lambda: kind("features"), "forces keyword arguments"),
        "one callback": (fitted(callbacks=print), "callbacks must be a list. Got <built-in function print> instead"),
        "a class of callbacks": (fitted(callbacks=[dict]), "callbacks has the class dict; give an instance"),
        "a path to start from": (fitted(initialModel="model"), f"initialModel must be a {model}, .* Got a str"),
        "an output that is there": (
            lambda: made(maxIter=1, predictionCol="town").fit(TABLE).transform(TABLE),
            "output column 'town' exists already. Rename it",
        ),
        "rows without a feature": (
            lambda: made(maxIter=1).fit(TABLE).transform(TABLE.select(["a"])),
            "features column 'b' does not exist. Columns: a",
        ),
        "rows of another width": (
            lambda: kind(**own, maxIter=1).fit(TABLE).transform(put("features", [[1.0]] * N)),
            "a row has 1 features; the model was trained on 2",
        ),
        "no rows to score": (lambda: made(maxIter=1).fit(TABLE).transform(None), "Got a NoneType instead"),
        "a row of another width": (
            lambda: made(maxIter=1).fit(TABLE).predict([1.0, 2.0, 3.0]),
            "a row has 3 features; the model was trained on 2",
        ),
        "a folder that is taken": (
            lambda: made(maxIter=1).fit(TABLE).save(saved()),
            r"exists already. Save elsewhere, or use write\(\).overwrite\(\)",
        ),
        "a folder that is not there": (lambda: kind.load(f"{path}-nowhere"), "does not exist: nothing was saved"),
        "a model as an estimator": (
            lambda: kind.load(saved()),
            f"holds a {model}, and no {name}. {model}.load reads it",
        ),
        "a loaded model's summary": (
            lambda: type(made(maxIter=1).fit(TABLE)).load(saved()).summary,
            "this model has no summary: it was not trained in this session",
        ),
    }


def one_of_each(**options: Any) -> Any:
    return ml.OneVsRest(**{"labelCol": "kind", "classifier": ml.LinearSVC(maxIter=1), **options})


def search(kind: Any = ml.CrossValidator, **options: Any) -> Any:
    own = ml.LogisticRegression(**AB)
    given = {"estimator": own, "estimatorParamMaps": [{own.regParam: 0.1}]}
    return kind(**{**given, "evaluator": ml.BinaryClassificationEvaluator(), **options})


def of_search(kind: Any) -> dict[str, Case]:
    """What is wrong with any search over folds."""
    return {
        "nothing set": (lambda: kind().fit(TABLE), "estimator is not set. A search needs"),
        "no evaluator": (lambda: search(kind, evaluator=None).fit(TABLE), "evaluator is not set"),
        "a metric's name": (
            lambda: search(kind, evaluator="accuracy").fit(TABLE),
            "evaluator must be an Evaluator, such",
        ),
        "no candidate": (lambda: search(kind, estimatorParamMaps=[]).fit(TABLE), "estimatorParamMaps is not set"),
        "names": (
            lambda: search(kind, estimatorParamMaps=[BAD_GRID]).fit(TABLE),
            "has the key 'regParam', which is no Par",
        ),
        "one dict": (
            lambda: search(kind, estimatorParamMaps=BAD_GRID).fit(TABLE),
            "must be a list of dicts. Got dict",
        ),
        "another's parameters": (
            lambda: search(kind, estimatorParamMaps=[{LR().regParam: 0.1}]).fit(TABLE),
            "is no part of the estimator, LogisticRegression_.*: it would change nothing",
        ),
        "a class": (lambda: search(kind, estimator=LR).fit(TABLE), "estimator must be an Estimator, such as"),
        "one fold": (lambda: search(kind, numFolds=1).fit(TABLE), "numFolds must be a whole number >= 2. Got 1"),
        "more folds than rows": (lambda: search(kind, numFolds=100).fit(TABLE), "numFolds=100: no row is in fold"),
        "two rows": (lambda: search(kind).fit(TABLE.slice(0, 2)), "no row is in fold .* take fewer folds"),
        "another fold": (lambda: search(kind, foldCol="f").fit(TABLE), "fold column 'f' does not exist"),
        "words as folds": (
            lambda: search(kind, foldCol="town").fit(TABLE),
            "fold column 'town' has type string; it must",
        ),
        "too few folds": (
            lambda: search(kind, foldCol="fold", numFolds=2).fit(TABLE),
            "is 2; it must be a whole number in",
        ),
        "too many folds": (lambda: search(kind, foldCol="fold", numFolds=4).fit(TABLE), "no row is in fold 3"),
        "no thread": (lambda: search(kind, parallelism=0).fit(TABLE), "parallelism must be a whole number >= 1"),
        "another metric": (
            lambda: search(kind, evaluator=ml.BinaryClassificationEvaluator(metricName="auc")).fit(TABLE),
            "metricName='auc' is not known",
        ),
        "areas of three classes": (
            lambda: search(
                kind,
                estimator=(three := LR(labelCol="kind", **AB)),
                estimatorParamMaps=[{three.regParam: 0.1}],
                evaluator=ml.BinaryClassificationEvaluator(labelCol="kind"),
            ).fit(TABLE),
            "the models are of 3 classes: areas under curves are of two classes.* Take Multiclass",
        ),
        "another label": (
            lambda: search(kind, evaluator=ml.BinaryClassificationEvaluator(labelCol="y")).fit(TABLE),
            "label column 'y' does not exist",
        ),
        "nothing": (lambda: search(kind).fit(None), "Got a NoneType instead"),
        "no rows": (lambda: search(kind).fit(TABLE.slice(0, 0)), "there are no rows to train on"),
        "a misspelt name": (lambda: search(kind, folds=3), "unexpected keyword argument 'folds'"),
        "nothing saved": (lambda: kind.load("/nowhere"), "does not exist: nothing was saved there"),
    }


def raw(**options: Any) -> Any:
    return ml.TableFeatures(**{"outputCol": "made", **options})


def pipeline(*stages: Any) -> Any:
    return ml.Pipeline(stages=list(stages))


pytestmark = pytest.mark.filterwarnings("ignore::sparkopt.errors.NotConvergedWarning")
LR, FIRST = ml.LogisticRegression, TABLE["features"].to_pylist()
BAD_GRID = {"regParam": 0.1}
CASES: dict[str, dict[str, Case]] = {
    "OneVsRest": {
        "no classifier": (lambda: ml.OneVsRest(labelCol="kind").fit(TABLE), "classifier is not set: .* such as"),
        "a class": (lambda: one_of_each(classifier=ml.LinearSVC).fit(TABLE), "must be an Estimator of two classes"),
        "a regression": (
            lambda: one_of_each(classifier=ml.LinearRegression()).fit(TABLE),
            "classifier must be an Estimator of two classes, such as",
        ),
        "columns": (lambda: one_of_each(featuresCols=["a"]), "unexpected keyword argument 'featuresCols'"),
        "another label": (lambda: one_of_each(labelCol="churned").fit(TABLE), "'churned' does not exist. Columns: a"),
        "words": (lambda: one_of_each(labelCol="town").fit(TABLE), "label column 'town' has type string.*Cast"),
        "amounts": (lambda: one_of_each(labelCol="amount").fit(TABLE), "label column 'amount'.*must be a whole num"),
        "signs": (lambda: one_of_each().fit(put("kind", [-1.0, 1.0] * 30)), "is -1; it must be a whole number"),
        "halves": (lambda: one_of_each().fit(put("kind", [0.5, 1.0] * 30)), "row 0 is 0.5; it must be a whole"),
        "no labels": (lambda: one_of_each().fit(put("kind", [float("nan")] * N)), "row 0 is nan; it must be"),
        "another column": (lambda: one_of_each(featuresCol="x").fit(TABLE), "'x' does not exist.*features, fold.$"),
        "a number": (lambda: one_of_each(featuresCol="a").fit(TABLE), "type double; it must be a Vector or an array"),
        "a null": (lambda: one_of_each().fit(put("features", [None, *FIRST[1:]])), "row 0 is null"),
        "two widths": (lambda: one_of_each().fit(put("features", [[1.0], *FIRST[1:]])), "row 1 has 2 entries where"),
        "another weight": (lambda: one_of_each(weightCol="w").fit(TABLE), "weight column 'w' does not exist"),
        "words as weights": (lambda: one_of_each(weightCol="town").fit(TABLE), "'town' has type string"),
        "weights below zero": (lambda: one_of_each(weightCol="a").fit(TABLE), "weight column 'a'.*must be >= 0"),
        "the label as a weight": (lambda: one_of_each(weightCol="kind").fit(TABLE), "column names the label, 'kind'"),
        "no thread": (lambda: one_of_each(parallelism=0).fit(TABLE), "parallelism must be a whole number >= 1"),
        "nothing": (lambda: one_of_each().fit(None), "Got a NoneType instead"),
        "a path": (lambda: one_of_each().fit("nowhere.csv"), "'nowhere.csv' does not exist"),
        "no rows": (lambda: one_of_each().fit(TABLE.slice(0, 0)), "there are no rows to train on"),
        "other rows": (lambda: one_of_each().fit(TABLE).transform(TABLE.select(["a"])), "'features' does not exist"),
        "a misspelt name": (lambda: ml.OneVsRest(clasifier=1), "unexpected keyword argument 'clasifier'"),
    },
    "TableFeatures": {
        "another column": (lambda: raw(inputCols=["a", "age"]).fit(TABLE), "input column 'age' does not exist. Col"),
        "a text of columns": (lambda: raw(inputCols="a"), '"inputCols". Could not convert a to list'),
        "no column": (lambda: raw(inputCols=[]).fit(TABLE), "there are no columns to make features of"),
        "a column twice": (lambda: raw(inputCols=["a", "a"]).fit(TABLE), "inputCols names column 'a' twice"),
        "the label": (lambda: raw(inputCols=["a", "label"]).fit(TABLE), "inputCols names the label, 'label'"),
        "another category": (lambda: raw(categorical=["age"]).fit(TABLE), "categorical column 'age' does not exist"),
        "a text of categories": (lambda: raw(categorical="town"), '"categorical". Could not convert town to list'),
        "another to leave out": (lambda: raw(exclude=["id"]).fit(TABLE), "excluded column 'id' does not exist"),
        "all left out": (lambda: raw(exclude=TABLE.column_names).fit(TABLE), "there are no columns to make"),
        "another filling": (lambda: raw(impute="average").fit(TABLE), "impute must be one of 'mean', 'median'"),
        "rare below zero": (lambda: raw(minCount=-1).fit(TABLE), "minCount must be a whole number >= 1"),
        "no category": (lambda: raw(maxCategories=0).fit(TABLE), "maxCategories must be a whole number >= 1"),
        "no hash": (lambda: raw(hashFeatures=0).fit(TABLE), "hashFeatures must be a whole number >= 1"),
        "half a formula": (lambda: raw(formula="label ~").fit(TABLE), "formula 'label ~': a term is missing"),
        "signs of a formula": (lambda: raw(formula="label ~ a +* b").fit(TABLE), "there is no column before"),
        "an unknown term": (lambda: raw(formula="label ~ age").fit(TABLE), "input column 'age' does not exist"),
        "the intercept": (lambda: raw(formula="label ~ a - 1").fit(TABLE), "'- 1' belongs to the estimator"),
        "a list of numbers": (lambda: raw(inputCols=["features"]).fit(TABLE), "'features' has type array<double>"),
        "a struct": (
            lambda: raw(inputCols=["s"]).fit(TABLE.append_column("s", pa.array([{"x": 1}] * N))),
            "'s' has type struct<x:bigint>; it must be text",
        ),
        "an output that is there": (
            lambda: raw(inputCols=["a"], outputCol="b").fit(TABLE).transform(TABLE),
            "output column 'b' exists already. Rename it, or set another outputCol",
        ),
        "no rows": (lambda: raw(inputCols=["a"]).fit(TABLE.slice(0, 0)), "there are no rows to take features from"),
        "nothing": (lambda: raw().fit(None), "Got a NoneType instead"),
        "a column less": (
            lambda: raw(inputCols=["a", "b"]).fit(TABLE).transform(TABLE.select(["a"])),
            "input column 'b' does not exist",
        ),
        "words for numbers": (
            lambda: raw(inputCols=["a"]).fit(TABLE).transform(put("a", ["x"] * N)),
            "column 'a', row 0 is 'x', which is no number",
        ),
        "a misspelt name": (lambda: ml.TableFeatures(categories=["a"]), "unexpected keyword argument 'categories'"),
        "nothing saved": (lambda: ml.TableFeatures.load("/nowhere"), "does not exist: nothing was saved there"),
    },
    "TrainValidationSplit": {
        "all of the rows": (
            lambda: search(ml.TrainValidationSplit, trainRatio=1.0).fit(TABLE),
            r"in \(0, 1\). Got 1",
        ),
        "per cent": (lambda: search(ml.TrainValidationSplit, trainRatio=80.0).fit(TABLE), r"in \(0, 1\). Got 80.0"),
        "nothing set": (lambda: ml.TrainValidationSplit().fit(TABLE), "estimator is not set"),
        "a misspelt name": (lambda: search(ml.TrainValidationSplit, ratio=0.5), "keyword argument 'ratio'"),
    },
    "Pipeline": {
        "no stages": (lambda: ml.Pipeline().fit(TABLE), "stages is not set: a Pipeline needs a list"),
        "one stage": (lambda: ml.Pipeline(stages=LR()).fit(TABLE), "stages must be a list. Got LogisticRegression_"),
        "a class": (lambda: pipeline(LR).fit(TABLE), "stages has the class LogisticRegression; give an instance"),
        "a number": (lambda: pipeline(3).fit(TABLE), "stages has 3, which is neither an Estimator nor a Transform"),
        "nothing": (lambda: pipeline(LR()).fit(None), "Got a NoneType instead"),
        "a path": (lambda: pipeline(LR()).fit("nowhere.csv"), "'nowhere.csv' does not exist"),
        "another order": (
            lambda: pipeline(LR(featuresCol="made"), raw()).fit(TABLE),
            "features column 'made' does not exist",
        ),
        "another name": (lambda: pipeline(raw(), LR(featuresCol="f")).fit(TABLE), "column 'f' does not exist"),
        "the label's features": (
            lambda: pipeline(raw(), ml.LinearRegression(featuresCol="made", labelCol="amount")).fit(TABLE),
            r"labelCol='amount', of which TableFeatures would make features. Give TableFeatures\(labelCol='amount'\)",
        ),
        "nothing saved": (lambda: ml.PipelineModel.load("/nowhere"), "does not exist: nothing was saved there"),
    },
    "ImageTransformer": {
        "another column": (lambda: ml.ImageTransformer(inputCol="png").transform(TABLE), "there is no column 'png'"),
        "numbers": (lambda: ml.ImageTransformer(inputCol="a").transform(TABLE), "must hold encoded images"),
        "a list": (lambda: ml.ImageTransformer(pipeline=[images.Decode()]), "must be an images.Compose"),
        "a name": (lambda: ml.ImageTransformer(pipeline="decode"), "must be an images.Compose"),
    },
    "what is of one estimator": {
        "another family": (
            lambda: ml.GeneralizedLinearRegression(family="negbin", **AB).fit(TABLE),
            "family must be one of 'gaussian'",
        ),
        "another link": (
            lambda: ml.GeneralizedLinearRegression(family="poisson", link="logit", labelCol="count", **AB).fit(TABLE),
            "link='logit' does not work with family='poisson'. Use one of log",
        ),
        "no offset": (
            lambda: ml.GeneralizedLinearRegression(offsetCol="o", **AB).fit(TABLE),
            "offset column 'o' does not exist",
        ),
        "per cent": (lambda: ml.QuantileRegression(quantile=50.0, **AB).fit(TABLE), r"quantile must be in \(0, 1\)"),
        "two quantiles": (lambda: ml.QuantileRegression(quantile=[0.1, 0.9], **AB), '"quantile". Could not convert'),
        "another loss": (lambda: ml.LinearRegression(loss="mse", **AB).fit(TABLE), "loss must be one of 'squaredErr"),
        "no margin": (lambda: ml.LinearRegression(loss="huber", epsilon=0.5, **AB).fit(TABLE), "epsilon must be > 1"),
        "another softmax": (
            lambda: LR(family="softmax", **AB).fit(TABLE),
            "family must be one of 'auto', 'binomial'",
        ),
        "a threshold": (lambda: LR(threshold=50.0, **AB).fit(TABLE), r"threshold must be in \[0, 1\]. Got 50.0"),
        "automatic weights": (lambda: LR(classWeights="auto", **AB).fit(TABLE), "classWeights must be 'balanced'"),
        "three classes": (
            lambda: ml.LinearSVC(labelCol="kind", **AB).fit(TABLE),
            "For more than two classes use One",
        ),
    },
}
SCORED = TABLE.append_column("prediction", TABLE["kind"]).append_column("rawPrediction", TABLE["a"])
for evaluator in (ml.BinaryClassificationEvaluator, ml.MulticlassClassificationEvaluator, ml.RegressionEvaluator):
    judged = "rawPrediction" if evaluator is ml.BinaryClassificationEvaluator else "prediction"
    CASES[evaluator.__name__] = {
        "nothing": (lambda kind=evaluator: kind().evaluate(None), "Got a NoneType instead"),
        "a number": (lambda kind=evaluator: kind().evaluate(3), "a table is made of a path, .* Got a int instead"),
        "a dict": (lambda kind=evaluator: kind().evaluate({"label": [1.0]}), "Got a dict instead"),
        "an array": (lambda kind=evaluator: kind().evaluate(A), "Got a ndarray instead"),
        "the model": (lambda kind=evaluator: kind().evaluate(LR()), "Got a LogisticRegression instead"),
        "a path": (lambda kind=evaluator: kind().evaluate("nowhere.csv"), "'nowhere.csv' does not exist"),
        "no rows": (lambda kind=evaluator: kind().evaluate(SCORED.slice(0, 0)), "there are no rows to evaluate"),
        "rows that are not scored": (
            lambda kind=evaluator: kind().evaluate(TABLE),
            f"evaluated column '{judged}' does not exist. Columns: a, b",
        ),
        "another label": (
            lambda kind=evaluator: kind(labelCol="churned").evaluate(SCORED),
            "label column 'churned' does not exist",
        ),
        "words": (
            lambda kind=evaluator: kind(labelCol="town").evaluate(SCORED),
            "label column 'town' has type string",
        ),
        "words as weights": (
            lambda kind=evaluator: kind(weightCol="town").evaluate(SCORED),
            "'town' has type string",
        ),
        "another metric": (lambda kind=evaluator: kind(metricName="auc").evaluate(SCORED), "metricName='auc' is not"),
        "another parameter": (lambda kind=evaluator: kind(metric="auc"), "unexpected keyword argument 'metric'"),
    }
CASES["BinaryClassificationEvaluator"]["three classes"] = (
    lambda: ml.BinaryClassificationEvaluator(labelCol="kind").evaluate(SCORED),
    "label 2: areas under curves are of two classes, 0 and 1. Take MulticlassClassificationEvaluator for more",
)
for kind_name, (of_kind, given_to_it) in LINEAR.items():
    wrong = linear(of_kind, given_to_it, f"/tmp/sparkopt-hurried-{kind_name}")
    CASES[kind_name] = {name: case for name, case in wrong.items() if name not in OTHERWISE.get(kind_name, ())}
CASES |= {kind.__name__: of_search(kind) for kind in (ml.CrossValidator, ml.RandomizedSearch)}
ROWS = [(kind, name) for kind, cases in CASES.items() for name in cases]


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[": ".join(row) for row in ROWS])
def test_a_mistake_is_one_line(kind, name, tmp_path):
    cases = linear(*LINEAR[kind], str(tmp_path / "model")) if kind in LINEAR else CASES[kind]
    call, message = cases[name]
    with pytest.raises(Exception, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_each_estimator_has_twenty():
    """A split has what a cross-validation has, an image stage what its command has."""
    few = {"TrainValidationSplit", "Pipeline", "ImageNormalizer", "LinearEstimator"}
    known = {name for name in ml.__all__ if isinstance(getattr(ml, name), type)}
    estimators = {name for name in known if issubclass(getattr(ml, name), Estimator)}
    assert {name for name in estimators if len(CASES.get(name, ())) < 20} == few
