"""What others met with rows in the field, and what is right: on one machine, Spark Classic and Spark Connect."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml import Transformer

from sparkopt import images, ml
from sparkopt.errors import DataError, IncompatibleError, SparkoptError
from sparkopt.machine import Table

N = 80
RNG = np.random.default_rng(23)
A, B = RNG.normal(size=N).round(3), RNG.normal(size=N).round(3)
LABEL = (A - B + RNG.logistic(size=N) > 0).astype(float)
AMOUNT = (A - 2 * B + RNG.normal(size=N)).round(3)
TABLE = pa.table({"row": np.arange(N), "a": A, "b": B, "label": LABEL, "amount": AMOUNT})
BROKEN = 7


@dataclass(frozen=True)
class Place:
    """Where a case runs.

    Attributes
    ----------
    rows : callable from a table to rows
        Gives the rows as the backend has them, in one partition.
    arrow : callable from rows to a table
        Collects them.
    source : tuple
        What ``images.read`` takes in front of a path: a session, or nothing.
    folder : Path
        For files.
    """

    rows: Callable[[pa.Table], Any]
    arrow: Callable[[Any], pa.Table]
    source: tuple[Any, ...]
    folder: Path


CASES: dict[str, Callable[[Place], None]] = {}


def case(name: str, *given: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put a function of a place into the table, with further arguments."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        CASES[name] = lambda place: function(place, *given)
        return function

    return register


def refused(message: str, call: Callable[[], Any]) -> None:
    """A call ends in one line."""
    with pytest.raises(SparkoptError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def broken(column: str, features: str) -> pa.Table:
    """The rows, of which one has a null, or a list with a null."""
    values = [None if row == BROKEN else value for row, value in enumerate(TABLE[column].to_pylist())]
    table = TABLE.set_column(TABLE.column_names.index(column), column, pa.array(values, pa.float64()))
    if features == "columns":
        return table
    return table.append_column("both", pa.array(list(map(list, zip(values, B.tolist(), strict=True)))))


@case("a null at scoring, in columns", "columns", "features column 'a', .*row 7 is null")
@case("a null at scoring, in lists", "lists", "features column 'both'.* row (7 )?is null at feature 0")
def nulls_at_scoring(place: Place, features: str, message: str) -> None:
    """Error names column and row; skip leaves the row out; keep predicts nothing for it."""
    options = {"featuresCols": ["a", "b"]} if features == "columns" else {"featuresCol": "both"}
    rows = place.rows(broken("a", features))
    whole = place.rows(broken("a", features).filter(pa.array(np.arange(N) != BROKEN)))
    model = ml.LogisticRegression(regParam=0.1, **options).fit(whole)
    with pytest.raises(Exception, match=message):  # Spark computes it later, and raises its own
        place.arrow(model.transform(rows))
    expected = place.arrow(model.transform(whole))
    for mode in ("skip", "keep"):
        found = place.arrow(model.copy().setHandleInvalid(mode).transform(rows))
        kept = found.filter(pa.compute.is_valid(found["prediction"]))
        assert (found.num_rows, kept.num_rows) == (N - (mode == "skip"), N - 1)
        assert kept["row"].to_pylist() == expected["row"].to_pylist()
        assert kept["prediction"].to_pylist() == expected["prediction"].to_pylist()
        assert found["probability"].null_count == (mode == "keep")


class Doubled(Transformer):
    """A user's stage without a state; the list has an entry for each call."""

    def __init__(self, calls: list[int]) -> None:
        super().__init__()
        self.calls = calls

    def _transform(self, dataset: Any) -> Any:
        self.calls.append(1)
        if hasattr(dataset, "selectExpr"):
            return dataset.selectExpr("*", "2 * a as twice")
        table = Table.of(dataset).to_arrow()
        return Table.of(table.append_column("twice", pa.compute.multiply(table["a"], 2.0)))

    def copy(self, extra: Any = None) -> Any:
        """Return itself: it has no parameters."""
        return self


@case("a search over a pipeline")
def searches_over_pipelines(place: Place) -> None:
    """The first stage runs for types, all folds and the model, and not for each fit; metrics are those by hand."""
    calls: list[int] = []
    last = ml.LinearRegression(featuresCols=["twice", "b"], labelCol="amount", tol=1e-12)
    pipeline = ml.Pipeline(stages=[Doubled(calls), last])
    folds = pa.array(np.arange(N) % 3, pa.int32())
    search = ml.CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=[{last.regParam: strength} for strength in (0.01, 0.5, 10.0)],
        evaluator=ml.RegressionEvaluator(labelCol="amount"),
        numFolds=3,
        foldCol="fold",
    )
    table = TABLE.append_column("fold", folds)
    model = search.fit(place.rows(table))
    assert len(calls) <= 3
    plain = table.append_column("twice", pa.array(2 * A))
    for strength, metric in zip((0.01, 0.5, 10.0), model.avgMetrics, strict=True):
        errors = []
        for fold in range(3):
            inside = np.arange(N) % 3 == fold
            fitted = last.copy({last.regParam: strength}).fit(plain.filter(pa.array(~inside)))
            held = fitted.transform(plain.filter(pa.array(inside)))
            errors.append(np.sqrt(np.mean(np.square(held["prediction"].to_numpy() - AMOUNT[inside]))))
        np.testing.assert_allclose(metric, np.mean(errors), rtol=1e-7)


PICTURES = ["cat/1.JPG", "cat/2.jpeg", "cat/with space.Png", "dog/über.png", "dog/100%25.png", "dog/sharp#1.bmp"]


def write_pictures(folder: Path) -> Path:
    """Write pictures of every name, a broken one, and files that are none; return the folder."""
    for number, name in enumerate([*PICTURES, "dog/moving.GIF"]):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 6, 3), 10 + 30 * number, np.uint8)
        ending = ".png" if name.endswith("GIF") else path.suffix.lower()
        path.write_bytes(cv2.imencode(ending, pixels)[1].tobytes())
    (folder / "pictures" / "dog" / "broken.png").write_bytes(b"no image")
    (folder / "pictures" / "notes.txt").write_text("x")
    return folder / "pictures"


STEPS = images.Compose([images.Decode("gray"), images.Resize(2, 2), images.Rescale(1 / 255)])


@case("pictures whose names have any letters and endings")
def names_of_pictures(place: Place) -> None:
    """All are read, by what they hold; the broken one is null, has a reason, and is the only one."""
    folder = write_pictures(place.folder)
    stage = ml.ImageTransformer(pipeline=STEPS, inputCol="content", output="array")
    found = place.arrow(stage.transform(images.read(*place.source, str(folder))))
    names = [path.partition("/pictures/")[2] for path in found["path"].to_pylist()]
    assert sorted(names) == sorted([*PICTURES, "dog/moving.GIF", "dog/broken.png"])
    assert dict(zip(names, found["label"].to_pylist(), strict=True)) == {name: name[:3] for name in names}
    reasons = dict(zip(names, found["features_error"].to_pylist(), strict=True))
    assert [name for name, reason in reasons.items() if reason is not None] == ["dog/broken.png"]
    assert found["features"].null_count == 1


@case("one picture that is none, among many")
def broken_pictures(place: Place) -> None:
    """It is an error that names it, left out, or null; the model is that of the others."""
    rows = images.read(*place.source, str(write_pictures(place.folder)))
    stage = ml.ImageTransformer(pipeline=STEPS, inputCol="content", output="array", keyCol="path")
    strict = stage.copy({stage.mode: "FAILFAST"})
    with pytest.raises(Exception, match="broken.png"):
        place.arrow(strict.transform(rows))
    lenient = place.arrow(stage.copy({stage.mode: "DROPMALFORMED"}).transform(rows))
    assert lenient.num_rows == len(PICTURES) + 1
    kept = place.arrow(stage.transform(rows))
    shade = pa.array([float(path.rpartition("/")[2] > "a") for path in kept["path"].to_pylist()])
    table = kept.select(["features"]).append_column("label", shade)
    estimator = ml.LinearRegression(regParam=1.0)
    refused("row . is null", lambda: estimator.fit(place.rows(table)))
    model = estimator.copy().setHandleInvalid("skip").fit(place.rows(table))
    whole = table.filter(pa.compute.is_valid(table["features"]))
    np.testing.assert_array_equal(model.coefficients.toArray(), estimator.fit(whole).coefficients.toArray())
    assert model.summary.receipt.rows == len(PICTURES) + 1


@case("a map beside the columns")
def columns_that_are_not_hashed(place: Place) -> None:
    """Rows with a map are split for a search as those without it."""
    maps = pa.array([[("k", row)] for row in range(N)], pa.map_(pa.string(), pa.int64()))
    found = []
    for table in (TABLE, TABLE.append_column("more", maps)):
        search = ml.TrainValidationSplit(
            estimator=ml.LogisticRegression(featuresCols=["a", "b"]),
            estimatorParamMaps=[{}],
            evaluator=ml.BinaryClassificationEvaluator(),
            seed=5,
        )
        found.append(search.fit(place.rows(table)).validationMetrics)
    assert found[0] == found[1]


@case("full rows first, empty ones later")
def layouts(place: Place) -> None:
    """Both are in one partition, and the model is that of any other order."""
    X = np.zeros((N, 40))
    X[: N // 2] = RNG.normal(size=(N // 2, 40))
    X[N // 2 :, 3] = 1.0
    estimator = ml.LinearRegression(regParam=0.1, tol=1e-12, maxIter=300)
    found = []
    for order in (np.arange(N), np.arange(N)[::-1], np.random.default_rng(1).permutation(N)):
        rows = pa.table({"features": X[order].tolist(), "label": AMOUNT[order]})
        found.append(estimator.fit(place.rows(rows)).coefficients.toArray())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5, atol=1e-7)


@case("parameters of pyspark.ml that have no effect here")
def parameters_without_effect(place: Place) -> None:
    """They are taken; those that choose a method choose it; a wrong one is one line."""
    rows = place.rows(TABLE)
    options: dict[str, Any] = {"featuresCols": ["a", "b"], "regParam": 0.1, "tol": 1e-12}
    without = {"maxBlockSizeInMB": 2.0, "aggregationDepth": 3}
    for kind, more in (
        (ml.LogisticRegression, {}),
        (ml.LinearSVC, {}),
        (ml.LinearRegression, {"labelCol": "amount"}),
    ):
        plain = kind(**options, **more).fit(rows)
        assert kind(**options, **more, **without).fit(rows).coefficients == plain.coefficients
    linear = {**options, "labelCol": "amount"}
    models = [ml.LinearRegression(**linear, solver=name).fit(rows) for name in ("normal", "l-bfgs")]
    np.testing.assert_allclose(models[0].coefficients.toArray(), models[1].coefficients.toArray(), rtol=1e-3)
    with pytest.raises(Exception, match="solver"):
        ml.LinearRegression(**linear, solver="newton").fit(rows)
    with pytest.raises(IncompatibleError, match="both choose the method"):
        ml.LinearRegression(**linear, solver="normal", optimizer="adam").fit(rows)


@case("labels -1 and 1")
def signs(place: Place) -> None:
    """Refused, with the way out."""
    table = TABLE.append_column("sign", pa.array(2 * LABEL - 1))
    estimator = ml.LogisticRegression(featuresCols=["a", "b"], labelCol="sign")
    with pytest.raises(DataError, match="is -1; it must be .*Number the classes from 0"):
        estimator.fit(place.rows(table))


@case("a pipeline, a second model and no example in one MLflow run")
def tracked(place: Place) -> None:
    """Both are logged with signatures that are made of their columns, and score pandas."""
    mlflow = pytest.importorskip("mlflow")
    patch = pytest.MonkeyPatch()
    before = mlflow.get_tracking_uri()
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        mlflow.set_tracking_uri((place.folder / "runs").as_uri())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow's own
            _log_two_models(mlflow, place)
    finally:
        mlflow.set_tracking_uri(before)
        patch.undo()


def _log_two_models(mlflow: Any, place: Place) -> None:
    from sparkopt.integrations import log_fit

    rows = place.rows(TABLE.append_column("town", pa.array(["Bonn", "Oslo"] * (N // 2))))
    stages = [ml.TableFeatures(inputCols=["a", "town"]), ml.LogisticRegression(regParam=0.1)]
    pipeline = ml.Pipeline(stages=stages).fit(rows)
    plain = ml.LinearRegression(featuresCols=["a", "b"], labelCol="amount").fit(rows)
    with mlflow.start_run(experiment_id=mlflow.create_experiment("field")) as run:
        first = log_fit(pipeline)
        refused("other names than 'model'", lambda: log_fit(plain))
        second = log_fit(plain, "amounts")
    frame = TABLE.to_pandas().assign(town=["Bonn", "Oslo"] * (N // 2))
    for info, model, names in ((first, pipeline, ["a", "town"]), (second, plain, ["a", "b"])):
        loaded = mlflow.pyfunc.load_model(info.model_uri)
        assert loaded.metadata.signature.inputs.input_names() == names
        expected = place.arrow(model.transform(rows))["prediction"].to_pylist()
        np.testing.assert_allclose(loaded.predict(frame[names])["prediction"], expected, rtol=1e-12)
    params = mlflow.get_run(run.info.run_id).data.params
    assert (params["model"], params["amounts.model"]) == ("PipelineModel", "LinearRegressionModel")
