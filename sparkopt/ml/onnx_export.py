"""Linear models, and pipelines that end in one, as models of ONNX: any of its runtimes scores with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from sparkopt import __version__
from sparkopt.errors import IncompatibleError
from sparkopt.io.filesystem import STORAGE_ERRORS, resolve
from sparkopt.ml.onnx_graph import Graph, contributions, joined
from sparkopt.ml.scores import FactorScores, LinearScores
from sparkopt.typing import Floats
from sparkopt.validation import OneOf, check

__all__ = ["save_onnx", "to_onnx"]


def to_onnx(stages: list[Any], precision: str = "double") -> bytes:
    """Return a linear model, after the stages before it, as a model of ONNX.

    Parameters
    ----------
    stages : list of Transformer
        A `LinearModel`, after at most one of `TableFeaturesModel` and pyspark.ml's VectorAssembler.
    precision : {"double", "float"}, default "double"
        Type of the numbers.

    Raises
    ------
    IncompatibleError
        For what has no counterpart there.
    MissingDependencyError
        Without the package onnx.
    """
    check("precision", precision, OneOf(["double", "float"]))
    before: list[Any] = list(stages)
    model: Any = before.pop() if before else None
    if not hasattr(model, "arrays"):
        raise IncompatibleError(f"{_named(model)} has no export to ONNX: the last stage must be a linear model.")
    if not model._has_onnx:
        raise IncompatibleError(
            f"a {_named(model)} has no export to ONNX. LinearRegression, QuantileRegression, LogisticRegression, "
            f"LinearSVC, GeneralizedLinearRegression, factorisation machines and multilayer perceptrons have."
        )
    graph = Graph(precision)
    raw = _raw(graph, before, model) if isinstance(model._scores, LinearScores) else _projected(graph, before, model)
    wanted = {key: name for key, (name, _) in model._output_columns().items() if name}
    outputs = _Outputs(graph, model).of(raw)
    for key, name in wanted.items():
        source, width = outputs[key]
        graph.output(name, source, width)
    facts = {"class": f"{type(model).__module__}.{type(model).__name__}", "uid": model.uid}
    return bytes(graph.model(__version__, facts).SerializeToString())


def save_onnx(stages: list[Any], path: str | Path, precision: str) -> None:
    """Write ``to_onnx`` to a path or a URI, at once or not at all."""
    found, target = to_onnx(stages, precision), resolve(os.fspath(path), "path")
    try:
        target.write(found)
    except STORAGE_ERRORS as error:
        if target.is_local:
            raise
        raise target.unusable(error) from None


def _raw(graph: Graph, before: list[Any], model: Any) -> str:
    """Return the raw predictions, (n, outputs), of the inputs that the stages take."""
    matrix, intercept = model.arrays
    if len(before) > 1:
        raise IncompatibleError(f"{_named(before[0])} has no export to ONNX with {_named(before[1])} after it.")
    encoder = getattr(before[0], "encoder", None) if before else None
    if encoder is not None:
        found = graph.add("Sum", graph.constant(intercept[None]), *contributions(graph, encoder, matrix))
    else:
        features = _features(graph, before, model, matrix)
        found = graph.add("Add", graph.add("MatMul", features, graph.constant(matrix.T)), graph.constant(intercept))
    offset = model._columns().offset
    return found if offset is None else graph.add("Add", found, graph.input(offset, 1))


def _projected(graph: Graph, before: list[Any], model: Any) -> str:
    """Return the raw predictions, (n, 1) or (n, classes), of a factorisation machine or a network."""
    if len(before) > 1 or (before and hasattr(before[0], "encoder")):
        raise IncompatibleError(
            f"{_named(model)} has no export to ONNX after {_named(before[0])}: give it a column of features."
        )
    matrix, _ = model.arrays
    X = _features(graph, before, model, matrix)
    if hasattr(model, "layerWeights"):
        found = X
        for number, (weights, bias) in enumerate(model.layerWeights):
            inputs = found if number == 0 else graph.add("Sigmoid", found)
            found = graph.add("Add", graph.add("MatMul", inputs, graph.constant(weights)), graph.constant(bias))
        return found
    vectors = matrix[1:].T
    linear = graph.add("MatMul", X, graph.constant(matrix[:1].T))
    along = graph.add("MatMul", X, graph.constant(vectors))
    ones = graph.constant(np.ones((vectors.shape[1], 1)))
    lengths = graph.constant(np.square(vectors).sum(axis=1, keepdims=True))
    both = graph.add("MatMul", graph.add("Mul", along, along), ones)
    own = graph.add("MatMul", graph.add("Mul", X, X), lengths)
    pairs = graph.add("Mul", graph.add("Sub", both, own), graph.constant([0.5]))
    return graph.add("Add", graph.add("Add", linear, pairs), graph.constant(model.auxiliary))


def _features(graph: Graph, before: list[Any], model: Any, matrix: Floats) -> str:
    """Return the features: one input of vectors, or one for each column."""
    names = model._features()
    if before:
        names = _assembled(before[0])
    if isinstance(names, str):
        return graph.input(names, matrix.shape[1])
    if len(names) != matrix.shape[1]:
        raise IncompatibleError(
            f"{_named(before[0])} joins {len(names)} columns to {matrix.shape[1]} features: only columns of numbers "
            f"have an export to ONNX there."
        )
    return joined(graph, [graph.input(name, 1) for name in names])


def _assembled(stage: Any) -> list[str]:
    if type(stage).__name__ != "VectorAssembler":
        raise IncompatibleError(
            f"{_named(stage)} has no export to ONNX. Before a linear model, TableFeatures and VectorAssembler have."
        )
    return list(stage.getInputCols())


def _named(stage: Any) -> str:
    return type(stage).__name__


class _Outputs:
    """The output columns of a model's raw predictions: the name of each, and its width, None for numbers."""

    def __init__(self, graph: Graph, model: Any) -> None:
        self.graph, self.model = graph, model

    def of(self, raw: str) -> dict[str, tuple[str, int | None]]:
        """Return them by their keys in ``LinearModel._outputs``."""
        keys, scores = set(self.model._output_columns()), self.model._scores
        if scores.width > 1 and not isinstance(scores, FactorScores):  # its graph has one of two
            return self._classes(raw, scores.width)
        margin = self.graph.add("Reshape", raw, self.graph.integers([-1]))
        if "rawPrediction" in keys:
            return self._two_classes(raw, margin, "probability" in keys)
        if "linkPrediction" in keys:
            return {"prediction": (self._mean(margin), None), "linkPrediction": (margin, None)}
        return {"prediction": (margin, None)}

    def _two_classes(self, raw: str, margin: str, has_probability: bool) -> dict[str, tuple[str, int | None]]:
        graph = self.graph
        both = graph.add("Concat", graph.add("Neg", raw), raw, axis=1)
        if not isinstance(self.model._scores, LinearScores):
            probability = graph.add("Sigmoid", both)
            chosen = self._chosen(both, probability)
            return {"rawPrediction": (both, 2), "probability": (probability, 2), "prediction": (chosen, None)}
        least = self.model._least_margin if has_probability else self.model.getThreshold()
        above = graph.number_of(graph.add("Greater", margin, graph.constant([least])))
        found: dict[str, tuple[str, int | None]] = {"rawPrediction": (both, 2), "prediction": (above, None)}
        if has_probability:
            found["probability"] = (graph.add("Sigmoid", both), 2)
        return found

    def _classes(self, raw: str, classes: int) -> dict[str, tuple[str, int | None]]:
        graph = self.graph
        most = graph.constant(1e30)  # infinite intercepts are those of classes without rows
        probability = graph.add("Softmax", graph.add("Clip", raw, graph.add("Neg", most), most), axis=1)
        chosen = self._chosen(raw, probability)
        return {"rawPrediction": (raw, classes), "probability": (probability, classes), "prediction": (chosen, None)}

    def _chosen(self, raw: str, probability: str) -> str:
        """Return the class of the largest raw prediction, or of the largest probability over its threshold."""
        graph, thresholds, votes = self.graph, self.model._class_thresholds, raw
        if thresholds is not None:
            votes = graph.add("Div", probability, graph.constant([thresholds]))
            votes = graph.add("Where", graph.add("IsNaN", votes), graph.constant(0.0), votes)
        return graph.number_of(graph.add("ArgMax", votes, axis=1, keepdims=0))

    def _mean(self, raw: str) -> str:
        """Return the mean of a generalised linear model: the inverse of its link."""
        graph, link = self.graph, self.model._link_name
        simple = {"log": "Exp", "logit": "Sigmoid"}
        if link in simple:
            return graph.add(simple[link], raw)
        if link == "cloglog":
            power = graph.add("Exp", graph.add("Min", raw, graph.constant([10.0])))
            return graph.add("Sub", graph.constant([1.0]), graph.add("Exp", graph.add("Neg", power)))
        powers = {"identity": 1.0, "inverse": -1.0, "sqrt": 0.5}
        if link == "power":
            powers["power"] = float(self.model.getLinkPower())
        if link not in powers:
            raise IncompatibleError(f"link={link!r} has no export to ONNX. Use 'logit' or 'cloglog'.")
        loss = self.model._family_loss()
        if powers[link] == 1.0 and getattr(loss, "power", 0.0) == 0.0:
            return raw
        zero = graph.constant([0.0])
        is_gaussian_inverse = powers[link] == -1.0 and getattr(loss, "power", None) == 0.0
        valid = graph.add("Greater", graph.add("Abs", raw) if is_gaussian_inverse else raw, zero)
        inside = graph.add("Where", valid, raw, graph.constant([1.0]))
        mean = graph.add("Pow", inside, graph.constant([1.0 / powers[link]]))
        return graph.add("Where", valid, mean, graph.constant([np.nan]))
