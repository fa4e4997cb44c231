"""The cheapest engine is chosen, and a new engine is one class and one line of the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparkopt.engines.base import FitSize
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.local import LocalEngine
from sparkopt.engines.selection import ENGINES, by_name, choose, every_engine
from sparkopt.errors import ParameterError


@pytest.mark.parametrize(
    ("size", "seconds"),
    [
        (FitSize(2_000_000, 408, 8, 8), (4.00153832, 0.19153832, 2.62130984, 0.1602176)),
        (FitSize(400_000_000, 808, 8, 8), (4.250570986666667, 0.4405709866666666, 2.8701185066666666)),
        (FitSize(4_000_000_000, 808, 200, 64), (4.325596333333333, 0.5068052933333334, 2.9327329733333336)),
        (FitSize(40_000_000_000, 8_000_000, 256, 64), (14.378333333333334, 46.408333333333324, 8.518333333333334)),
        (FitSize(10**9, 10**7, 5000, 16), (217.44583333333333, 221.63583333333332, 212.0658333333333)),
    ],
    ids=["small", "medium", "large", "wide", "many partitions"],
)
def test_the_cheapest_engine_is_chosen(size, seconds):
    """Estimates follow from the constants that were measured; these were noted before engines owned them."""
    expected = dict(zip(("driver", "resident", "allreduce", "local"), seconds, strict=False))
    choice = choose(size, every_engine())
    assert dict(choice.seconds) == pytest.approx(expected, rel=1e-12)
    assert choice.engine.name == min(expected, key=expected.get)


def test_large_data_is_never_put_into_one_task():
    choice = choose(FitSize(1 << 40, 808, 1, 1), [DriverEngine(), LocalEngine()])
    assert choice.engine.name == "driver"
    assert "local" not in choice.seconds


def test_engines_are_known_by_their_names():
    assert [by_name(name).name for name in ENGINES] == list(ENGINES)
    assert by_name("resident", 3).otherwise.depth == by_name("driver", 3).depth == 3
    with pytest.raises(ParameterError, match="engine must be one of 'auto', 'driver'"):
        by_name("gpu")


NEW_ENGINE = """
import argparse
from dataclasses import dataclass

from sparkopt.engines import base, selection
from sparkopt.launch.settings import SessionSettings

@dataclass(frozen=True)
class ToyEngine(base.Engine):
    name = "toy"
    startup_seconds = 0.0
    pass_seconds = 1e-6

    def run(self, problems, work, store):
        raise NotImplementedError

    def remedy(self, session):
        return "buy a toy" if session.settings.encryption else None

    def senders(self, size):
        return 17

    def transport_seconds(self, size):
        return 0.0

    def advice(self, size):
        return ["play more."]

selection.ENGINES["toy"] = ToyEngine

from sparkopt.engines import DataProfile, FitPlan
from sparkopt.jobs.train import declare
from sparkopt.ml import LinearRegression

assert selection.by_name("toy", depth=3) == ToyEngine()
size = base.FitSize(10**9, 808, 4, 4)
choice = selection.choose(size, selection.by_name("auto").candidates(base.SessionTraits()))
assert choice.engine == ToyEngine() and "toy" in str(choice)
data = DataProfile([10**6] * 4, 4, 100, 408.0, False, 1.0)
plan = FitPlan(data, 101, choice)
assert plan.senders == 17 and plan.advice == ["play more."] and "engine         toy" in str(plan), str(plan)
driver = selection.choose(size, [selection.by_name("driver")])
assert "times faster: engine='toy'." in FitPlan(data, 101, driver).advice[0]
encrypted = base.SessionTraits(settings=SessionSettings(encryption="spark.network.crypto.enabled=true"))
assert "times faster: buy a toy." in FitPlan(data, 101, driver, encrypted).advice[0]
assert [engine.name for engine in selection.by_name("auto").candidates(encrypted)] == ["driver", "resident", "local"]
LinearRegression(engine="toy")._check()
flags = argparse.ArgumentParser()
declare(flags)
assert "toy" in flags.format_help()
"""


def test_a_new_engine_is_one_class_and_one_line_of_the_table():
    """Selection, ``explain``, parameters and flags know it; nothing else has to be edited."""
    subprocess.run([sys.executable, "-c", NEW_ENGINE], check=True, timeout=120)
