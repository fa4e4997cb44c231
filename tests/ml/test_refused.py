"""Rows and labels that a fit refuses, without Spark: explain refuses them too, in the same line."""

from __future__ import annotations

import logging

import pyarrow as pa
import pytest

from sparkopt import ml
from sparkopt.errors import DataError
from tests.ml.refused import CASES, GOOD, UNKNOWN, N, logistic, unknown_labels


@pytest.mark.parametrize("name", CASES)
def test_what_a_fit_refuses_is_not_explained_either(name):
    CASES[name].require(CASES[name].table())


@pytest.mark.parametrize("name", UNKNOWN)
def test_labels_that_the_model_does_not_know_are_not_evaluated(name):
    labels, message = UNKNOWN[name]
    model = logistic().fit(pa.table(GOOD))
    unknown_labels(model, pa.table({**GOOD, "label": labels}), message)


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5])
def test_the_log_loss_of_a_label_without_a_probability_is_refused(label):
    rows = pa.table({"label": [0.0, label], "probability": [[0.5, 0.5], [0.1, 0.9]]})
    with pytest.raises(DataError, match=f"label {label:g} is none of the 2 classes"):
        ml.MulticlassClassificationEvaluator(metricName="logLoss").evaluate(rows)


def test_classes_are_as_many_as_one_says():
    """More than a hundred, where the family or the label's metadata says so."""
    rows = pa.table({**GOOD, "label": [float(i % 120) for i in range(N)]})
    model = logistic().setFamily("multinomial").setMaxIter(1).setTol(0.0).setRegParam(1.0).fit(rows)
    assert model.numClasses == 120


def test_labels_that_begin_at_one_are_mentioned(caplog):
    rows = pa.table({**GOOD, "label": [1.0 + y for y in GOOD["label"]]})
    with caplog.at_level(logging.WARNING):
        assert logistic().setRegParam(0.1).fit(rows).numClasses == 3
    assert "label column 'label' begins at 1, so the classes below have no rows. Number the classes" in caplog.text
