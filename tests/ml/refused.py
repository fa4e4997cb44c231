"""Rows and labels that a fit refuses, and what it says of them: on one machine, Spark Classic and Spark Connect."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from sparkopt import ml
from sparkopt.errors import SparkoptError

N = 240
GOOD: dict[str, list[Any]] = {
    "x": [i % 7 - 3.0 for i in range(N)],
    "z": [i % 5 / 2 for i in range(N)],
    "label": [float(i * i % 3 == 1) for i in range(N)],
    "weight": [1.0 + i % 2 for i in range(N)],
    "held": [i % 4 == 0 for i in range(N)],
}


@dataclass(frozen=True)
class Refused:
    """An estimator, and rows that it refuses.

    Attributes
    ----------
    estimator : callable
        Makes it.
    message : str
        What the error says, as a regular expression.
    columns : dict
        Columns that take the place of good ones; None is a column that is missing.
    rows : int
        How many of them there are.
    """

    estimator: Any
    message: str
    columns: dict[str, list[Any] | None] = field(default_factory=dict)
    rows: int = N

    def table(self) -> pa.Table:
        """The rows."""
        columns = {**GOOD, **self.columns}
        return pa.table({name: values for name, values in columns.items() if values is not None}).slice(0, self.rows)

    def require(self, rows: Any) -> None:
        """Fit and explain refuse the rows, in the same line."""
        lines = []
        for what in ("fit", "explain"):
            estimator = self.estimator()
            with pytest.raises(SparkoptError) as caught:
                getattr(estimator, what)(rows)
            lines.append((type(caught.value), str(caught.value)))
            if not hasattr(estimator, "explain"):
                break
        assert set(lines) == {lines[0]}
        assert "\n" not in lines[0][1]
        assert re.search(self.message, lines[0][1]), lines[0][1]


def one(name: str, value: Any, row: int = 7) -> dict[str, list[Any] | None]:
    """A column with one other value."""
    return {name: [value if i == row else known for i, known in enumerate(GOOD[name])]}


def of(kind: Any, **options: Any) -> Any:
    """Return what makes an estimator of two columns."""
    return lambda: kind(**{"featuresCols": ["x", "z"], **options})


logistic, two = of(ml.LogisticRegression), of(ml.LogisticRegression, family="binomial")
many, svc = of(ml.LogisticRegression, family="multinomial"), of(ml.LinearSVC)
linear, quantile = of(ml.LinearRegression), of(ml.QuantileRegression)
binomial, poisson, gamma = (
    of(ml.GeneralizedLinearRegression, family=name) for name in ("binomial", "poisson", "gamma")
)


def rest() -> Any:
    """Return a OneVsRest of a column of lists."""
    return ml.OneVsRest(classifier=ml.LinearSVC())


CLASSIFIERS = {"logistic": logistic, "two classes": two, "many classes": many, "svc": svc}
ALL = {
    **CLASSIFIERS,
    "linear": linear,
    "quantile": quantile,
    "binomial": binomial,
    "poisson": poisson,
    "gamma": gamma,
}
SIGNS, WORDS = [2.0 * y - 1 for y in GOOD["label"]], [str(int(y)) for y in GOOD["label"]]
FROM_0, REPAIR = "Number the classes from 0, as StringIndexer and the command sparkopt train do", "Filter or repair"
LISTS: dict[str, list[Any] | None] = {"features": [[x, 1.0] for x in GOOD["x"]]}
AT = r"label column 'label', (partition 0.*, )?row \d+"

CASES: dict[str, Refused] = {
    **{
        f"labels -1 and 1: {name}": Refused(
            kind, rf"label column 'label'.* is -1; it must be .*{FROM_0}", {"label": SIGNS}
        )
        for name, kind in CLASSIFIERS.items()
    },
    **{
        f"words: {name}": Refused(
            kind, "label column 'label' has type string; it must be numeric. Cast .* StringIndexer", {"label": WORDS}
        )
        for name, kind in ALL.items()
    },
    **{
        f"label among the features: {name}": Refused(
            lambda kind=kind: kind().setFeaturesCols(["x", "label"]), "featuresCols names the label, 'label'"
        )
        for name, kind in ALL.items()
    },
    **{
        f"label {value}: {name}": Refused(
            kind,
            rf"label column 'label', partition 0.*row 7 is {value}.*handleInvalid='skip'",
            one("label", float(value)),
        )
        for name, kind in ALL.items()
        for value in ("nan", "inf")
        if name != "gamma"
    },
    "labels 1 and 2: two classes": Refused(
        two,
        f"is 2; it must be a whole number in .0, 1.. {FROM_0}.*family='multinomial'",
        {"label": [1.0 + i % 2 for i in range(N)]},
    ),
    "labels 1 and 2: svc": Refused(svc, "is 2; it must be .*OneVsRest", {"label": [1.0 + i % 2 for i in range(N)]}),
    "three classes: two classes": Refused(
        two, "is 2; it must be .*set family='multinomial'", {"label": [float(i % 3) for i in range(N)]}
    ),
    "three classes: binomial": Refused(
        binomial, r"is 2; it must be in \[0, 1\]", {"label": [float(i % 3) for i in range(N)]}
    ),
    "hundreds of values: logistic": Refused(
        logistic,
        "labels up to 239, which are 240 classes, more than 100. .*LinearRegression.*family='multinomial'",
        {"label": [float(i) for i in range(N)]},
    ),
    "row numbers: many classes": Refused(
        many, "labels up to 123456, which are 123457 classes, more than 10000", one("label", 123456.0)
    ),
    "hundreds of values: one versus rest": Refused(
        rest,
        "labels up to 239, and OneVsRest trains a model for each",
        {**LISTS, "label": [float(i) for i in range(N)]},
    ),
    "words: one versus rest": Refused(rest, "has type string; it must be numeric. Cast", {**LISTS, "label": WORDS}),
    "halves: logistic": Refused(
        logistic, f"is 0.5; it must be a whole number >= 0. {FROM_0}. .*LinearRegression", one("label", 0.5)
    ),
    "no label": Refused(linear, "label column 'label' does not exist. Columns: x, z, weight", {"label": None}),
    "null label": Refused(quantile, f"{AT} is null", one("label", None)),
    "negative: poisson": Refused(poisson, f"is -1; it must be >= 0. {REPAIR}", one("label", -1.0)),
    "zero: gamma": Refused(gamma, "row 0 is 0; it must be > 0", {}),
    "no column": Refused(of(ml.LinearRegression, featuresCols=["x", "age"]), "features column 'age' does not exist"),
    "text column": Refused(linear, "features column 'z' has type string", {"z": WORDS}),
    "null": Refused(linear, "features column 'z', partition 0.*row 7 is null", one("z", None)),
    "NaN": Refused(svc, "features column 'z', partition 0.*row 7 is nan", one("z", math.nan)),
    "infinity": Refused(logistic, "features column 'x', partition 0.*row 7 is inf", one("x", math.inf)),
    "lists of two lengths": Refused(
        ml.LinearRegression,
        "features column 'features'.*row 7 has 1 entries",
        {"features": [[1.0] * (1 + (i != 7)) for i in range(N)]},
    ),
    "null entry": Refused(
        ml.LinearRegression,
        "row 7 is null at feature 1",
        {"features": [[1.0, None if i == 7 else 2.0] for i in range(N)]},
    ),
    "numbers as a vector": Refused(
        of(ml.LinearRegression, featuresCols=None, featuresCol="x"), "must be a Vector or an array"
    ),
    "negative weight": Refused(
        of(ml.LinearRegression, weightCol="weight"),
        "weight column 'weight'.*row 7 is -1; it must be >= 0",
        one("weight", -1.0),
    ),
    "no weight": Refused(
        of(ml.LinearRegression, weightCol="weight"), "weight column 'weight' is 0 in every row", {"weight": [0.0] * N}
    ),
    "text weight": Refused(
        of(ml.LinearRegression, weightCol="weight"), "weight column 'weight' has type string", {"weight": WORDS}
    ),
    "all to validate": Refused(
        of(ml.LinearRegression, validationIndicatorCol="held"), "'held' is true in every row", {"held": [True] * N}
    ),
    "none to validate": Refused(
        of(ml.LinearRegression, validationIndicatorCol="held"), "'held' is false in every row", {"held": [False] * N}
    ),
    "unseen class": Refused(
        of(ml.LogisticRegression, validationIndicatorCol="held"),
        "'label' lies between 3 and 3 in the validation rows",
        {"label": [3.0 if i % 4 == 0 else float(i % 2) for i in range(N)]},
    ),
    "too few class weights": Refused(
        of(ml.LogisticRegression, classWeights=[1.0]), "classWeights has 1 entries but labels go up to 1"
    ),
    "less than a row a step": Refused(
        of(ml.LogisticRegression, miniBatchFraction=0.001, optimizer="sgd"),
        "miniBatchFraction=0.001 of 240 rows is less than one row",
    ),
    "all invalid": Refused(
        of(ml.LinearRegression, handleInvalid="skip"),
        "no rows to train on: all 240 are invalid",
        {"x": [math.nan] * N},
    ),
    "no rows": Refused(linear, "there are no rows to train on", rows=0),
}


ON_SPARK = [
    name for name in CASES if ": " not in name or name.endswith((": logistic", ": binomial", ": two classes"))
]
"""The cases that Spark is given: of those that all estimators have in common, one or two."""


def unknown_labels(model: Any, rows: Any, message: str) -> None:
    """Evaluating a classifier on rows whose labels are none of its classes is one line."""
    for figure in ("accuracy", "areaUnderROC"):
        with pytest.raises(SparkoptError, match=message) as caught:
            getattr(model.evaluate(rows), figure)
        assert "\n" not in str(caught.value)


UNKNOWN: dict[str, tuple[list[Any], str]] = {
    "-1": (SIGNS, "label column 'label' holds -1, and the model's classes are 0 to 1"),
    "2": ([float(i % 3) for i in range(N)], "holds 2, and the model's classes are 0 to 1. Leave such rows out"),
    "many": ([float(i) for i in range(N)], "holds 2, 3, 4, 5, 6, ..., and"),
    "halves": ([i % 3 / 2 for i in range(N)], r"holds 0\.5, and"),
    "NaN": ([math.nan if i == 7 else 1.0 for i in range(N)], "label is NaN in 1 rows"),
    "null": ([None if i == 7 else 1.0 for i in range(N)], "label is null in 1 rows"),
    "words": (WORDS, "label column 'label' has type string; it must be numeric. Cast"),
}
"""Labels that a model of two classes does not know, and what its evaluation says."""
