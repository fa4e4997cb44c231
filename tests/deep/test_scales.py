"""Predictions, metrics and evaluations are on the scale of the labels."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from sparkopt.errors import IncompatibleError
from tests.deep.labelled import (
    CLASSES,
    COUNTS,
    LABEL,
    POSITIONS,
    REAL,
    ROWS,
    SEVERAL,
    Chance,
    Positions,
    X,
    estimator,
    linear,
    one,
    table,
)

# loss, labels, a metric of predictions, and what scikit-learn makes of the columns; predictions by hand
SCALES = {
    "counts": ("poisson", one, COUNTS, lambda raw: np.exp(raw[:, 0]), "rmse", sk.root_mean_squared_error),
    "rates": (
        nn.PoissonNLLLoss(log_input=False), Chance, COUNTS, lambda raw: raw[:, 0], "mae",
        sk.mean_absolute_error,
    ),
    "values": ("huber", one, REAL, lambda raw: raw[:, 0], "mse", sk.mean_squared_error),
    "a logit": ("logistic", one, SEVERAL[:, 0], lambda raw: (raw[:, 0] > 0) * 1.0, "accuracy", sk.accuracy_score),
    "a probability": (
        nn.BCELoss(), Chance, SEVERAL[:, 0], lambda raw: (raw[:, 0] > 0.5) * 1.0, "accuracy", sk.accuracy_score,
    ),
    "labels": (
        nn.BCEWithLogitsLoss(), linear, SEVERAL, lambda raw: (raw > 0) * 1.0, "accuracy",
        lambda y, p: (y == p).mean(),
    ),
    "probabilities of labels": (
        nn.BCELoss(), functools.partial(Chance, CLASSES), SEVERAL, lambda raw: (raw > 0.5) * 1.0, "accuracy",
        lambda y, p: (y == p).mean(),
    ),
    "classes": ("multinomial", linear, LABEL, lambda raw: raw.argmax(1), "accuracy", sk.accuracy_score),
    "positions": (
        nn.CrossEntropyLoss(), Positions, POSITIONS, lambda raw: raw.argmax(1), "accuracy",
        lambda y, p: (y == p).mean(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "module", "label", "by_hand", "metric", "score"), SCALES.values(), ids=SCALES)
def test_predictions_and_metrics_are_on_the_labels_scale(loss, module, label, by_hand, metric, score):
    rows = table(label)
    model = estimator(module, loss, metrics={"metric": metric}).fit(rows)
    with torch.inference_mode():
        raw = model.module(torch.from_numpy(X)).numpy()
    found = model.transform(rows)
    predicted = np.array(found["prediction"].to_pylist())
    np.testing.assert_allclose(predicted, by_hand(raw), rtol=1e-5, atol=1e-6)
    aside = rows["aside"].to_numpy()
    expected = score(np.asarray(label)[aside], predicted[aside])
    assert model.summary.history[-1]["metric"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(rows.filter(rows["aside"]), {"m": metric}) == {"m": pytest.approx(expected, rel=1e-5)}
    if "probability" in found.column_names:
        shown = np.array(found["probability"].to_pylist())
        assert shown.shape[1] == max(2, raw.shape[1])
        assert shown.min() >= 0
        assert shown.max() <= 1


def test_metrics_of_torchmetrics_see_probabilities_and_give_matrices_and_collections():
    from torchmetrics import MetricCollection
    from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryConfusionMatrix

    label = SEVERAL[:, 0]
    metrics = {
        "matrix": BinaryConfusionMatrix(),
        "both": MetricCollection({"auc": BinaryAUROC(), "accuracy": BinaryAccuracy()}),
    }
    rows = table(label)
    model = estimator(one, "logistic", metrics=metrics).fit(rows)
    scored = model.transform(rows).filter(rows["aside"])
    truth, predicted = scored["label"].to_numpy(), scored["prediction"].to_numpy()
    last = model.summary.history[-1]
    assert last["matrix"] == sk.confusion_matrix(truth, predicted).tolist()
    assert last["both.accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    chance = np.array(scored["probability"].to_pylist())[:, 1]
    assert last["both.auc"] == pytest.approx(sk.roc_auc_score(truth, chance))
    again = model.evaluate(rows.filter(rows["aside"]), metrics)
    assert again["matrix"] == last["matrix"]
    assert again["both"]["auc"] == last["both.auc"]


def weighted():
    """Rows with weights, of which one has no label and another no features."""
    label, weight, features = list(map(float, REAL)), RNG.random(ROWS), list(X)
    label[7], features[20] = None, [0.0, np.nan, 0.0, 0.0]
    return pa.table({"features": features, "label": label, "w": weight, "aside": np.arange(ROWS) % 3 == 0})


RNG = np.random.default_rng(9)


def evaluations(rows, model):
    """By default, and with weights; and the error of invalid rows."""
    model = model.copy().setHandleInvalid("error")
    with pytest.raises(Exception, match="features column|label column"):
        model.evaluate(rows)
    model.setHandleInvalid("skip")
    plain = model.evaluate(rows)
    return plain, model.setWeightCol("w").evaluate(rows, {"error": "mse"})


def test_an_evaluation_weighs_rows_and_leaves_invalid_ones_out():
    rows = weighted()
    model = estimator(one, "huber", handleInvalid="skip").fit(rows)
    kept = [row for row in range(ROWS) if row not in (7, 20)]
    valid = rows.take(kept)
    predicted = model.transform(valid)["prediction"].to_numpy()
    truth, weight = valid["label"].to_numpy(), valid["w"].to_numpy()
    plain, by_weight = evaluations(rows, model)
    assert plain == {
        "mse": pytest.approx(sk.mean_squared_error(truth, predicted), rel=1e-5),
        "rmse": pytest.approx(sk.root_mean_squared_error(truth, predicted), rel=1e-5),
        "mae": pytest.approx(sk.mean_absolute_error(truth, predicted), rel=1e-5),
    }
    expected = sk.mean_squared_error(truth, predicted, sample_weight=weight)
    assert by_weight == {"error": pytest.approx(expected, rel=1e-5)}
    assert np.isnan(model.evaluate(rows.slice(0, 0))["mse"])


@pytest.mark.usefixtures("minutes")
def test_so_it_does_on_spark(spark):
    from torchmetrics import MeanSquaredError

    rows = weighted()
    model = estimator(one, "huber", handleInvalid="skip").fit(rows)
    frame = spark.createDataFrame(rows).repartition(3)
    for found, expected in zip(evaluations(frame, model), evaluations(rows, model), strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(IncompatibleError, match=r"'m' is one of torchmetrics, .* evaluate a table"):
        model.evaluate(frame, {"m": MeanSquaredError()})
