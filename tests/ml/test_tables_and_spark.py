"""What was fitted and saved without Spark is loaded with it, and the other way round, with the same scores."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml import evaluation, tuning
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from sparkopt import ml
from sparkopt.io import FileSession
from sparkopt.ml.saving import load_stage, save_stage
from tests.ml.tables import ESTIMATORS, ROWS, arrow, column, evaluator_of
from tests.partitions import as_spark_reads

pytestmark = pytest.mark.usefixtures("minutes")


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for part in range(3):
        pq.write_table(ROWS.slice(part * 200, 200), folder / f"{part}.parquet")
    return folder


@pytest.fixture(scope="module")
def df(spark, parquet):
    return spark.read.parquet(str(parquet))


def on_spark(scored, output):
    """An output column of a DataFrame, in the order of the rows."""
    vector = scored.schema[output].dataType.typeName() == "vector"
    values = vector_to_array(output) if vector else F.col(output)
    found = scored.select("x0", "x1", "x2", "x3", "offset", values.alias("found")).toPandas()
    return np.array(found.sort_values(["offset", "x0"])["found"].tolist())


def here(scored, output):
    rows = arrow(scored).sort_by([("offset", "ascending"), ("x0", "ascending")])
    return column(rows, output)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_partitions_give_the_same_model_scores_and_files(spark, df, parquet, name, tmp_path):
    estimator = ESTIMATORS[name].copy().setEngine("driver")
    table = as_spark_reads(df, estimator._columns(), parquet)
    model, theirs = estimator.fit(table), estimator.fit(df)
    assert all(np.array_equal(one, two) for one, two in zip(model.arrays, theirs.arrays, strict=True))
    save_stage(model, str(tmp_path / "here"), FileSession())
    theirs.save(str(tmp_path / "spark"))
    on = type(model).load(str(tmp_path / "here"))
    off = load_stage(str(tmp_path / "spark"), FileSession())
    scored, expected = on.transform(df), off.transform(table)
    outputs = [field for field in scored.columns if field not in df.columns]
    assert expected.names == [*table.names, *outputs]
    for output in outputs:
        np.testing.assert_array_equal(on_spark(scored, output), here(expected, output), err_msg=output)
    for metric in ("accuracy", "r2", "deviance", "areaUnderROC"):
        if hasattr(type(model.summary), metric):
            found = [
                getattr(one, metric) for one in (model.summary, theirs.summary, on.evaluate(df), off.evaluate(table))
            ]
            np.testing.assert_allclose(found, found[0], rtol=1e-12)
    save_stage(estimator, str(tmp_path / "estimator"), FileSession())
    assert type(estimator).load(str(tmp_path / "estimator")).uid == estimator.uid


@pytest.mark.parametrize("name", ["logistic", "classes", "least squares"])
def test_searches_choose_the_same_and_are_the_same_files(spark, df, parquet, name, tmp_path):
    estimator = ESTIMATORS[name].copy().setEngine("driver")
    options = dict(
        estimator=estimator,
        estimatorParamMaps=[{estimator.regParam: value} for value in (0.01, 0.5)],
        evaluator=evaluator_of(name),
        foldCol="fold",
        collectSubModels=True,
    )
    table = as_spark_reads(df, estimator._columns(), parquet)
    found, theirs = ml.CrossValidator(**options).fit(table), ml.CrossValidator(**options).fit(df)
    np.testing.assert_allclose(found.avgMetrics, theirs.avgMetrics, rtol=1e-12)
    assert np.array_equal(found.bestModel.arrays[0], theirs.bestModel.arrays[0])
    save_stage(found, str(tmp_path / "here"), FileSession())
    theirs.save(str(tmp_path / "spark"))
    for kind in (ml.CrossValidatorModel, tuning.CrossValidatorModel):
        loaded = kind.load(str(tmp_path / "here"))
        assert loaded.avgMetrics == found.avgMetrics
        assert type(loaded.getEvaluator()).__module__ == evaluation.__name__  # pyspark.ml's, by the JVM
        scored = loaded.transform(df)
        assert np.array_equal(on_spark(scored, "prediction"), here(found.transform(table), "prediction"))
    loaded = load_stage(str(tmp_path / "spark"), FileSession())
    assert loaded.avgMetrics == theirs.avgMetrics
    assert len(loaded.subModels) == 3
    assert np.array_equal(here(loaded.transform(table), "prediction"), here(found.transform(table), "prediction"))


def test_evaluators_measure_dataframes_in_the_jvm_and_tables_here(df, parquet, tmp_path):
    model = ESTIMATORS["logistic"].fit(ROWS)
    scored, table = model.transform(df), model.transform(ROWS)
    pairs = [
        (ml.BinaryClassificationEvaluator(numBins=0), evaluation.BinaryClassificationEvaluator(numBins=0)),
        (ml.MulticlassClassificationEvaluator(), evaluation.MulticlassClassificationEvaluator()),
        (ml.RegressionEvaluator(metricName="r2"), evaluation.RegressionEvaluator(metricName="r2")),
    ]
    for number, (ours, theirs) in enumerate(pairs):
        expected = pytest.approx(theirs.evaluate(scored), rel=1e-12)  # the JVM adds partitions in the order they end
        assert ours.evaluate(scored) == expected
        assert ours.evaluate(table) == expected
        assert ours.isLargerBetter() == theirs.isLargerBetter()
        save_stage(ours, str(tmp_path / f"here{number}"), FileSession())
        assert type(theirs).load(str(tmp_path / f"here{number}")).uid == ours.uid
        ours.save(str(tmp_path / f"spark{number}"))
        assert type(ours).load(str(tmp_path / f"spark{number}")).evaluate(scored) == expected
        assert load_stage(str(tmp_path / f"spark{number}"), FileSession()).evaluate(table) == expected


def test_pipelines_and_one_vs_rest_are_the_same_files(spark, df, tmp_path):
    rest = ml.OneVsRest(classifier=ml.LogisticRegression(regParam=0.01), labelCol="kind")
    pipeline = ml.Pipeline(stages=[rest])
    model, theirs = pipeline.fit(ROWS), pipeline.fit(df)
    assert isinstance(theirs.stages[0], ml.OneVsRestModel)
    save_stage(model, str(tmp_path / "here"), FileSession())
    theirs.save(str(tmp_path / "spark"))
    scored = ml.PipelineModel.load(str(tmp_path / "here")).transform(df)
    found = load_stage(str(tmp_path / "spark"), FileSession()).transform(ROWS)
    assert np.array_equal(on_spark(scored, "prediction"), here(found, "prediction"))
    np.testing.assert_allclose(on_spark(scored, "rawPrediction"), here(found, "rawPrediction"), rtol=1e-4, atol=1e-6)


def test_a_split_on_spark_shares_passes(df):
    estimator = ESTIMATORS["least squares"]
    options = dict(
        estimator=estimator,
        estimatorParamMaps=[{estimator.regParam: value} for value in (0.0, 1.0)],
        evaluator=ml.RegressionEvaluator(labelCol="amount"),
        seed=3,
    )
    found = ml.TrainValidationSplit(**options).fit(df)
    theirs = tuning.TrainValidationSplit(
        **{**options, "evaluator": evaluation.RegressionEvaluator(labelCol="amount")}
    )
    np.testing.assert_allclose(found.validationMetrics, theirs.fit(df).validationMetrics, rtol=1e-6)
    assert found.bestModel.getRegParam() == 0.0
