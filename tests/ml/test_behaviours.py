"""What pyspark.ml's own Python tests ask of its estimators, asked of ours on Spark Classic."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.behaviours import BEHAVIOURS, World, run


@pytest.fixture(scope="module")
def world(spark, tmp_path_factory):
    return World(spark, tmp_path_factory.mktemp("behaviours"))


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_pysparks_own_tests_ask(world, name):
    run(name, world)


ESTIMATORS = [ml.LogisticRegression, ml.LinearSVC, ml.LinearRegression, ml.GeneralizedLinearRegression]
GIVEN = {
    "a whole float": ("maxIter", 5.0, 5),
    "an integer": ("tol", 1, 1.0),
    "a float of NumPy's": ("regParam", np.float64(0.5), 0.5),
    "a tuple": ("featuresCols", ("a", "b"), ["a", "b"]),
    "no number": ("maxIter", "many", TypeError),
    "a fraction": ("maxIter", 5.1, TypeError),
    "a text": ("tol", "small", TypeError),
    "a number": ("featuresCol", 2.3, TypeError),
    "one": ("fitIntercept", 1, TypeError),
    "a word": ("standardization", "false", TypeError),
    "numbers": ("featuresCols", [1, 2], TypeError),
}


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", GIVEN)
def test_values_are_converted_or_refused_when_they_are_given(kind, name):
    param, given, expected = GIVEN[name]
    setter = f"set{param[0].upper()}{param[1:]}"
    ways = (
        lambda: kind(**{param: given}),
        lambda: kind().setParams(**{param: given}),
        lambda: getattr(kind(), setter)(given),
    )
    for way in ways:
        if expected is TypeError:
            with pytest.raises(TypeError, match=f'"{param}"'):
                way()
        else:
            found = way().getOrDefault(param)
            assert found == expected
            assert type(found) is type(expected)


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_parameters_belong_to_their_estimator_and_can_be_cleared(kind):
    one, other = kind(), kind(maxIter=7)
    assert one.uid != other.uid
    assert one.uid.startswith(kind.__name__)
    names = [param.name for param in one.params]
    assert names == sorted(names)
    assert {param.parent for param in one.params} == {one.uid}
    with pytest.raises(ValueError, match="does not belong to"):
        one.getOrDefault(other.maxIter)
    with pytest.raises(AttributeError):
        one.getParam("maxIters")
    assert other.copy({other.tol: 0.5}).getTol() == 0.5
    assert "(default: 1e-06, current: 0.5)" in other.copy({other.tol: 0.5}).explainParam("tol")
    assert other.explainParams().count("\n") == len(names) - 1
    assert other.extractParamMap({other.maxIter: 9})[other.maxIter] == 9
    other.clear(other.maxIter)
    assert not other.isSet("maxIter")
    assert other.getMaxIter() == one.getMaxIter()
