"""Metrics over rows and ranks: against scikit-learn, weights included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from sparkopt.deep.metrics import build_metrics, by_name, check_metrics
from sparkopt.errors import ParameterError
from sparkopt.launch import LocalCommunicator

RNG = np.random.default_rng(0)
SCORES, CLASSES = RNG.normal(size=(40, 3)).astype(np.float32), RNG.integers(0, 3, 40)
REAL, GUESS = RNG.normal(size=(2, 40)).astype(np.float32)
WEIGHT = RNG.integers(0, 4, 40).astype(np.float32)


class Both(LocalCommunicator):
    """One of two ranks, which is given what the other one gathers and sums."""

    def __init__(self, other):
        super().__init__()
        self.info = type(self.info)(0, 2)
        self.other = other

    def all_gather(self, payload):
        return [payload, self.other]

    def all_reduce(self, values):
        self.mine = np.array(values)
        return values + self.other


def value(metric, batches, communicator=None):
    (built,) = build_metrics({"m": metric}, torch.device("cpu")).values()
    for output, target, weight in batches:
        built.update(torch.as_tensor(output), torch.as_tensor(target), torch.as_tensor(weight))
    return built.compute(communicator or LocalCommunicator())


def in_two(*arrays):
    return [tuple(array[:25] for array in arrays), tuple(array[25:] for array in arrays)]


EXPECTED = {
    "accuracy": (SCORES, CLASSES, sk.accuracy_score(CLASSES, SCORES.argmax(1), sample_weight=WEIGHT)),
    "mse": (GUESS, REAL, sk.mean_squared_error(REAL, GUESS, sample_weight=WEIGHT)),
    "rmse": (GUESS, REAL, sk.root_mean_squared_error(REAL, GUESS, sample_weight=WEIGHT)),
    "mae": (GUESS, REAL, sk.mean_absolute_error(REAL, GUESS, sample_weight=WEIGHT)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_weighted_as_scikit_learn_has_it(name):
    output, target, expected = EXPECTED[name]
    assert value(name, in_two(output, target, WEIGHT)) == pytest.approx(expected, rel=1e-6)


def test_accuracy_of_a_single_probability():
    label, probability = (REAL > 0).astype(np.float32), 1 / (1 + np.exp(-GUESS))
    expected = sk.accuracy_score(label, probability > 0.5, sample_weight=WEIGHT)
    assert value("accuracy", [(probability, label, WEIGHT)]) == pytest.approx(expected)


def test_ranks_are_summed():
    first, second = in_two(SCORES, CLASSES, WEIGHT)
    probe = Both(np.zeros(2))
    value("accuracy", [second], probe)
    expected = EXPECTED["accuracy"][2]
    assert value("accuracy", [first], Both(probe.mine)) == pytest.approx(expected)


def test_torchmetrics_over_ranks_and_rows_that_count():
    torchmetrics = pytest.importorskip("torchmetrics")
    metric = torchmetrics.F1Score(task="multiclass", num_classes=3, average="macro")
    counts = WEIGHT > 0
    expected = sk.f1_score(CLASSES[counts], SCORES[counts].argmax(1), average="macro")
    assert value(metric, in_two(SCORES, CLASSES, WEIGHT)) == pytest.approx(expected, rel=1e-6)

    class Gathers(Both):
        """Sums are gathered state by state: the other rank's are recorded first, in the same order."""

        def __init__(self, states=None):
            super().__init__(b"")
            self.states, self.sent = list(states or []), []

        def all_gather(self, payload):
            self.sent.append(payload)
            return [payload, self.states[len(self.sent) - 1] if self.states else payload]

    first, second = in_two(SCORES, CLASSES, WEIGHT)
    probe = Gathers()
    value(metric, [second], probe)
    assert value(metric, [first], Gathers(probe.sent)) == pytest.approx(expected, rel=1e-6)


def test_what_is_no_metric_is_named():
    with pytest.raises(ParameterError, match=r"metric 'f1' must be a torchmetrics.Metric or one of accuracy, mse"):
        check_metrics({"accuracy": "accuracy", "f1": "f1"})


def test_metrics_without_names_get_one_line():
    with pytest.raises(ParameterError, match=r"must be a dict of names .* such as \{'mse': 'mse'\}. Got \['mse'\]"):
        by_name(["mse"])
