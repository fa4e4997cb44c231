"""What is saved, loaded and put into pipelines."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import HashingTF, MaxAbsScaler, MaxAbsScalerModel, Tokenizer, VectorAssembler
from pyspark.ml.param import Params

from sparkopt.ml import LinearEstimator, LinearModel
from tests.ml.behaviours.kinds import KINDS, OURS, World, logistic
from tests.ml.behaviours.models import output_columns
from tests.ml.behaviours.register import behaviour


def require_same(one: Any, other: Any) -> None:
    """Two stages are of one type and uid, have the same parameters, set or by default, and the same parts.

    pyspark.ml's readers of stages that contain others set what was a default.
    """
    is_single = isinstance(one, (LinearEstimator, LinearModel))
    assert type(one) is type(other)
    assert one.uid == other.uid
    assert str(one) == str(other)
    for param in one.params:
        twin = other.getParam(param.name)
        assert param.parent == twin.parent
        assert not is_single or one.isSet(param) == other.isSet(twin), param.name
        assert one.hasDefault(param) == other.hasDefault(twin), param.name
        if one.isDefined(param):
            require_same_value(one.getOrDefault(param), other.getOrDefault(twin))
    for name in ("bestModel", "models", "stages", "subModels"):
        if getattr(one, name, None):
            require_same_value(getattr(one, name), getattr(other, name))


def require_same_value(one: Any, other: Any) -> None:
    if isinstance(one, Params):
        require_same(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        require_same_value(list(one.values()), list(other.values()))
    elif isinstance(one, (list, tuple)):
        for entry, twin in zip(one, other, strict=True):
            require_same_value(entry, twin)
    else:
        assert one == other


@behaviour(KINDS)
def estimators_are_saved_and_loaded_as_they_are(world: World, kind: str) -> None:
    estimator, path = KINDS[kind].estimator(OURS), world.path("estimator", kind)
    estimator.save(path)
    require_same(type(estimator).load(path), estimator)


@behaviour(KINDS)
def loaded_models_are_the_saved_ones_and_score_to_the_bit(world: World, kind: str) -> None:
    model, loaded = world.fitted(kind, OURS), world.loaded(kind)
    require_same(loaded, model)
    scored = [found.transform(world.rows).orderBy("row") for found in (model, loaded)]
    outputs = output_columns(scored[0])
    assert scored[0].select(outputs).collect() == scored[1].select(outputs).collect()
    assert not getattr(loaded, "hasSummary", False)


@behaviour()
def a_folder_is_overwritten_only_where_that_is_said(world: World) -> None:
    estimator, model, path = OURS.LinearSVC(), world.fitted("logistic", OURS), world.path("taken")
    estimator.save(path)
    for stage in (estimator, model):
        with pytest.raises(Exception, match="overwrite"):
            stage.save(path)
    model.write().overwrite().save(path)
    assert type(model).load(path).coefficients == model.coefficients
    estimator.write().overwrite().save(path)
    require_same(type(estimator).load(path), estimator)


@behaviour(["least squares", "support vectors"])
def pipelines_have_models_in_the_places_of_estimators(world: World, kind: str) -> None:
    estimator = KINDS[kind].estimator(OURS).setFeaturesCol("scaled")
    assembler = VectorAssembler(inputCols=["a", "b", "c"], outputCol="assembled")
    scaler = MaxAbsScaler(inputCol="assembled", outputCol="scaled")
    stages = [assembler, Pipeline(stages=[scaler, estimator])]
    pipeline = Pipeline(stages=stages)
    model, path = pipeline.fit(world.rows), world.path("pipeline", kind)
    pipeline.save(path)
    require_same_value(Pipeline.load(path).getStages(), stages)
    model.write().overwrite().save(path)
    loaded = PipelineModel.load(path)
    require_same_value(loaded.stages, model.stages)
    first, last = loaded.stages[1].stages
    assert isinstance(first, MaxAbsScalerModel)
    assert type(last) is type(world.fitted(kind, OURS))
    assert [first.uid, last.uid] == [scaler.uid, estimator.uid]
    scored = loaded.transform(world.rows)
    assert scored.columns[: len(world.rows.columns) + 2] == [*world.rows.columns, "assembled", "scaled"]
    assert scored.count() == world.rows.count()


TEXTS = [
    (0, "a b c d e spark", 1.0),
    (1, "b d", 0.0),
    (2, "spark f g h", 1.0),
    (3, "hadoop mapreduce", 0.0),
    (4, "b spark who", 1.0),
    (5, "g d a y", 0.0),
    (6, "spark fly", 1.0),
    (7, "was mapreduce", 0.0),
]


@behaviour()
def texts_are_hashed_to_sparse_vectors_and_told_apart(world: World) -> None:
    rows = world.frame(TEXTS, ["row", "text", "label"])
    hashed = HashingTF(inputCol="words", outputCol="features", numFeatures=64)
    estimator = logistic(OURS, weightCol="", regParam=0.001)
    model = Pipeline(stages=[Tokenizer(inputCol="text", outputCol="words"), hashed, estimator]).fit(rows)
    assert model.stages[-1].numFeatures == 64
    assert model.transform(rows).where("prediction = label").count() == len(TEXTS)
