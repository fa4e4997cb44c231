"""Models on tables without Spark: every model × every kind of rows × all that is done with them, by scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.ml.evaluation import Evaluator
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import ParamGridBuilder
from scipy import special, stats
from sklearn import metrics as sk

from sparkopt import ml
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.machine import Table
from tests.ml import tables
from tests.ml.tables import COLUMNS, ESTIMATORS, INPUTS, NAMES, ROWS, SPARSE, N, X, arrow, column, evaluator_of

every_model = pytest.mark.parametrize("name", ESTIMATORS)
every_input = pytest.mark.parametrize("given", INPUTS)


@pytest.fixture(scope="module")
def fitted():
    return {name: estimator.fit(ROWS) for name, estimator in ESTIMATORS.items()}


NONLINEAR_CLASSES = ("factorization of classes", "perceptron")


def raw_of(model):
    """Raw predictions of all rows by NumPy."""
    matrix, intercept = model.arrays
    raw = X @ matrix.T + intercept
    if isinstance(model, (ml.FMRegressionModel, ml.FMClassificationModel)):
        pairs = np.triu(matrix[1:].T @ matrix[1:], 1)
        return (model.intercept + raw[:, 0] + np.einsum("ni,ij,nj->n", X, pairs, X))[:, None]
    if hasattr(model, "layerWeights"):
        for weights, bias in model.layerWeights[1:]:
            raw = special.expit(raw) @ weights + bias
        return raw
    return raw + COLUMNS["offset"][:, None] if model._columns().offset else raw


def expected(name, model):
    """Output columns by the formulas of the models."""
    raw = raw_of(model)
    if name == "classes":
        probability = special.softmax(raw, axis=1)
        return {
            "rawPrediction": raw,
            "probability": probability,
            "prediction": (probability / model.getThresholds()).argmax(axis=1),
        }
    if name == "perceptron":
        shares = special.softmax(raw, axis=1)
        return {"rawPrediction": raw, "probability": shares, "prediction": raw.argmax(axis=1).astype(float)}
    margin = raw[:, 0]
    if name in ("logistic", "factorization of classes"):
        shares = special.expit(np.stack([-margin, margin], axis=1))
        outputs = {"rawPrediction": np.stack([-margin, margin], axis=1), "probability": shares}
        return {**outputs, "prediction": (shares[:, 1] > 0.4).astype(float)}
    if name == "support vectors":
        return {"rawPrediction": np.stack([-margin, margin], axis=1), "prediction": (margin > 0).astype(float)}
    if name == "poisson":
        return {"link": margin, "prediction": np.exp(margin)}
    if name == "ordinal":
        below = special.expit(model.cutPoints.toArray() - (margin - model.intercept)[:, None])
        probability = np.diff(np.column_stack([np.zeros(N), below, np.ones(N)]), axis=1)
        return {"probability": probability, "prediction": probability.argmax(axis=1).astype(float)}
    if name == "survival":
        shares = -np.log(1 - np.array(model.getQuantileProbabilities()))
        return {"quantiles": np.exp(margin)[:, None] * shares**model.scale, "prediction": np.exp(margin)}
    return {"prediction": np.exp(margin) if name in ("tweedie", "negative binomial") else margin}


@every_model
def test_transform_adds_the_outputs_to_rows_of_every_kind(name, fitted, tmp_path):
    model, bits = fitted[name], {}
    for given, make in INPUTS.items():
        data = make(tmp_path)
        scored = model.transform(data)
        kind = Table if given == "Parquet" else type(data)
        assert isinstance(scored, kind), given
        rows = arrow(scored)
        outputs = expected(name, model)
        assert rows.column_names == [*ROWS.column_names, *outputs], given
        assert rows["label"].equals(ROWS["label"])
        for output, values in outputs.items():
            found = column(rows, output)
            np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-14, err_msg=f"{given}, {output}")
            np.testing.assert_array_equal(found, bits.setdefault(output, found), err_msg=f"{given}, {output}")


def test_pandas_keeps_its_index_and_what_it_does_not_score(fitted):
    frame = INPUTS["pandas"](None)
    frame["odd"] = [object()] * N
    scored = fitted["logistic"].transform(frame)
    assert scored.index.equals(frame.index)
    pd.testing.assert_frame_equal(scored[list(frame.columns)], frame)
    dense, mixed = (
        [make(row) for row in X] for make in (Vectors.dense, lambda row: Vectors.sparse(4, enumerate(row)))
    )
    for features in (dense, mixed, X.tolist()):
        found = fitted["logistic"].transform(frame.assign(features=features))
        np.testing.assert_array_equal(found["prediction"], scored["prediction"])


@pytest.mark.parametrize("features", [X, SPARSE], ids=["NumPy", "SciPy"])
def test_features_alone_give_the_outputs_alone(fitted, features):
    for name in ("logistic", "lasso of columns", "classes"):
        found, outputs = fitted[name].transform(features), expected(name, fitted[name])
        assert found.column_names == list(outputs)
        for output, values in outputs.items():
            np.testing.assert_allclose(column(found, output), values, rtol=1e-12, atol=1e-14)


def test_a_stream_is_scored_as_it_is_read(fitted):
    read = []

    def batches():
        for number, batch in enumerate(ROWS.to_batches(max_chunksize=100)):
            read.append(number)
            yield batch

    scored = fitted["logistic"].transform(pa.RecordBatchReader.from_batches(ROWS.schema, batches()))
    assert not read
    first = next(iter(scored))
    assert read == [0]
    assert first.num_rows == 100
    whole = pa.Table.from_batches([first, *scored])
    assert whole.equals(fitted["logistic"].transform(ROWS))
    summary = fitted["logistic"].evaluate(pa.RecordBatchReader.from_batches(ROWS.schema, batches()))
    assert summary.accuracy == fitted["logistic"].summary.accuracy
    assert summary.predictions.to_arrow().equals(whole)


def test_a_table_computes_what_is_asked_for_alone(fitted):
    rows = Table.of(ROWS.append_column("wrong", pa.array([[1.0]] * N)))
    (part,) = fitted["logistic"].transform(rows).partitions
    assert [batch.schema.names for batch in part.batches(["prediction", "label"])] == [["prediction", "label"]]
    wrong = fitted["logistic"].copy().setFeaturesCol("wrong").transform(rows)
    assert sum(batch.num_rows for batch in wrong.partitions[0].batches(["label"])) == N
    with pytest.raises(DataError, match="a row has 1 features"):
        list(wrong.partitions[0].batches())


@pytest.mark.parametrize("processes", ["0", "2"])
def test_files_are_scored_and_written_a_partition_at_a_time(fitted, tmp_path, monkeypatch, processes):
    monkeypatch.setenv("SPARKOPT_PROCESSES", processes)
    for part in range(3):
        pq.write_table(ROWS.slice(part * 200, 200), tmp_path / f"{part}.parquet")
    (tmp_path / "scored").mkdir()
    files = [str(tmp_path / f"{part}.parquet") for part in range(3)]
    scored = fitted["logistic"].transform(files)
    with pytest.raises(ParameterError, match="exists already"):
        scored.write_parquet(tmp_path / "scored")
    assert scored.write_parquet(tmp_path / "scored", overwrite=True) == N
    assert len(list((tmp_path / "scored").iterdir())) == len(scored.partitions)
    written = pq.read_table(tmp_path / "scored").sort_by("offset")
    assert written.equals(fitted["logistic"].transform(ROWS).sort_by("offset"))
    assert Table.of(str(tmp_path / "scored")).rows == N
    found = fitted["logistic"].evaluate(files).areaUnderROC
    assert found == pytest.approx(fitted["logistic"].evaluate(ROWS).areaUnderROC, rel=1e-12)
    wrong = fitted["logistic"].transform(files).write_parquet
    broken = ROWS.set_column(0, "features", pa.array([[1.0]] * N))
    pq.write_table(broken, files[1])
    with pytest.raises(DataError, match="a row has 1 features|changed"):
        wrong(tmp_path / "half")
    assert not (tmp_path / "half").exists()
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


WRONG = {
    "missing": (ROWS.drop_columns("features"), SchemaError, "features column 'features' does not exist. Columns: "),
    "text": (ROWS.set_column(0, "features", ROWS["name"]), SchemaError, "has type string; it must be a Vector or an"),
    "there already": (
        ROWS.append_column("prediction", ROWS["label"]),
        SchemaError,
        "output column 'prediction' exists already",
    ),
    "width": (
        ROWS.set_column(0, "features", pa.array([[1.0, 2.0]] * N)),
        DataError,
        "features column 'features', rows 0 to 599, from row 0: a row has 2 features; the model was trained on 4",
    ),
    "null": (ROWS.set_column(0, "features", pa.array([[1.0] * 4, None] * (N // 2))), DataError, "row 1 is null"),
    "null entry": (
        ROWS.set_column(0, "features", pa.array([[1.0] * 4, [1.0, None, 0.0, 0.0]] * (N // 2))),
        DataError,
        "features column 'features', rows 0 to 599, row 1 is null at feature 1. Set handleInvalid='keep'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", WRONG)
@pytest.mark.parametrize("given", ["Arrow", "pandas", "table"])
def test_rows_that_cannot_be_scored_are_refused_in_one_line(fitted, problem, given):
    rows, kind, message = WRONG[problem]
    if given == "pandas" and problem == "text":
        kind, message = DataError, "features column 'features', row 0 is no list of numbers"
    if given == "pandas" and problem == "null entry":  # which is NaN there
        message = "row 1 is nan at feature 1"
    data = {"Arrow": rows, "pandas": rows.to_pandas(), "table": Table.of(rows)}[given]
    with pytest.raises(kind, match=message) as error:
        arrow(fitted["logistic"].transform(data))
    assert len(str(error.value).splitlines()) == 1


def test_missing_offsets_and_columns_are_named(fitted):
    with pytest.raises(SchemaError, match="offset column 'offset' does not exist"):
        fitted["poisson"].transform(ROWS.drop_columns("offset"))
    with pytest.raises(SchemaError, match="features column 'x2' does not exist"):
        fitted["lasso of columns"].transform(ROWS.drop_columns("x2"))
    with pytest.raises(SchemaError, match="features column 'x2' does not exist"):
        fitted["lasso of columns"].transform(ROWS.drop_columns("x2").to_pandas())


def test_offsets_that_are_null_predict_nothing(fitted):
    rows = ROWS.set_column(ROWS.column_names.index("offset"), "offset", pa.array([None] + [0.0] * (N - 1)))
    with pytest.raises(DataError, match="offset column 'offset', rows 0 to 599, row 0 is null. Set handleInvalid"):
        fitted["poisson"].transform(rows)
    found = fitted["poisson"].copy().setHandleInvalid("keep").transform(rows)["prediction"]
    assert found.is_valid().to_pylist() == [False] + [True] * (N - 1)


def by_scikit_learn(name, model):
    """Metrics of a model's predictions, by name in the summary."""
    weight, outputs = COLUMNS["weight"], expected(name, model)
    y, predicted = COLUMNS[model.getLabelCol()], outputs["prediction"]
    if name in ("logistic", "classes", "support vectors", "ordinal", *NONLINEAR_CLASSES):
        found = {
            "accuracy": sk.accuracy_score(y, predicted, sample_weight=weight),
            "weightedRecall": sk.recall_score(y, predicted, average="weighted", sample_weight=weight),
            "precisionByLabel": sk.precision_score(y, predicted, average=None, sample_weight=weight),
        }
        if name not in ("classes", "ordinal", "perceptron"):
            found["areaUnderROC"] = sk.roc_auc_score(y, outputs["rawPrediction"][:, 1], sample_weight=weight)
        return found
    if name in ("poisson", "tweedie"):
        power = 1 if name == "poisson" else 1.5
        deviance = sk.mean_tweedie_deviance(y, predicted, sample_weight=weight, power=power) * weight.sum()
        return {"deviance": deviance, "numInstances": N}
    if name == "survival":
        ended, shape = COLUMNS["ended"], {"c": 1 / model.scale, "scale": predicted}
        likelihood = np.where(ended, stats.weibull_min.logpdf(y, **shape), stats.weibull_min.logsf(y, **shape))
        return {"logLikelihood": weight @ likelihood, "numInstances": N, "numEvents": ended.sum()}
    return {
        "meanSquaredError": sk.mean_squared_error(y, predicted, sample_weight=weight),
        "meanAbsoluteError": sk.mean_absolute_error(y, predicted, sample_weight=weight),
        "r2": sk.r2_score(y, predicted, sample_weight=weight),
    }


@every_model
def test_evaluate_and_summary_are_scikit_learns(name, fitted, tmp_path):
    model = fitted[name]
    wanted = by_scikit_learn(name, model)
    assert model.hasSummary
    for summary in (model.summary, *(model.evaluate(make(tmp_path)) for make in INPUTS.values())):
        for metric, value in wanted.items():
            np.testing.assert_allclose(getattr(summary, metric), value, rtol=1e-9, err_msg=metric)
    assert model.summary.totalIterations > 0
    scored = model.transform(ROWS)
    assert model.evaluate(ROWS).predictions.select(scored.column_names).equals(scored)


def test_curves_and_residuals_come_as_the_rows_do(fitted):
    model, frame = fitted["logistic"], ROWS.to_pandas()
    scores = expected("logistic", model)["probability"][:, 1]
    rates = sk.roc_curve(COLUMNS["label"], scores, sample_weight=COLUMNS["weight"], drop_intermediate=False)
    for rows, kind in ((ROWS, pa.Table), (frame, pd.DataFrame)):
        curve = model.evaluate(rows).roc
        assert isinstance(curve, kind)
        np.testing.assert_allclose(np.unique(curve["TPR"]), np.unique(rates[1]), rtol=1e-9)
    found = fitted["least squares"].evaluate(ROWS).residuals
    np.testing.assert_allclose(
        column(found, "residuals"), COLUMNS["amount"] - raw_of(fitted["least squares"])[:, 0], rtol=1e-9, atol=1e-12
    )
    pearson = fitted["poisson"].evaluate(frame).residuals("pearson")["pearsonResiduals"]
    mean = expected("poisson", fitted["poisson"])["prediction"]
    np.testing.assert_allclose(pearson, (COLUMNS["count"] - mean) * np.sqrt(COLUMNS["weight"] / mean), rtol=1e-9)


@pytest.mark.parametrize(
    "index", [list("abcdef"), [7, 7, 3, 3, 1, 0], pd.MultiIndex.from_product([[1, 2], [*"xyz"]])]
)
@pytest.mark.parametrize("kind", ["error", "skip"])
def test_residuals_of_pandas_stand_under_the_index_of_their_rows(index, kind):
    frame = pd.DataFrame({"x": [0.0, 1, 2, 3, 4, 5], "label": [1.0, 3, 4, 7, 9, 12]}, index=index)
    if kind == "skip":
        frame.iloc[2, 0] = np.nan
    model = ml.LinearRegression(featuresCols=["x"], labelCol="label", handleInvalid=kind).fit(frame)
    good = frame[frame["x"].notna()]
    line = np.polynomial.Polynomial.fit(good["x"], good["label"], 1)
    found = model.evaluate(frame).residuals
    assert list(found.index) == list(good.index)
    np.testing.assert_allclose(found["residuals"], good["label"] - line(good["x"]), atol=1e-4)


def test_standard_errors_are_those_of_the_information_matrix(fitted):
    design = np.column_stack([X, np.ones(N)])
    model, weight = fitted["least squares"], COLUMNS["weight"]
    residual = COLUMNS["amount"] - raw_of(model)[:, 0]
    variance = weight @ residual**2 / (N - 5)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * weight[:, None]))) * variance)
    np.testing.assert_allclose(model.summary.coefficientStandardErrors, errors, rtol=1e-8)
    model = fitted["poisson"]
    mean = expected("poisson", model)["prediction"]
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (weight * mean)[:, None]))))
    np.testing.assert_allclose(model.summary.coefficientStandardErrors, errors, rtol=1e-8)
    assert "AIC" in str(model.summary)


def test_the_null_model_has_the_intercept_that_fits_best_alone(fitted):
    rows = ROWS.set_column(0, "features", pa.array([[0.0] * 0] * N, pa.list_(pa.float64())))
    alone = ESTIMATORS["poisson"].copy({ESTIMATORS["poisson"].tol: 1e-12}).fit(rows)
    found = fitted["poisson"].summary.nullDeviance
    assert found == pytest.approx(alone.summary.deviance, rel=1e-9)


def test_nothing_to_evaluate_is_refused(fitted):
    with pytest.raises(DataError, match="there are no rows to evaluate: the table is empty"):
        _ = fitted["logistic"].evaluate(ROWS.slice(0, 0)).accuracy
    nulls = ROWS.set_column(1, "label", pa.array([None] + [1.0] * (N - 1)))
    with pytest.raises(DataError, match="label is null in 1 rows"):
        _ = fitted["logistic"].evaluate(nulls).accuracy


@every_model
def test_models_survive_the_disk(name, fitted, tmp_path):
    model = fitted[name]
    model.save(str(tmp_path / "model"))
    loaded = type(model).load(str(tmp_path / "model"))
    assert loaded.uid == model.uid
    assert not loaded.hasSummary
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in model.extractParamMap().items()
    }
    assert arrow(loaded.transform(ROWS)).equals(arrow(model.transform(ROWS)))
    ESTIMATORS[name].save(str(tmp_path / "estimator"))
    again = type(ESTIMATORS[name]).load(str(tmp_path / "estimator")).fit(ROWS)
    assert all(np.array_equal(one, two) for one, two in zip(again.arrays, model.arrays, strict=True))


def grid_of(estimator):
    return ParamGridBuilder().addGrid(estimator.regParam, [0.01, 0.5]).build()


def metric_by_hand(name, model, rows):
    """The evaluator's metric by scikit-learn."""
    y, weight = column(rows, model.getLabelCol()), column(rows, "weight")
    scored = model.transform(rows)
    if name in ("logistic", "support vectors", "factorization of classes"):
        return sk.roc_auc_score(y, column(scored, "rawPrediction")[:, 1], sample_weight=weight)
    if name in ("classes", "ordinal", "perceptron"):
        return sk.accuracy_score(y, column(scored, "prediction"), sample_weight=weight)
    return np.sqrt(sk.mean_squared_error(y, column(scored, "prediction"), sample_weight=weight))


@every_model
def test_cross_validation_is_that_of_fits_by_hand(name, tmp_path):
    estimator = ESTIMATORS[name]
    search = ml.CrossValidator(
        estimator=estimator,
        estimatorParamMaps=grid_of(estimator),
        evaluator=evaluator_of(name),
        foldCol="fold",
        collectSubModels=True,
    )
    found = search.fit(ROWS)
    folds, by_hand = COLUMNS["fold"], np.empty((3, 2))
    near = 1e-2 if name in ("quantile", "support vectors") else 1e-3  # losses that are smoothed
    for fold in range(3):
        seen, held_out = (ROWS.filter(pa.array(choice)) for choice in (folds != fold, folds == fold))
        for candidate, values in enumerate(grid_of(estimator)):
            model = estimator.fit(seen, values)
            by_hand[fold, candidate] = metric_by_hand(name, model, held_out)
            np.testing.assert_allclose(found.subModels[fold][candidate].arrays[0], model.arrays[0], near, near / 2)
    np.testing.assert_allclose(found.avgMetrics, by_hand.mean(axis=0), rtol=near / 10)
    np.testing.assert_allclose(found.stdMetrics, by_hand.std(axis=0), rtol=2e-2, atol=1e-6)
    for given in ("pandas", "Parquet"):
        again = search.fit(INPUTS[given](tmp_path))
        np.testing.assert_allclose(again.avgMetrics, found.avgMetrics, rtol=1e-9)
    found.save(str(tmp_path / "found"))
    loaded = ml.CrossValidatorModel.load(str(tmp_path / "found"))
    assert (loaded.avgMetrics, len(loaded.subModels), len(loaded.subModels[0])) == (found.avgMetrics, 3, 2)
    assert arrow(loaded.transform(ROWS)).equals(arrow(found.transform(ROWS)))
    search.save(str(tmp_path / "search"))
    assert ml.CrossValidator.load(str(tmp_path / "search")).fit(ROWS).avgMetrics == found.avgMetrics


def searches(**options):
    estimator = ESTIMATORS["logistic"]
    return dict(
        estimator=estimator, estimatorParamMaps=grid_of(estimator), evaluator=evaluator_of("logistic"), **options
    )


def test_folds_are_drawn_by_seed_and_row():
    found = [
        ml.CrossValidator(**searches(seed=seed)).fit(rows).avgMetrics for seed in (1, 2) for rows in (ROWS, ROWS)
    ]
    assert found[0] == found[1] != found[2] == found[3]
    sizes = np.bincount(drawn_folds(ROWS), minlength=3)
    assert sizes.sum() == N
    assert sizes.min() > N / 3 - 50
    chunked = INPUTS["chunks"](None)
    assert np.array_equal(drawn_folds(chunked), drawn_folds(ROWS))


def drawn_folds(rows):
    folded, name = ml.CrossValidator(seed=3)._folded(Table.of(rows))
    return column(folded, name)


def test_a_split_trains_on_one_part_and_measures_the_other(tmp_path):
    found = ml.TrainValidationSplit(**searches(seed=4, trainRatio=0.7, collectSubModels=True)).fit(ROWS)
    folded, name = ml.TrainValidationSplit(seed=4, trainRatio=0.7)._folded(Table.of(ROWS))
    aside = np.array([fold == 0 for fold in arrow(folded)[name].to_pylist()])
    assert 0.2 < aside.mean() < 0.4
    estimator = ESTIMATORS["logistic"]
    for candidate, values in enumerate(grid_of(estimator)):
        model = estimator.fit(ROWS.filter(pa.array(~aside)), values)
        by_hand = metric_by_hand("logistic", model, ROWS.filter(pa.array(aside)))
        assert found.validationMetrics[candidate] == pytest.approx(by_hand, rel=1e-4)
    assert found.bestModel.summary.receipt.rows == N
    found.save(str(tmp_path / "found"))
    loaded = ml.TrainValidationSplitModel.load(str(tmp_path / "found"))
    assert (loaded.validationMetrics, len(loaded.subModels)) == (found.validationMetrics, 2)
    assert loaded.copy().validationMetrics == found.validationMetrics


class Own(Evaluator):
    """Somebody's own evaluator, which is given rows as the search is."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def _evaluate(self, dataset):
        assert isinstance(dataset, self.kind)
        return float(np.mean(np.asarray(dataset["prediction"]) == np.asarray(dataset["label"])))


def test_other_evaluators_are_given_scored_rows():
    for rows, kind in ((ROWS, pa.Table), (ROWS.to_pandas(), pd.DataFrame)):
        options = {**searches(foldCol="fold"), "evaluator": Own(kind)}
        wanted = ml.MulticlassClassificationEvaluator(metricName="accuracy")
        same = ml.CrossValidator(**{**options, "evaluator": wanted}).fit(rows)
        assert ml.CrossValidator(**options).fit(rows).avgMetrics == pytest.approx(same.avgMetrics, rel=1e-12)


def test_folds_that_are_trained_apart_have_the_same_metrics(caplog):
    """Weights that balance all rows balance these folds' rows too."""
    estimator = ml.LogisticRegression(classWeights="balanced", featuresCol="features")
    label = pa.array(np.arange(N) % 2 * 1.0)
    rows = ROWS.set_column(1, "label", label).set_column(
        ROWS.column_names.index("fold"), "fold", pa.array(np.arange(N) // 2 % 3)
    )
    options = {**searches(foldCol="fold"), "estimatorParamMaps": grid_of(estimator)}
    apart = ml.CrossValidator(**{**options, "estimator": estimator}).fit(rows)
    assert "the folds are trained one after the other: classWeights='balanced'" in caplog.text
    plain = ml.LogisticRegression()
    together = ml.CrossValidator(**{**options, "estimator": plain, "estimatorParamMaps": grid_of(plain)}).fit(rows)
    np.testing.assert_allclose(apart.avgMetrics, together.avgMetrics, rtol=1e-3)


SEARCHES = {
    "no such column": ({"foldCol": "f"}, SchemaError, "fold column 'f' does not exist"),
    "one fold": ({"numFolds": 1}, ParameterError, "numFolds must be a whole number"),
    "no evaluator": ({"evaluator": None}, ParameterError, "evaluator is not set"),
    "too many": ({"foldCol": "fold", "numFolds": 2}, DataError, r"partition 0 \(rows 0 to 599\), row 11 is 2"),
    "an empty one": ({"foldCol": "fold", "numFolds": 4}, DataError, "no row is in fold 3"),
}


@pytest.mark.parametrize("problem", SEARCHES)
def test_searches_that_cannot_work_are_refused(problem):
    options, kind, message = SEARCHES[problem]
    values = {name: value for name, value in {**searches(), **options}.items() if value is not None}
    with pytest.raises(kind, match=message):
        ml.CrossValidator(**values).fit(ROWS)


def test_rows_without_a_fold_are_refused():
    rows = ROWS.set_column(ROWS.column_names.index("fold"), "fold", pa.array([0, None] * (N // 2)))
    with pytest.raises(DataError, match="fold column 'fold', rows 0 to 599, row 1 is null"):
        ml.CrossValidator(**searches(foldCol="fold", numFolds=2)).fit(rows)


CLASSIFIERS = {"logistic": ml.LogisticRegression(regParam=0.01), "svc": ml.LinearSVC(regParam=0.01)}


@pytest.mark.parametrize("classifier", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_one_model_for_each_class(classifier, tmp_path):
    estimator = ml.OneVsRest(classifier=classifier, labelCol="kind", weightCol="weight")
    model = estimator.fit(ROWS)
    margins = []
    for kind in range(3):
        alone = ROWS.set_column(1, "label", pa.array((COLUMNS["kind"] == kind) * 1.0))
        margins.append(
            column(classifier.copy({classifier.weightCol: "weight"}).fit(alone).transform(alone), "rawPrediction")
        )
    raw = np.stack(margins)[:, :, 1].T
    scored = model.transform(ROWS)
    np.testing.assert_allclose(column(scored, "rawPrediction"), raw, rtol=1e-9)
    assert np.array_equal(column(scored, "prediction"), raw.argmax(axis=1))
    for kind, one in ((ml.OneVsRestModel, model), (ml.OneVsRest, estimator)):
        one.save(str(tmp_path / kind.__name__))
    loaded = ml.OneVsRestModel.load(str(tmp_path / "OneVsRestModel"))
    assert loaded.transform(ROWS).equals(scored)
    assert ml.OneVsRest.load(str(tmp_path / "OneVsRest")).fit(ROWS).transform(ROWS).equals(scored)
    with pytest.raises(DataError, match="label column 'amount', rows 0 to 599, row 0 is"):
        estimator.copy({estimator.labelCol: "amount"}).fit(ROWS)


def test_pipelines_fit_score_and_survive_the_disk(tmp_path):
    first = ESTIMATORS["least squares"].copy().setPredictionCol("estimate")
    second = ml.LogisticRegression(featuresCols=[*NAMES, "estimate"], regParam=0.1)
    pipeline = ml.Pipeline(stages=[first, second])
    model = pipeline.fit(ROWS)
    by_hand = second.fit(first.fit(ROWS).transform(ROWS))
    assert model.stages[1].coefficients == by_hand.coefficients
    search = ml.CrossValidator(
        estimator=ml.Pipeline(stages=[model.stages[0], second]),
        estimatorParamMaps=grid_of(second),
        evaluator=evaluator_of("logistic"),
        foldCol="fold",
    ).fit(ROWS)
    assert isinstance(search.bestModel, ml.PipelineModel)
    for one, kind in ((pipeline, ml.Pipeline), (model, ml.PipelineModel), (search, ml.CrossValidatorModel)):
        one.write().overwrite().save(str(tmp_path / "stage"))
        loaded = kind.load(str(tmp_path / "stage"))
        again = loaded.fit(ROWS) if kind is ml.Pipeline else loaded
        expected = (model if kind is ml.Pipeline else one).transform(ROWS)
        assert again.transform(ROWS).equals(expected)


METRICS = {
    "areaUnderROC": lambda y, w, p: sk.roc_auc_score(y, p["rawPrediction"][:, 1], sample_weight=w),
    "accuracy": lambda y, w, p: sk.accuracy_score(y, p["prediction"], sample_weight=w),
    "f1": lambda y, w, p: sk.f1_score(y, p["prediction"], average="weighted", sample_weight=w),
    "hammingLoss": lambda y, w, p: sk.zero_one_loss(y, p["prediction"], sample_weight=w),
    "weightedPrecision": lambda y, w, p: sk.precision_score(y, p["prediction"], average="weighted", sample_weight=w),
    "recallByLabel": lambda y, w, p: sk.recall_score(y, p["prediction"], pos_label=1, sample_weight=w),
    "logLoss": lambda y, w, p: sk.log_loss(y, p["probability"], sample_weight=w),
    "rmse": lambda y, w, p: sk.root_mean_squared_error(y, p["prediction"], sample_weight=w),
    "mae": lambda y, w, p: sk.mean_absolute_error(y, p["prediction"], sample_weight=w),
}


@pytest.mark.parametrize("metric", METRICS)
@every_input
def test_evaluators_need_no_jvm(metric, given, fitted, tmp_path):
    kind = ml.RegressionEvaluator if metric in ("rmse", "mae") else ml.MulticlassClassificationEvaluator
    options = {} if kind is ml.RegressionEvaluator else {"metricLabel": 1.0}
    if metric == "areaUnderROC":
        kind, options = ml.BinaryClassificationEvaluator, {"numBins": 0}
    evaluator = kind(metricName=metric, weightCol="weight", **options)
    wanted = METRICS[metric](COLUMNS["label"], COLUMNS["weight"], expected("logistic", fitted["logistic"]))
    assert evaluator.evaluate(fitted["logistic"].transform(INPUTS[given](tmp_path))) == pytest.approx(
        wanted, rel=1e-9
    )
    assert evaluator.isLargerBetter() == (metric not in ("hammingLoss", "logLoss", "rmse", "mae"))


def test_evaluators_refuse_what_they_cannot_measure():
    for evaluator, kind, message in (
        (ml.RegressionEvaluator(labelCol="y"), SchemaError, "label column 'y' does not exist"),
        (ml.RegressionEvaluator(metricName="rmsle"), ParameterError, "metricName='rmsle' is not known to Regression"),
        (ml.BinaryClassificationEvaluator(metricName="auc"), ParameterError, "metricName='auc' is not known"),
        (
            ml.MulticlassClassificationEvaluator(metricName="recallByLabel", metricLabel=9.0, predictionCol="label"),
            DataError,
            "no row has the label 9",
        ),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            evaluator.evaluate(ROWS.append_column("prediction", ROWS["label"]))


def test_no_java_is_looked_for(tmp_path):
    code = f"""
import numpy as np, sys
from pyspark import SparkContext
from sparkopt import ml
from tests.ml.tables import ESTIMATORS, ROWS, evaluator_of
estimator = ESTIMATORS["logistic"]
model = ml.CrossValidator(
    estimator=estimator, estimatorParamMaps=[{{}}, {{estimator.regParam: 0.1}}], evaluator=evaluator_of("logistic")
).fit(ROWS)
model.save({str(tmp_path / "model")!r})
loaded = ml.CrossValidatorModel.load({str(tmp_path / "model")!r})
assert loaded.transform(ROWS).equals(model.transform(ROWS)) and model.bestModel.summary.areaUnderROC > 0.5
assert SparkContext._gateway is None and SparkContext._active_spark_context is None
print(*sorted({{"torch", "cv2", "polars"}} & sys.modules.keys()))
"""
    nowhere = {
        "PATH": "/nonexistent",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tables.__file__).rsplit("/tests/", 1)[0],
    }
    done = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip()


def test_documented_defaults_may_be_given():
    """None is unset, as the signatures have it."""
    unset = ml.LogisticRegression()
    given = ml.LogisticRegression(featuresCols=None, weightCol=None, stepSize=None, checkpointDir=None, regParam=0.0)
    assert {param.name for param in given.params if given.isDefined(param)} == {
        param.name for param in unset.params if unset.isDefined(param)
    }
    rows = pa.table({"features": [[0.0], [1.0], [2.0], [3.0]], "label": [0.0, 1.0, 0.0, 1.0]})
    assert given.fit(rows).coefficients == unset.fit(rows).coefficients
    assert not given.copy().setParams(weightCol="w").setParams(weightCol=None).isDefined(given.weightCol)


def _polars(rows: pa.Table) -> object:
    return pytest.importorskip("polars", reason="Polars is not a part of .venv: pip install polars").from_arrow(rows)


def _duckdb(rows: pa.Table) -> object:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not a part of .venv: pip install duckdb")
    return duckdb.from_arrow(rows)


@pytest.mark.parametrize("given", [_polars, _duckdb], ids=["Polars", "DuckDB"])
def test_relations_of_other_libraries_are_fitted_and_scored(given):
    rows = ROWS.select(["features", "label", "weight", "name"])
    estimator = ml.LogisticRegression(weightCol="weight", regParam=0.01)
    model, expected = estimator.fit(given(rows)), estimator.fit(rows)
    np.testing.assert_allclose(model.coefficients.toArray(), expected.coefficients.toArray(), rtol=1e-9)
    scored = pa.table(model.transform(given(rows)))
    assert scored["prediction"].to_pylist() == model.transform(rows)["prediction"].to_pylist()
    assert scored["name"].to_pylist() == rows["name"].to_pylist()
    assert model.evaluate(given(rows)).accuracy == model.evaluate(rows).accuracy
