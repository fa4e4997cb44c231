"""Constraints: what they accept, and what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkopt.errors import ParameterError
from sparkopt.validation import Constraint, Interval, OneOf, check

numbers = st.floats(-10, 10) | st.integers(-10, 10).map(float)


@given(
    low=numbers, width=st.floats(0.1, 5), value=numbers, closed=st.sampled_from(["both", "left", "right", "neither"])
)
def test_interval_is_the_comparison_that_it_prints(low, width, value, closed):
    high = low + width
    left = value >= low if closed in ("both", "left") else value > low
    right = value <= high if closed in ("both", "right") else value < high
    interval = Interval(low, high, closed=closed)
    assert interval.accepts(value) == (left and right)
    assert interval.contains(np.array([value])).tolist() == [left and right]
    assert str(interval)[3] == ("[" if closed in ("both", "left") else "(")
    assert str(interval)[-1] == ("]" if closed in ("both", "right") else ")")


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1),
    whole=st.booleans(),
    finite=st.booleans(),
)
def test_contains_says_of_each_element_what_accepts_says_of_it(values, whole, finite):
    interval = Interval(-2, None, whole=whole, finite=finite)
    for value, inside in zip(values, interval.contains(np.array(values)).tolist(), strict=True):
        number = int(value) if whole and math.isfinite(value) and value == int(value) else value
        assert inside == interval.accepts(number) or (whole and math.isinf(value))


@pytest.mark.parametrize("value", [True, "1", None, 1 + 0j, float("nan"), float("inf"), [1.0]])
def test_what_is_no_finite_number_is_refused(value):
    assert not Interval().accepts(value)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1)])
def test_numbers_of_every_type_are_accepted(value):
    assert Interval(0, 2).accepts(value)


def test_whole_numbers_are_integers_by_type():
    whole = Interval(0, None, whole=True)
    assert whole.accepts(3)
    assert whole.accepts(np.int32(3))
    assert not whole.accepts(3.0)


def test_infinity_is_accepted_on_demand():
    assert Interval(0, None, finite=False).accepts(math.inf)
    assert not Interval(0, None, finite=False).accepts(math.nan)


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Interval(), "a finite number"),
        (Interval(whole=True), "a whole number"),
        (Interval(0, None), ">= 0"),
        (Interval(0, None, closed="neither"), "> 0"),
        (Interval(None, 1), "<= 1"),
        (Interval(None, 1, closed="left"), "< 1"),
        (Interval(0, 1, closed="right"), "in (0, 1]"),
        (Interval(1, None, whole=True), "a whole number >= 1"),
        (OneOf(["a", 1]), "one of 'a', 1"),
    ],
)
def test_constraints_print_themselves(constraint, text):
    assert str(constraint) == text
    assert isinstance(constraint, Constraint)


def test_one_of_compares_type_and_value():
    options = OneOf(["a", 1])
    assert options.accepts("a")
    assert options.accepts(1)
    assert not options.accepts(True)
    assert not options.accepts(1.0)
    assert not options.accepts("b")


def test_check_returns_the_value_or_names_parameter_domain_and_value():
    assert check("stepSize", 0.5, Interval(0, 1)) == 0.5
    with pytest.raises(ParameterError, match=r"^stepSize must be in \[0, 1\]\. Got 2 instead\.$"):
        check("stepSize", 2, Interval(0, 1))
