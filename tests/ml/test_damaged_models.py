"""Damaged models and stages: each alteration of their files loads the same, or is one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml.param import Params

from sparkopt.errors import SparkoptError
from sparkopt.integrations.pyfunc import _load_pyfunc
from sparkopt.ml import (
    BinaryClassificationEvaluator,
    CrossValidator,
    GeneralizedLinearRegression,
    LinearRegression,
    LogisticRegression,
    OneVsRest,
    Pipeline,
    TableFeatures,
)

rng = np.random.default_rng(5)
X = rng.normal(size=(60, 6))
FITTED = {
    "linear": lambda: LinearRegression(regParam=0.1).fit((X, X[:, 0])),
    "logistic": lambda: LogisticRegression(regParam=0.1, threshold=0.3).fit((X, (X[:, 1] > 0).astype(float))),
    "generalised": lambda: GeneralizedLinearRegression(family="poisson").fit((X, np.round(np.exp(X[:, 2])))),
}
MUTATIONS = 150
"""Of each file of each model."""


@pytest.fixture(scope="module", params=FITTED)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    model = FITTED[request.param]()
    model.write().save(str(folder))
    return model, folder


def mutated(content: bytes, number: int) -> bytes:
    """One of: a byte changed, a bit flipped, bytes cut out, put in or swapped, the end cut off, zeros."""
    draw = np.random.default_rng(number)
    at, length = int(draw.integers(len(content))), int(draw.integers(1, 9))
    changed = bytearray(content)
    match number % 7:
        case 0:
            changed[at] = (changed[at] + int(draw.integers(1, 256))) % 256
        case 1:
            changed[at] ^= 1 << int(draw.integers(8))
        case 2:
            del changed[at : at + length]
        case 3:
            changed[at:at] = draw.bytes(length)
        case 4:
            changed[at : at + length] = changed[at : at + length][::-1]
        case 5:
            del changed[at:]
        case 6:
            changed[at : at + length] = bytes(min(length, len(changed) - at))
    return bytes(changed)


def state(model) -> tuple:
    """All that decides how a model predicts."""
    params = {param.name: value for param, value in model.extractParamMap().items()}
    return [array.tobytes() for array in (*model.arrays, model.auxiliary)], params, model.uid


@pytest.mark.parametrize("part", ["metadata", "data"])
@pytest.mark.parametrize("how", ["load", "pyfunc"])
def test_every_damage_is_one_error_or_none(saved, part, how, tmp_path):
    model, folder = saved
    (original,) = (path for path in (folder / part).iterdir() if path.name.startswith("part-"))
    content, known = original.read_bytes(), state(model)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    target = copy / part / original.name
    refused, others = [], []
    for number in range(MUTATIONS):
        target.write_bytes(mutated(content, number))
        try:
            found = type(model).load(str(copy)) if how == "load" else _load_pyfunc(str(copy)).model
        except SparkoptError as error:
            refused.append(str(error))
            continue
        if state(found) != known:
            others.append(number)
    assert not others
    assert [message for message in refused if len(message.splitlines()) != 1] == []
    assert len(refused) > MUTATIONS / 3


def metadata_of(folder: Path) -> Path:
    (found,) = (folder / "metadata").glob("part-*")
    return found


def test_models_without_a_digest_still_load(saved, tmp_path):
    model, folder = saved
    shutil.copytree(folder, tmp_path / "old")
    file = metadata_of(tmp_path / "old")
    entries = json.loads(file.read_text())
    assert len(entries.pop("digest")) == 64
    file.write_text(json.dumps(entries))
    assert state(type(model).load(str(tmp_path / "old"))) == state(model)
    assert state(_load_pyfunc(str(tmp_path / "old")).model) == state(model)


def test_other_numbers_and_other_parameters_are_named(saved, tmp_path):
    model, folder = saved
    shutil.copytree(folder, tmp_path / "numbers")
    (file,) = (tmp_path / "numbers" / "data").glob("part-*")
    table = pq.read_table(file)
    place = table.column_names.index("intercept")
    values = [[value + 1 for value in row] for row in table.column("intercept").to_pylist()]
    pq.write_table(table.set_column(place, "intercept", [values]), file)
    with pytest.raises(SparkoptError, match="numbers' holds was truncated or altered after it was saved: its"):
        type(model).load(str(tmp_path / "numbers"))
    shutil.copytree(folder, tmp_path / "params")
    file = metadata_of(tmp_path / "params")
    entries = json.loads(file.read_text())
    entries["paramMap"]["featuresCol"] = "others"
    file.write_text(json.dumps(entries))
    with pytest.raises(SparkoptError, match="its digest is not that of its parameters and numbers"):
        _load_pyfunc(str(tmp_path / "params"))


LOGISTIC = {"regParam": 0.1, "threshold": 0.3, "maxIter": 50}
STAGES = {
    "estimator": lambda: LogisticRegression(**LOGISTIC),
    "evaluator": lambda: BinaryClassificationEvaluator(numBins=7),
    "raw columns": lambda: TableFeatures(exclude=["id"], maxCategories=9),
    "one against the rest": lambda: OneVsRest(classifier=LogisticRegression(**LOGISTIC), parallelism=2),
    "pipeline": lambda: Pipeline(stages=[TableFeatures(), LogisticRegression(**LOGISTIC)]),
    "search": lambda: CrossValidator(
        estimator=LogisticRegression(**LOGISTIC),
        estimatorParamMaps=[{}],
        evaluator=BinaryClassificationEvaluator(),
        numFolds=4,
    ),
}


def parameters(stage) -> object:
    """All parameters of a stage, and those of the stages within it."""
    if isinstance(stage, Params):
        own = {param.name: parameters(value) for param, value in stage.extractParamMap().items()}
        return type(stage).__name__, stage.uid, own
    return [parameters(one) for one in stage] if isinstance(stage, list) else repr(stage)


@pytest.mark.parametrize("name", STAGES)
def test_every_damage_of_a_stage_is_one_error_or_none(name, tmp_path):
    stage = STAGES[name]()
    stage.write().save(str(tmp_path / "stage"))
    known, others, refused = parameters(type(stage).load(str(tmp_path / "stage"))), [], []
    assert known == parameters(stage)
    for file in sorted((tmp_path / "stage").rglob("part-*")):
        content = file.read_bytes()
        is_covered = "digest" in json.loads(content)
        for number in range(MUTATIONS):
            file.write_bytes(mutated(content, number))
            try:
                found = parameters(type(stage).load(str(tmp_path / "stage")))
            except SparkoptError as error:
                refused.append(str(error))
                continue
            if found != known and is_covered:
                others.append((file.parent, number))
        file.write_bytes(content)
    assert not others
    assert [message for message in refused if len(message.splitlines()) != 1] == []
    assert len(refused) > MUTATIONS / 3
