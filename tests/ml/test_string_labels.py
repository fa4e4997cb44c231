"""StringIndexers whose values are counted in one pass have the labels that pyspark.ml's own fit finds."""

from __future__ import annotations

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline as TheirPipeline
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, SQLTransformer, StringIndexer, StringIndexerModel, VectorAssembler
from pyspark.sql import functions as F

from sparkopt.ml import CrossValidator, LogisticRegression, Pipeline, PipelineModel
from sparkopt.ml.string_labels import StringLabels, countable, with_labels

ORDERS = ["frequencyDesc", "frequencyAsc", "alphabetDesc", "alphabetAsc"]
WORDS = ["b", "a", "a", "", None, "ü", "\ufffd", "\U0001f600", "B", "b", "with space", "a\nb", "Z" * 300]
"""Some as frequent as others; code points order "\ufffd" and "\U0001f600" otherwise than UTF-16 does."""
NUMBERS = [1.0, float("nan"), None, 1.0, -0.0, 0.0, 2.5, 1e20, 1e-7, 2.5, 2.5, float("inf"), 3.0]


@pytest.fixture(scope="module")
def df(spark):
    rows = [
        (*pair, place % 3, place, place % 2, place % 4) for place, pair in enumerate(zip(WORDS, NUMBERS, strict=True))
    ]
    types = "word string, number double, few int, `odd name.x` long, label int, fold int"
    return spark.createDataFrame(rows, types).repartition(3).cache()


def labels_of(stages, df):
    return [list(map(list, stage.fit(df).labelsArray)) for stage in stages]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("invalid", ["error", "keep", "skip"])
def test_labels_are_pyspark_mls(order, invalid, df):
    kept = {"stringOrderType": order, "handleInvalid": invalid}
    stages = [
        StringIndexer(inputCols=["word", "few"], outputCols=["a", "b"], stringOrderType=order),
        StringIndexer(inputCol="number", outputCol="c", **kept),
    ]
    assert countable(stages, df) == stages
    models = with_labels(stages, df)
    theirs = [stage.fit(df) for stage in stages]
    for mine, their in zip(models, theirs, strict=True):
        assert type(mine) is StringIndexerModel
        assert mine.uid == their.uid
        assert list(map(list, mine.labelsArray)) == list(map(list, their.labelsArray))
        assert mine.extractParamMap() == their.extractParamMap()
    rows = df.where("word is not null and number is not null and not isnan(number)")
    found, expected = (models[1].transform(rows), theirs[1].transform(rows))
    assert found.schema == expected.schema  # with the labels in its metadata
    assert found.select("c").collect() == expected.select("c").collect()


@pytest.mark.parametrize("fold", range(4))
def test_labels_without_a_fold_are_those_of_its_training_rows(fold, df):
    stages = [StringIndexer(inputCol="word", outputCol="a"), StringIndexer(inputCol="few", outputCol="b")]
    every = StringLabels.counted(stages, df, "fold")
    found = [list(map(list, model.labelsArray)) for model in every.models(fold)]
    assert found == labels_of(stages, df.where(F.col("fold") != fold))
    assert [list(map(list, model.labelsArray)) for model in every.models()] == labels_of(stages, df)


def indexers(*pairs, **params):
    return [StringIndexer(inputCol=name, outputCol=f"{place}", **params) for place, name in enumerate(pairs)]


LEFT = {
    "a stage that reads another's output": (
        lambda: [*indexers("word"), StringIndexer(inputCol="0", outputCol="z")],
        1,
    ),
    "one after rows are left out": (lambda: indexers("word", "few", handleInvalid="skip"), 1),
    "a stage of another kind before": (
        lambda: [SQLTransformer(statement="select * from __THIS__"), *indexers("word")],
        0,
    ),
    "a missing column": (lambda: indexers("word", "missing"), 1),
    "an output that is there": (lambda: [StringIndexer(inputCol="word", outputCol="few")], 0),
    "an output in another case": (lambda: [StringIndexer(inputCol="word", outputCol="FEW")], 0),
    "outputs alike": (lambda: [StringIndexer(inputCol=name, outputCol="z") for name in ("word", "few")], 1),
    "fewer outputs": (lambda: [StringIndexer(inputCols=["word", "few"], outputCols=["z"])], 0),
    "no column": (lambda: [StringIndexer(outputCol="z")], 0),
}


@pytest.mark.parametrize("name", LEFT)
def test_other_stages_are_left_to_pyspark_ml(name, df):
    make, number = LEFT[name]
    stages = make()
    assert countable(stages, df) == stages[:number]
    assert outcome(Pipeline(stages=stages), df) == outcome(TheirPipeline(stages=stages), df)


def outcome(pipeline, df):
    """Return the labels that a pipeline finds, or why it does not."""
    try:
        found = pipeline.fit(df).stages
    except (PySparkException, Py4JJavaError) as error:
        return str(getattr(error, "java_exception", error))
    return [list(map(list, stage.labelsArray)) for stage in found if isinstance(stage, StringIndexerModel)]


def test_many_labels_reach_the_jvm_in_their_order(spark):
    rows = spark.range(20_000).select(F.concat(F.lit("name "), F.col("id").cast("string")).alias("name"))
    stage = StringIndexer(inputCol="name", outputCol="z", stringOrderType="alphabetDesc")
    (model,) = with_labels([stage], rows)
    assert list(model.labels) == sorted((f"name {n}" for n in range(20_000)), reverse=True)


@pytest.mark.parametrize("values", [[None, None], ["a\x00b", "a"], ["", ""]], ids=["none", "NUL", "empty"])
def test_odd_labels(values, spark):
    rows = spark.createDataFrame([(value,) for value in values], "name string")
    stage = StringIndexer(inputCol="name", outputCol="z")
    (model,) = with_labels([stage], rows)
    assert list(model.labels) == list(stage.fit(rows).labels)


def test_a_search_over_folds_and_its_saved_model(df, tmp_path):
    """The labels of each fold's model are those of its training rows; the best model can be saved as pyspark.ml's."""
    label, word = StringIndexer(inputCol="few", outputCol="few_index"), StringIndexer(inputCol="word", outputCol="w")
    word.setHandleInvalid("keep")
    encoder = OneHotEncoder(inputCols=["w"], outputCols=["v"])
    assembler = VectorAssembler(inputCols=["v", "few_index"], outputCol="features")
    last = LogisticRegression(regParam=0.1)
    grid = [{last.regParam: 0.1}, {last.regParam: 1.0}]
    search = CrossValidator(
        estimator=Pipeline(stages=[label, word, encoder, assembler, last]),
        estimatorParamMaps=grid,
        evaluator=BinaryClassificationEvaluator(),
        numFolds=4,
        foldCol="fold",
        collectSubModels=True,
    )
    many = df.union(df).union(df).where("word <> ''")  # OneHotEncoder takes no empty name
    found = search.fit(many)
    for fold, models in enumerate(found.subModels):
        rows = many.where(F.col("fold") != fold)
        labels = [list(map(list, stage.labelsArray)) for stage in models[0].stages[:2]]
        assert labels == labels_of([label, word], rows)
    found.bestModel.write().overwrite().save(str(tmp_path / "model"))
    again = PipelineModel.load(str(tmp_path / "model"))
    assert list(again.stages[1].labels) == list(word.fit(many).labels)
    expected = [row.prediction for row in found.bestModel.transform(many).select("prediction").collect()]
    assert [row.prediction for row in again.transform(many).select("prediction").collect()] == expected
