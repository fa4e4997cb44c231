"""Schedules against their formulas."""

from __future__ import annotations

import math

import pytest

from sparkopt.errors import ParameterError
from sparkopt.optim import schedules
from sparkopt.optim.schedules import Constant, Cosine, Exponential, InverseTime, StepDecay, WarmUp
from tests.problems import named

STEPS = [0, 1, 2, 7, 10, 30, 100, 10_000]


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Constant(0.3), lambda t: 0.3),
        (InverseTime(0.5, decay=0.1), lambda t: 0.5 / (1 + 0.1 * t)),
        (InverseTime(0.5, decay=1, power=0.5), lambda t: 0.5 / math.sqrt(1 + t)),
        (StepDecay(1.0, factor=0.5, every=10), lambda t: 0.5 ** math.floor(t / 10)),
        (Exponential(2.0, factor=0.9), lambda t: 2 * 0.9**t),
        (Cosine(1.0, steps=30, final=0.1), lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * min(t, 30) / 30))),
        (WarmUp(Exponential(2.0, 0.9), steps=4), lambda t: 2 * (t + 1) / 4 if t < 4 else 2 * 0.9 ** (t - 4)),
    ],
    ids=named,
)
def test_schedule_is_its_formula(schedule, formula):
    assert [schedule(t) for t in STEPS] == pytest.approx([formula(t) for t in STEPS])


def test_as_schedule_keeps_schedules_and_wraps_numbers():
    cosine = Cosine(1.0, steps=3)
    assert schedules.as_schedule(cosine) is cosine
    assert schedules.as_schedule(0.1) == Constant(0.1)


@pytest.mark.parametrize("name", ["constant", "inverse_time", "step", "exponential", "cosine", "warm_up"])
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_by_name_stays_between_zero_and_its_initial_value(name, steps):
    schedule = schedules.by_name(name, 0.5, steps)
    rates = [schedule(step) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert max(rates) == 0.5
    if name not in ("warm_up", "constant") and steps > 5:
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] < rates[0]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ParameterError, match="schedule must be one of 'constant', 'inverse_time'.*Got 'linear'"):
        schedules.by_name("linear", 0.1, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(0.0),
        lambda: Constant(float("nan")),
        lambda: InverseTime(-1.0),
        lambda: StepDecay(1.0, factor=1.5),
        lambda: StepDecay(1.0, every=0),
        lambda: Exponential(1.0, factor=0.0),
        lambda: Cosine(1.0, steps=0),
        lambda: Cosine(1.0, steps=3, final=2.0),
        lambda: WarmUp(Constant(1.0), steps=0),
    ],
)
def test_values_outside_the_domain_are_refused(make):
    with pytest.raises(ParameterError, match="must be"):
        make()
